"""Writing a quantization into a graph: Q/DQ nodes by a recipe, on any float format of the graph.

A recipe is found once, on the float32 graph, and written into the float16 or bfloat16 graph that
ships: their layers have the same names. Rules of explicit quantization in TensorRT: symmetric, zero
point 0, one scale per activation tensor, one per output channel of a weight, biases float, weights
stored quantized behind a lone DequantizeLinear.

Shapes: I input size, O output size of a layer, G groups of I.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from jetsight_compile.export.onnx_graph import drop_unread

F64 = npt.NDArray[np.float64]

GROUP = {"int4": 64, "nvfp4": 16}  # inputs that share one scale; TensorRT's INT4 takes 64 or 128
_TYPES = {
    "int8": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "int4": TensorProto.INT4,
    "nvfp4": TensorProto.FLOAT4E2M1,
}
LARGEST = {"int8": 127.0, "fp8": 448.0, "int4": 7.0, "nvfp4": 6.0}
_SMALLEST = 1e-6


@dataclass(frozen=True)
class QuantizationRecipe:
    """The layers to quantize, and their ranges.

    Attributes:
        kind: number format.
        activations: largest |x| of the first input, by layer; empty where weights alone are
            quantized.
        layers: names of the layers, in the order they run.
        factors: what SmoothQuant folds into each norm, by the norm's name.
    """

    kind: str
    layers: tuple[str, ...]
    activations: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, F64] = field(default_factory=dict)


def written(graph: onnx.ModelProto, recipe: QuantizationRecipe) -> onnx.ModelProto:
    """Copy a float graph with Q/DQ around the layers of the recipe.

    The recipe's factors must be folded in already; see `smoothquant.smoothed`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    wanted = set(recipe.layers)
    writer = _QdqWriter(copy.graph, recipe)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        if node.name in wanted:
            # Its Q/DQ nodes are appended before the node itself, in an order that can run.
            writer.quantize(node)
        copy.graph.node.append(node)
    drop_unread(copy.graph)
    return copy


class _QdqWriter:
    """Appends Q/DQ nodes to a graph; what several layers read is quantized once."""

    def __init__(self, graph: onnx.GraphProto, recipe: QuantizationRecipe) -> None:
        self._graph, self._recipe = graph, recipe
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._done: dict[tuple[str, float], str] = {}

    def quantize(self, node: onnx.NodeProto) -> None:
        """Put dequantized values in place of a layer's first two inputs."""
        weight = self._tensors[node.input[1]]
        if self._recipe.activations:
            amax = self._recipe.activations[node.name]
            node.input[0] = self._activation(node.input[0], amax, weight.data_type)
        node.input[1] = self._weight(weight, node.op_type == "Conv")

    def _activation(self, value: str, amax: float, float_type: int) -> str:
        key = (value, amax)
        if key not in self._done:
            # Numbered, because one value may be quantized twice, with two ranges.
            kind, prefix = self._recipe.kind, f"{value}.{len(self._done)}"
            step = np.array(max(amax / LARGEST[kind], _SMALLEST))
            scale = self._constant(f"{prefix}.scale", _as(step, float_type, f"{prefix}.scale"))
            zero = self._constant(f"{prefix}.zero", _zero(kind, f"{prefix}.zero"))
            self._add("QuantizeLinear", [value, scale, zero], f"{prefix}.q")
            self._add("DequantizeLinear", [f"{prefix}.q", scale, zero], f"{prefix}.dq")
            self._done[key] = f"{prefix}.dq"
        return self._done[key]

    def _weight(self, weight: TensorProto, convolution: bool) -> str:
        key = (weight.name, 0.0)
        if key not in self._done:
            kind = self._recipe.kind
            if kind in GROUP:
                self._done[key] = self._grouped(weight)
            else:
                # A kernel has its outputs first, a matrix `[in, out]` last.
                self._done[key] = self._per_channel(weight, 0 if convolution else 1)
        return self._done[key]

    def _per_channel(self, weight: TensorProto, axis: int) -> str:
        name, kind = weight.name, self._recipe.kind
        values = _float64(weight)
        others = tuple(i for i in range(values.ndim) if i != axis)
        steps = np.maximum(np.abs(values).max(others) / LARGEST[kind], _SMALLEST)
        scale = _as(steps, weight.data_type, f"{name}.scale")
        # The scale is rounded to the graph's format first, and the weight to that scale.
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        stored = _pack(values / _float64(scale).reshape(shape), kind, f"{name}.q")
        inputs = [self._constant(stored.name, stored), self._constant(scale.name, scale)]
        return self._add("DequantizeLinear", inputs, f"{name}.dq", axis=axis)

    def _grouped(self, weight: TensorProto) -> str:
        """`[I, O]` with a scale `[G, O]`; NVFP4 keeps those scales in FP8, with one over all."""
        name, kind = weight.name, self._recipe.kind
        values, size = _float64(weight), GROUP[kind]
        groups = values.reshape(-1, size, values.shape[1])
        steps = np.maximum(np.abs(groups).max(1) / LARGEST[kind], _SMALLEST)
        if kind == "nvfp4":
            scale_name, steps = self._scale_in_fp8(name, steps, weight.data_type)
        else:
            scale = _as(steps, weight.data_type, f"{name}.scale")
            scale_name, steps = self._constant(scale.name, scale), _float64(scale)
        stored = _pack((groups / steps[:, None]).reshape(values.shape), kind, f"{name}.q")
        inputs = [self._constant(stored.name, stored), scale_name]
        return self._add("DequantizeLinear", inputs, f"{name}.dq", axis=0, block_size=size)

    def _scale_in_fp8(self, name: str, steps: F64, float_type: int) -> tuple[str, F64]:
        # The largest scale becomes the largest FP8 number, so that small ones lose least.
        over = np.array(max(steps.max() / LARGEST["fp8"], _SMALLEST))
        overall = _as(over, float_type, f"{name}.scale.over")
        whole = float(_float64(overall))
        stored = _pack(steps / whole, "fp8", f"{name}.scale.q")
        # Where FP8 rounded a scale to zero, its group is zero too: nothing to divide by.
        back = np.maximum(_float64(stored) * whole, _SMALLEST)
        inputs = [self._constant(stored.name, stored), self._constant(overall.name, overall)]
        return self._add("DequantizeLinear", inputs, f"{name}.scale"), back

    def _constant(self, name: str, tensor: TensorProto) -> str:
        if name not in self._tensors:
            self._tensors[name] = tensor
            self._graph.initializer.append(tensor)
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)
        self._graph.node.append(node)
        return output


def _as(values: npt.NDArray[Any], float_type: int, name: str) -> TensorProto:
    dtype: Any = helper.tensor_dtype_to_np_dtype(float_type)
    return numpy_helper.from_array(np.asarray(values).astype(dtype), name)


def _zero(kind: str, name: str) -> TensorProto:
    return _pack(np.zeros(()), kind, name)


def _pack(values: npt.NDArray[Any], kind: str, name: str) -> TensorProto:
    """Numbers in units of their scale, rounded and stored; beyond the grid they are clipped."""
    limit = LARGEST[kind]
    # Before the cast: E4M3 has no infinity, and beyond 448 a cast gives NaN.
    inside = np.clip(values, -limit, limit)
    if kind in ("int8", "int4"):
        # A cast to an integer truncates; one to a small float rounds by itself.
        inside = np.rint(inside)
    dtype: Any = helper.tensor_dtype_to_np_dtype(_TYPES[kind])
    return numpy_helper.from_array(inside.astype(dtype), name)


def _float64(tensor: TensorProto) -> F64:
    return np.asarray(numpy_helper.to_array(tensor).astype(np.float64))
