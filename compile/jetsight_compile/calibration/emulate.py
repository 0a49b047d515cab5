"""Emulation of number formats that a CPU has no kernels for, with the same results.

ONNX Runtime's CPU kernels support float32 and the INT8 and FP8 Q/DQ pairs. Other formats are
written out, so that every family is judged by the numbers its device will compute:

- weights in 4 bits are dequantized here, once, to exactly the floats the device will use (ONNX
  Runtime would otherwise also round the activations to 8 bits), and so are those in FP8, which it
  would dequantize at every run;
- float16 and bfloat16 become float32 with every result rounded, which is what a tensor core does
  that adds in float32 and stores half as many bits. ONNX Runtime takes float16, but keeps float32
  between its kernels (1.32): rounding and overflow would go unseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jetsight_compile.export.onnx_graph import drop_unread

# Operators that only move numbers, which are rounded already.
_MOVING = ("Reshape", "Transpose", "Slice", "Concat", "Split", "Gather", "Squeeze", "Unsqueeze")
# Without INT8, whose weights the CPU's kernels read directly.
_NARROW = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1, TensorProto.FLOAT8E4M3FN)
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` if a CPU can run it, else a copy that computes the same numbers on a CPU."""
    if not _types(model).intersection((*_NARROW, *_HALVES)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if _types(copy).intersection(_NARROW):
        _dequantize_weights(copy.graph)
    for half in _types(copy).intersection(_HALVES):
        _round_to(half, copy)
    return copy


def _types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def _dequantize_weights(graph: onnx.GraphProto) -> None:
    """Replace each DequantizeLinear of constants by its value."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    # In graph order: a scale may itself be dequantized first, then the weights it scales.
    for node in nodes:
        if node.op_type != "DequantizeLinear" or not all(name in tensors for name in node.input):
            graph.node.append(node)
            continue
        tensors[node.output[0]] = graph.initializer.add()
        tensors[node.output[0]].CopyFrom(_dequantized(node, tensors))
    drop_unread(graph)


def _dequantized(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> TensorProto:
    """Multiply stored numbers by their scales, and round once to the scale's format."""
    stored, scale = (tensors[name] for name in node.input[:2])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    # Zero points are not read: in these formats they are 0.
    values = numpy_helper.to_array(stored).astype(np.float32)
    steps = numpy_helper.to_array(scale).astype(np.float32)
    axis, size = attributes.get("axis", 1), attributes.get("block_size", 0)
    if size:
        steps = np.repeat(steps, size, axis)
    elif steps.ndim:
        steps = steps.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    dtype: Any = helper.tensor_dtype_to_np_dtype(scale.data_type)
    return numpy_helper.from_array((values * steps).astype(dtype), node.output[0])


def _round_to(half: int, model: onnx.ModelProto) -> None:
    """Compute in float32 and round every result to the format `half`."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    rounded = {v.name for v in inferred if v.type.tensor_type.elem_type == half}
    for tensor in graph.initializer:
        if tensor.data_type == half:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = list(graph.node)
    # Value infos still claim the half format.
    del graph.node[:], graph.value_info[:]
    for node in nodes:
        graph.node.append(_in_float32(half, node))
        for index, value in enumerate(node.output):
            if value in rounded and node.op_type not in _MOVING:
                # The rounded value keeps the name, so that readers and taps get it.
                exact, narrow = f"{value}.exact", f"{value}.half"
                graph.node[-1].output[index] = exact
                casts = ((exact, narrow, half), (narrow, value, TensorProto.FLOAT))
                graph.node.extend(helper.make_node("Cast", [a], [b], to=to) for a, b, to in casts)


def _in_float32(half: int, node: onnx.NodeProto) -> onnx.NodeProto:
    """Redirect the casts of a node from `half` to float32."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == half:
            attribute.i = TensorProto.FLOAT
    return node
