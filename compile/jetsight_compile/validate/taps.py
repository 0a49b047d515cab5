"""Values inside a graph, compared token by token with those of the float32 graph.

Outputs can hide a defect: a stale history left a decoded action's cosine at 0.99999 while a tensor
inside had fallen to 0.81. So every block that has weights is tapped at its end: after each
convolution, each residual block and each linear layer outside of one; in `forecast` in every step,
whose last tap is that step's latent.

Blocks are identified by the name of their last node, which casts, Q/DQ pairs and the quantizers'
own value names do not change. A tap is the float form of its value, before it is requantized.

Shapes: N samples, T tokens, C channels of a tap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from jetsight.engine import Backend
from jetsight.errors import EngineError
from jetsight_compile.calibration.run import F32, Sample, loaded, write
from jetsight_compile.export.onnx_graph import block_of, weighted
from jetsight_compile.validate.metrics import MOST_DB, worst_percent
from jetsight_compile.validate.runner import graph_bytes

F64 = npt.NDArray[np.float64]
Values = dict[str, F32]
_STEP = re.compile(r"step\d+/")

# Tokens that change by less than half of the tap's RMS change are mostly a camera's noise and have
# no direction to compare; their error still counts as noise.
_STILL = 0.5
# Below this part of its energy a tap does not change at all, so there is nothing to compare.
_CONSTANT = 1e-9


@dataclass(frozen=True)
class Tap:
    """One place inside a graph.

    Attributes:
        name: the block, with its step in `forecast`: `step2/blocks.1`, `trunk.layers.0`.
        node: name of the block's last node, whose output is read.
        shape: of that output.
    """

    name: str
    node: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Likeness:
    """Similarity of one tap's values to the float ones.

    Attributes:
        cosine: mean over the tokens that change, their mean over the samples removed.
        worst: cosine that one such token in a hundred does not reach.
        sqnr_db: signal to error of all tokens, in dB; at most 200.
    """

    cosine: float
    worst: float
    sqnr_db: float


def places(graph: onnx.ModelProto) -> list[Tap]:
    """List the taps of a float32 graph in the order it runs.

    Raises:
        EngineError: the graph has no layer with a constant weight.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    has_weights = {
        _name(node) for node in weighted(graph) if constants.intersection(node.input[:2])
    }
    # Later nodes of a block replace earlier ones, so that its last one stays.
    ends = {_name(node): node for node in graph.graph.node if _name(node) in has_weights}
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
    if not ends:
        raise EngineError(
            f"graph {graph.graph.name!r} has no layer with a constant weight, so there is nothing "
            "inside to compare; this is a defect of the exporter, report it"
        )
    return [Tap(name, node.name, shapes[node.output[0]]) for name, node in ends.items()]


def tapped(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    """Return a copy that also outputs every tap, in float32 and under its name.

    Raises:
        EngineError: a tap's node is not in this graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = {node.name: node for node in copy.graph.node}
    for tap in taps:
        if tap.node not in nodes:
            raise EngineError(
                f"graph {model.graph.name!r} lost node {tap.node!r}, so the end of block "
                f"{tap.name!r} cannot be compared with the float32 graph; the quantizer renamed or "
                "removed it: check its version against constraints.txt"
            )
        value, name = nodes[tap.node].output[0], _output(tap)
        # Without a Cast of its own, a half-precision tap would be an output that no engine reads.
        copy.graph.node.append(
            helper.make_node("Cast", [value], [name], name=name, to=onnx.TensorProto.FLOAT)
        )
        copy.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, tap.shape)
        )
    return copy


def read(
    backend: Backend, model: onnx.ModelProto, taps: Sequence[Tap], samples: Sequence[Sample]
) -> Values:
    """Read every tap's values over the samples: `[N, T, C]` by the tap's name.

    Raises:
        EngineError: a tap is missing, or the backend refuses the graph.
    """
    graph = graph_bytes(tapped(model, taps))
    found: dict[str, list[F32]] = {tap.name: [] for tap in taps}
    with loaded(backend, graph) as engine:
        for sample in samples:
            write(engine, sample)
            engine.run()
            for tap in taps:
                value = np.array(engine.outputs[_output(tap)].read(), dtype=np.float32)
                found[tap.name].append(_tokens(value))
    return {name: np.stack(values) for name, values in found.items()}


def compare(found: Mapping[str, F32], expected: Mapping[str, F32]) -> dict[str, Likeness]:
    """Compare every tap that changes over the samples."""
    each = {name: likeness(found[name], value) for name, value in expected.items()}
    return {name: value for name, value in each.items() if value is not None}


def likeness(found: F32, expected: F32) -> Likeness | None:
    """Compare `[N, T, C]` with `[N, T, C]`; None where the expected does not change over N."""
    exact = expected.astype(np.float64)
    mean = exact.mean(0)
    b = exact - mean
    energy = np.square(b).sum(-1)
    if energy.sum() <= _CONSTANT * np.square(exact).sum():
        return None
    if not np.isfinite(found).all():
        return Likeness(-1.0, -1.0, -MOST_DB)
    # The expected mean for both, so that a constant offset counts as the error that it is.
    a = found.astype(np.float64) - mean
    # Squared, because the threshold is a share of the RMS and this is energy.
    moving = energy >= _STILL**2 * energy.mean()
    norms = np.sqrt(np.square(a).sum(-1) * energy)[moving]
    cosine = (a * b).sum(-1)[moving] / np.maximum(norms, 1e-30)
    noise = max(float(np.square(a - b).sum()), float(energy.sum()) * 10.0 ** (-MOST_DB / 10.0))
    sqnr_db = 10.0 * float(np.log10(energy.sum() / noise))
    return Likeness(float(cosine.mean()), worst_percent(cosine), sqnr_db)


def _name(node: onnx.NodeProto) -> str:
    step = _STEP.match(node.name)
    return (step[0] if step else "") + block_of(node.name)


def _output(tap: Tap) -> str:
    return f"tap/{tap.name}"


def _tokens(value: F32) -> F32:
    """Reshape to `[T, C]`: rows of a matrix, or pixels of a feature map `[1, C, h, w]`."""
    if value.ndim == 4:
        return np.ascontiguousarray(value[0].reshape(value.shape[1], -1).T)
    return value.reshape(-1, value.shape[-1])
