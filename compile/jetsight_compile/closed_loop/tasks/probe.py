"""Quantities that a bundle's probe reads out of camera frames, for tasks whose state lacks them.

A bundle has no graph of its probe alone, but every planner's graph reads the goal with it. That
part is cut out of one of them, so what is judged is what the planner goes by.

Shapes: h, w frame size, D latent size, P quantities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.engine import Engine
from jetsight.errors import BundleError
from jetsight.simulators.spec import Observation

if TYPE_CHECKING:
    import onnx

_COS, _SIN = "cos ", "sin "
_GOAL, _TARGET = "z_goal", "probe_target"  # tensors of a planner's graph, see `planner_tensors`


def probed_names(quantities: Sequence[str]) -> tuple[str, ...]:
    """Return the names that can be read: the quantities, and each angle with cosine and sine."""
    angles = [name.removeprefix(_COS) for name in quantities if name.startswith(_COS)]
    return (*quantities, *(name for name in angles if _SIN + name in quantities))


class ProbeReader:
    """Encoder and probe of a bundle; loads them at the first frame.

    Args:
        bundle: with a planner and a probe.
        family: of its graphs; None for the first for a CPU, else the first.
        backend: as in `Session.open`.
        state_names: of the environment, out of which a model that reads a state takes its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        family: str | None,
        backend: str | None,
        state_names: Sequence[str] = (),
    ) -> None:
        heads, planners = bundle.manifest.heads, bundle.manifest.planners
        self._quantities = () if heads is None else heads.quantities
        self.names = probed_names(self._quantities) if planners else ()
        families = [each.name for each in bundle.manifest.families]
        self._family = family or next((f for f in families if f.startswith("cpu")), families[0])
        self._bundle, self._backend, self._state_names = bundle, backend, state_names
        self._open = ExitStack()
        self._engines: tuple[Engine, Engine] | None = None

    def __call__(self, observation: Observation) -> Mapping[str, float]:
        """Read every quantity out of the frame; an angle, in rad, beside its cosine and sine."""
        encode, probe = self._engines or self._load()
        encode.inputs["frame_hwc_u8"].write(observation.frame_hwc_u8)
        spec = self._bundle.manifest.state
        if spec is not None:
            known = dict(zip(self._state_names, observation.state, strict=True))
            encode.inputs["state"].write(np.array([known[n] for n in spec.names], np.float32))
        encode.run()
        probe.inputs[_GOAL].write(encode.outputs["z"].read())
        probe.run()
        # By place: a backend that folds the last layer away keeps the name of the one before.
        (output,) = probe.outputs.values()
        values = map(float, output.read().ravel())
        found = dict(zip(self._quantities, values, strict=True))
        for name in self.names[len(self._quantities) :]:
            found[name] = math.atan2(found[_SIN + name], found[_COS + name])
        return found

    def close(self) -> None:
        """Release the engines."""
        self._open.close()
        self._engines = None

    def _load(self) -> tuple[Engine, Engine]:
        graph = self._bundle.manifest.planners[0].graph
        part = probe_graph(self._bundle.graph(self._family, graph), str(self._bundle.path))
        maker = registry.open_backend(self._backend, self._family)
        engines = []
        for data in (self._bundle.graph(self._family, "encode"), part):
            engines.append(maker.load(data))
            self._open.callback(engines[-1].close)
        self._engines = engines[0], engines[1]
        return self._engines


def probe_graph(planner: bytes, where: str) -> bytes:
    """Cut the probe out of a planner's graph: `z_goal [D]` to one output `[1,P]`.

    Args:
        planner: ONNX of one iteration.
        where: the bundle, for messages.

    Raises:
        BundleError: it does not read the goal with a probe.
    """
    import onnx

    whole = onnx.load_from_string(planner)
    read = _read_of(whole.graph)
    nodes = [] if read is None else _before(whole.graph, read)
    needed = {name for node in nodes for name in node.input}
    known = {each.name for each in whole.graph.initializer}
    made = {name for node in nodes for name in node.output}
    if read is None or needed - known - made - {""} != {_GOAL}:
        raise BundleError(
            f"{where}: its planner does not read the goal with a probe, so success cannot be judged"
            " by quantities; compile it again"
        )
    shaped = {each.name: each for each in onnx.shape_inference.infer_shapes(whole).graph.value_info}
    output = onnx.ValueInfoProto()
    output.CopyFrom(shaped[read])
    graph = onnx.helper.make_graph(
        nodes,
        "probe",
        [each for each in whole.graph.input if each.name == _GOAL],
        [output],
        [each for each in whole.graph.initializer if each.name in needed],
    )
    part = onnx.helper.make_model(graph, opset_imports=whole.opset_import)
    part.ir_version = whole.ir_version
    data: bytes = part.SerializeToString()
    return data


def _read_of(graph: onnx.GraphProto) -> str | None:
    """Find the tensor that stands in for a target that is not given: what the probe reads."""
    for node in graph.node:
        if node.op_type == "Where" and _TARGET in node.input[1:]:
            return next((name for name in node.input[1:] if name != _TARGET), None)
    return None


def _before(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Select the nodes that lead to the tensor `name`, in order."""
    wanted, found = {name}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]
