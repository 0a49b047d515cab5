"""Export of `encode` and `forecast` to two self-contained ONNX graphs that every backend reads.

`torch.onnx.export` writes them (static shapes, opset of the family); its source paths, its names
that change with the tracer and its value infos are then removed. `forecast` is exported as one step
and repeated here, sharing the weights. The result is checked: no control flow, no shape arithmetic,
no custom operator, no external data, the promised inputs and outputs.

Shapes: frame as in `FrameSpec.shape`, s state size, K history, H horizon, A action-block size, D
latent size.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from jetsight.errors import EngineError
from jetsight_compile.export.encoder import EncodeGraph
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import drop_unread
from jetsight_compile.export.predictor import ForecastGraph
from jetsight_train.model.world_model import WorldModel

# JetPack 6's TensorRT 10.3 parses ONNX 1.16 files, whose IR version is 10.
_IR_VERSION = 10
# Needed to rank a planner's candidates; only graphs named imagine_* may have them.
_PLANNING = {"Where", "Expand", "Tile"}
# Operators that make a graph dynamic, slow or unreadable for one of the backends.
_REFUSED = {"If", "Loop", "Scan", "Shape", "Size", "NonZero", "Range", "ConstantOfShape"}
_REFUSED |= {"Identity", "Dropout", "BatchNormalization", "Einsum", "GatherND", "ScatterND"}
_REFUSED |= _PLANNING
Port = tuple[int, tuple[int, ...]]  # element type and shape
_SCOPES = "pkg.torch.onnx.name_scopes"
# It warns, once per operator and export, that torchvision is absent; no model here uses it.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Sizes:
    """The static sizes a model's graphs have, named as in the legend above; `s` 0 without state."""

    frame: tuple[int, ...]
    s: int
    K: int
    H: int
    A: int
    D: int

    @classmethod
    def of(cls, model: WorldModel) -> Sizes:
        """Sizes of a model."""
        config, state = model.config, model.state
        window = (config.history, config.horizon, model.action_size, config.latent_size)
        return cls(model.frame.shape, 0 if state is None else len(state.names), *window)

    def signature(self, graph: str) -> tuple[dict[str, Port], dict[str, Port]]:
        """Return inputs and outputs of `encode` or `forecast`: name to element type and shape."""
        f32, u8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
        if graph == "encode":
            state = {"state": (f32, (self.s,))} if self.s else {}
            return {"frame_hwc_u8": (u8, self.frame), **state}, {"z": (f32, (self.D,))}
        inputs: dict[str, Port] = {"z_hist": (f32, (self.K, self.D))}
        if self.K > 1:  # one latent has no action before it, and no backend takes an empty input
            inputs["a_hist"] = (f32, (self.K - 1, self.A))
        inputs["actions"] = (f32, (self.H, self.A))
        return inputs, {"z_future": (f32, (self.H, self.D))}


class Ports(Protocol):
    """Source of the inputs and outputs of a graph."""

    def signature(self, graph: str) -> tuple[dict[str, Port], dict[str, Port]]:
        """Return inputs and outputs of a graph: name to element type and shape."""
        ...


def export_encode(model: WorldModel, style: Style) -> onnx.ModelProto:
    """`frame_hwc_u8 [frame], state [s] -> z [D]`; no `state` for a model without.

    Raises:
        UsageError: the model's encoder has no compiled form.
        EngineError: the exported graph breaks a promise of this module.
    """
    sizes = Sizes.of(model)
    inputs = {"frame_hwc_u8": torch.zeros(sizes.frame, dtype=torch.uint8)}
    if sizes.s:
        inputs["state"] = torch.zeros(sizes.s)
    graph = export_part(EncodeGraph(model, style), inputs, ["z"], style.opset)
    return finished(graph, "encode", sizes)


def export_forecast(model: WorldModel, style: Style) -> onnx.ModelProto:
    """`z_hist [K, D], a_hist [K-1, A], actions [H, A] -> z_future [H, D]`; no `a_hist` if K is 1.

    Raises:
        EngineError: the exported graph breaks a promise of this module.
    """
    sizes, module = Sizes.of(model), ForecastGraph(model, style)
    ports, _ = sizes.signature("forecast")
    blocks = {name: torch.zeros(ports[name][1]) for name in ports if name != "z_hist"}
    pieces = [f"modulation_{i}" for i in range(len(module.modulation.sizes))]
    modulation = export_part(module.modulation, blocks, pieces, style.opset)
    each = len(pieces) // sizes.H
    inputs = {"window": torch.zeros(sizes.K, sizes.D)}
    # Pieces have the same sizes in every step, so the first step's describe them all.
    for name, rows in zip(pieces[:each], module.modulation.sizes, strict=False):
        inputs[name] = torch.zeros(rows, sizes.D, dtype=module.step.dtype)
    outputs = ["z", "window_next"] if sizes.K > 1 else ["z"]
    step = export_part(module.step, inputs, outputs, style.opset)
    return finished(_unrolled(modulation, step, sizes), "forecast", sizes)


def operator_counts(model: onnx.ModelProto) -> Counter[str]:
    """Count the nodes of a graph by operator."""
    return Counter(node.op_type for node in model.graph.node)


def export_part(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Export one module as a separate graph, its nodes named after its modules.

    Raises:
        EngineError: the exporter wrote no graph, or another opset.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # torch 2.13 calls its own deprecated helpers here.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            # The TorchScript exporter ends at opset 20.
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    # The function's type allows None, which is what the TorchScript exporter returns.
    if program is None:
        raise EngineError("torch.onnx.export returned no graph; check the installed torch version")
    model: onnx.ModelProto = program.model_proto
    if model.opset_import[0].version != opset:
        raise EngineError(
            f"torch.onnx.export wrote opset {model.opset_import[0].version}, expected {opset}; "
            "check the installed torch version against constraints.txt"
        )
    _name_after_modules(model.graph.node)
    return model


def _name_after_modules(nodes: Iterable[onnx.NodeProto]) -> None:
    """Name nodes after the torch module they come from, as in `blocks.3.mlp.up/Gemm`."""
    used: Counter[str] = Counter()
    for node in nodes:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "")
        parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
        # The last scope is the traced operation itself; the one before it is its module.
        owner = parts[-2] if len(parts) > 1 else ""
        name = f"{owner}/{node.op_type}" if owner else node.op_type
        # Unique, because quantizers, taps and controls find a layer by its name alone.
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"


def _unrolled(modulation: onnx.ModelProto, step: onnx.ModelProto, sizes: Sizes) -> onnx.ModelProto:
    """Join `modulation` and H copies of `step`, each fed by the one before it, into one graph."""
    graph = onnx.GraphProto(name="forecast")
    window = helper.make_tensor_value_info("z_hist", onnx.TensorProto.FLOAT, (sizes.K, sizes.D))
    graph.input.extend([window, *modulation.graph.input])
    splice(graph, modulation.graph, "", {value.name: value.name for value in graph.input})
    pieces = [value.name for value in modulation.graph.output]
    current, future = "z_hist", []
    each = len(step.graph.input) - 1
    for index in range(sizes.H):
        sources = [current, *pieces[index * each : (index + 1) * each]]
        bound = {v.name: s for v, s in zip(step.graph.input, sources, strict=True)}
        renamed = splice(graph, step.graph, f"step{index}/", bound)
        future.append(renamed["z"])
        current = renamed.get("window_next", renamed["z"])
    graph.node.append(helper.make_node("Concat", future, ["z_future"], name="future", axis=0))
    shape = (sizes.H, sizes.D)
    graph.output.append(helper.make_tensor_value_info("z_future", onnx.TensorProto.FLOAT, shape))
    model = onnx.ModelProto()
    # For the opset imports and the IR version; the graph is replaced.
    model.CopyFrom(step)
    model.graph.CopyFrom(graph)
    return model


def splice(
    graph: onnx.GraphProto,
    part: onnx.GraphProto,
    prefix: str,
    names: dict[str, str],
    owner: str | None = None,
) -> dict[str, str]:
    """Append the nodes of `part`, its weights once; `names` maps its inputs to values of `graph`.

    Args:
        graph: destination, changed in place.
        part: source.
        prefix: of the names of its nodes and values.
        names: every input of `part` to a value of `graph`; the other values are added.
        owner: prefix of its weights, the same for all copies.

    Returns:
        `names`, with every value of `part`.
    """
    if owner is None:
        owner = "" if prefix == "" else "step/"
    present = {tensor.name for tensor in graph.initializer}
    for tensor in part.initializer:
        names[tensor.name] = owner + tensor.name
        if owner + tensor.name not in present:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = owner + tensor.name
    for node in part.node:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        for value in node.output:
            names[value] = prefix + value
        # An empty name is ONNX's form of an optional input that is left out.
        copy.input[:] = [names[value] if value else "" for value in node.input]
        copy.output[:] = [names[value] for value in node.output]
    return names


def finished(model: onnx.ModelProto, graph: str, sizes: Ports) -> onnx.ModelProto:
    """Strip metadata, then check the remaining computation.

    Raises:
        EngineError: the graph breaks a promise of this module.
    """
    strip(model, graph)
    _widen_byte_casts(model.graph)
    _merge_equal_weights(model.graph)
    # Last, so that what is checked is what ships.
    check_graph(model, graph, sizes)
    return model


def strip(model: onnx.ModelProto, graph: str) -> onnx.ModelProto:
    """Remove the exporter's paths, names and notes, so that equal graphs give equal bytes."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    model.graph.name, model.graph.doc_string, model.doc_string = graph, "", ""
    model.ir_version = _IR_VERSION
    model.producer_name, model.producer_version = "jetsight", ""
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    parts = (model.graph.node, model.graph.input, model.graph.output, model.graph.initializer)
    for item in itertools.chain(*parts):
        del item.metadata_props[:]
        item.doc_string = ""
    return model


def _widen_byte_casts(graph: onnx.GraphProto) -> None:
    """Cast bytes to bfloat16 by way of float32: TensorRT documents float32 and float16 alone.

    Exact, and free once compiled. Here and not in the module, because exporters join two casts.
    """
    direct = [node for node in graph.node if _casts_pixels(node, onnx.TensorProto.BFLOAT16)]
    if not direct:
        return
    pixels, wide = direct[0].input[0], f"{direct[0].input[0]}_f32"
    for node in direct:
        node.input[0] = wide
    first = helper.make_node("Cast", [pixels], [wide], name=wide, to=onnx.TensorProto.FLOAT)
    graph.node.insert(0, first)


def _casts_pixels(node: onnx.NodeProto, to: int) -> bool:
    return (
        node.op_type == "Cast"
        and node.input[0] == "frame_hwc_u8"
        and any(each.name == "to" and each.i == to for each in node.attribute)
    )


def _merge_equal_weights(graph: onnx.GraphProto) -> None:
    """Store equal constants once, and drop those without a reader."""
    first: dict[tuple[object, ...], str] = {}
    names: dict[str, str] = {}
    for tensor in graph.initializer:
        # Type and shape belong to the key: equal bytes may be other numbers.
        key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        names[tensor.name] = first.setdefault(key, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
    drop_unread(graph)


def check_graph(model: onnx.ModelProto, graph: str, sizes: Ports) -> None:
    """Refuse a graph that not every backend of its family could run.

    Raises:
        EngineError: a refused operator, a custom domain, external data, a dynamic shape, a first
            operation on the frame that is no Cast, or other inputs and outputs than promised.
    """
    problem = _first_problem(model, graph, sizes)
    if problem:
        raise EngineError(f"graph {graph!r} {problem}; this is a defect of the exporter, report it")
    # With shape inference; by default the checker looks at each node alone.
    onnx.checker.check_model(model, full_check=True)


def _first_problem(model: onnx.ModelProto, graph: str, sizes: Ports) -> str | None:
    nodes = model.graph.node
    if domains := sorted({n.domain for n in nodes} - {"", "ai.onnx"}):
        return f"uses operators of the domain {domains[0]!r}"
    allowed = _PLANNING if graph.startswith("imagine_") else set()
    if refused := sorted({n.op_type for n in nodes} & (_REFUSED - allowed)):
        return f"has a {refused[0]} node"
    # A backend gets a graph as bytes, with no folder to find other files in.
    if model.functions or any(tensor.external_data for tensor in model.graph.initializer):
        return "keeps local functions or external data"
    for actual, promised in zip(
        (model.graph.input, model.graph.output), sizes.signature(graph), strict=True
    ):
        ports = {value.name: _port(value) for value in actual}
        if ports != promised:
            return f"has inputs or outputs {ports}, expected {promised}"
    readers = {n.op_type for n in nodes if "frame_hwc_u8" in n.input}
    # TensorRT refuses a uint8 input that anything but a Cast reads.
    if graph == "encode" and readers != {"Cast"}:
        return f"feeds uint8 pixels to {sorted(readers)}, expected a Cast alone"
    if any(_casts_pixels(node, onnx.TensorProto.BFLOAT16) for node in nodes):
        return "casts uint8 pixels to bfloat16, expected float32 or float16"
    return None


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim)
