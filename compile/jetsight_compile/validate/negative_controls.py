"""Graphs and inputs that are wrong on purpose: the negative controls of the gates.

Each graph is a broken copy of a compiled one, float or quantized, that still loads and runs, like
the result of a real compiler defect; a stale history is like the result of a real runtime defect.

Shapes: W windows, K history, D latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from jetsight.errors import EngineError
from jetsight_compile.export.onnx_graph import weighted

F32 = npt.NDArray[np.float32]

# Operators between the last layer and the output; unrolled steps share their weights.
_PASSING = ("Reshape", "Cast", "Squeeze", "Concat")
_FACTOR = 2.0
_FP8_MAX = 448.0


def scale_half_layer(model: onnx.ModelProto, layer: str | None = None) -> onnx.ModelProto:
    """Return the graph with half the outputs of one layer scaled wrongly.

    In a Q/DQ graph these are the weight's scales, as after a wrong calibration of the channels.

    Args:
        model: compiled graph; not modified.
        layer: name of its node; the last layer if None.

    Raises:
        EngineError: that layer has no constant weight.
    """
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    node = _last(broken.graph) if layer is None else _named(broken.graph, layer)
    weight, is_kernel = _scale_of(broken.graph, node)
    values = numpy_helper.to_array(weight)
    half = np.atleast_1d(values.astype(np.float32))
    # A view: what is scaled in `outputs` is scaled in `half`.
    outputs = half if is_kernel else half.swapaxes(0, -1)  # a kernel's come first
    outputs[: max(1, len(outputs) // 2)] *= _FACTOR
    # A group's scale may itself be in FP8, which has no infinity, so it saturates.
    largest = _FP8_MAX if values.dtype.itemsize == 1 else np.inf
    half = np.clip(half, -largest, largest).astype(values.dtype).reshape(values.shape)
    weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    return broken


def inner_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers before the last one, each weight once, the middle of the graph first."""
    constants = {tensor.name for tensor in model.graph.initializer} - {*_last(model.graph).input}
    # Reversed, so that a weight that steps share gets the name of its first layer.
    by_weight = {
        node.input[1]: node.name for node in reversed(weighted(model)) if node.input[1] in constants
    }
    return middle_first(list(by_weight.values())[::-1])


def middle_first(layers: Sequence[str], stride: int = 1) -> list[str]:
    """Every `stride`-th of some layers, the nearest to the middle first."""
    middle = len(layers) // 2
    return sorted(layers[::stride], key=lambda layer: abs(layers.index(layer) - middle))


def zero_input(model: onnx.ModelProto, input_name: str) -> onnx.ModelProto:
    """Return the graph with one float input multiplied by zero: still read, without any effect.

    An exporter that takes an example value for a constant makes such a graph.
    """
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    zeroed, zero = f"{input_name}_zeroed", f"{input_name}_zero"
    for node in broken.graph.node:
        node.input[:] = [zeroed if value == input_name else value for value in node.input]
    # At the front, because ONNX wants nodes in an order in which they can run.
    broken.graph.node.insert(0, onnx.helper.make_node("Mul", [input_name, zero], [zeroed]))
    broken.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
    return broken


def shift_history(z_hist: F32) -> F32:
    """Return histories `[W, K, D]` one step old, as if the newest latent had not arrived.

    The oldest is repeated, because its predecessor is not recorded. With K = 1 there is no older
    one, and each window gets its neighbour's.
    """
    if z_hist.shape[1] == 1:
        return np.roll(z_hist, 1, axis=0)
    return np.concatenate([z_hist[:, :1], z_hist[:, :-1]], axis=1)


def _last(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Find the layer that makes the output."""
    makers = {value: node for node in graph.node for value in node.output}
    node = makers[graph.output[0].name]
    while node.op_type in _PASSING:
        node = makers[node.input[0]]
    return node


def _named(graph: onnx.GraphProto, layer: str) -> onnx.NodeProto:
    for node in graph.node:
        if node.name == layer:
            return node
    raise EngineError(
        f"graph {graph.name!r} has no layer {layer!r}, so the negative control cannot be built; "
        "the quantizer renamed it: check its version against constraints.txt"
    )


def _scale_of(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[Any, bool]:
    """Find the initializer that scales a layer; True beside it for a convolution's kernel.

    It is the weight, the scale of a dequantized weight, or that scale's own stored values.
    """
    makers = {value: node for node in graph.node for value in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    name = node.input[1] if len(node.input) > 1 else ""
    is_kernel = node.op_type == "Conv" and name in weights
    if name in makers and makers[name].op_type == "DequantizeLinear":
        name = makers[name].input[1]
        if name in makers and makers[name].op_type == "DequantizeLinear":
            name = makers[name].input[0]
    if name not in weights:
        where = "ends in" if node.name == _last(graph).name else "has"
        raise EngineError(
            f"graph {graph.name!r} {where} a {node.op_type} without a constant weight, so the "
            "negative control cannot be built; this is a defect of the exporter, report it"
        )
    return weights[name], is_kernel
