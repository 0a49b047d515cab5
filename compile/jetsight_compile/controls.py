"""Graphs that are wrong on purpose: the negative controls of the gate.

Each takes a compiled graph, float or quantized, and returns the bytes of a broken copy that still
loads and runs, which is how real compiler defects look.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from jetsight.errors import EngineError

# What may stand between the last layer and the output; unrolled steps share their weights.
_PASSING = ("Reshape", "Cast", "Squeeze", "Concat")
_FACTOR = 2.0


def mis_scaled(model: onnx.ModelProto) -> bytes:
    """The graph with half the outputs of its last layer twice too large.

    In a Q/DQ graph these are the weight's scales, as after a wrong calibration of the channels.

    Raises:
        EngineError: the graph does not end in a layer with a constant weight.
    """
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in broken.graph.initializer}
    weight = weights[_last_weight(broken.graph)]
    values = numpy_helper.to_array(weight).copy()
    values[..., : max(1, values.shape[-1] // 2)] *= values.dtype.type(_FACTOR)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return bytes(broken.SerializeToString())


def deaf(model: onnx.ModelProto, input_name: str) -> bytes:
    """The graph with one float input multiplied by zero, so that it is read and never heard.

    This is what an exporter does that takes an example value for a constant.
    """
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    unheard, zero = f"{input_name}_unheard", f"{input_name}_zero"
    for node in broken.graph.node:
        node.input[:] = [unheard if value == input_name else value for value in node.input]
    broken.graph.node.insert(0, onnx.helper.make_node("Mul", [input_name, zero], [unheard]))
    broken.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
    return bytes(broken.SerializeToString())


def _last_weight(graph: onnx.GraphProto) -> str:
    """The initializer that scales the output: a weight, or the scale of a dequantized one."""
    makers = {value: node for node in graph.node for value in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    node = makers[graph.output[0].name]
    while node.op_type in _PASSING:
        node = makers[node.input[0]]
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight in makers and makers[weight].op_type == "DequantizeLinear":
        weight = makers[weight].input[1]
    if weight not in constants:
        raise EngineError(
            f"graph {graph.name!r} ends in a {node.op_type} without a constant weight, so the "
            "negative control cannot be built; this is a defect of the exporter, report it"
        )
    return weight
