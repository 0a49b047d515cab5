"""INT8 for graphs whose products have many rows, in the form that CPU libraries are fastest at.

`vendor.onnxruntime_u8s8` is made for graphs of one frame, in which convolutions dominate. A
planner's graph is all products of `[M, I] x [I, O]`, and there the form decides. One iteration on
one thread in ms, float32 / by that quantizer / in this form: pusht-nano with N = 256, OpenVINO
43 / 32 / 25, ONNX Runtime 48 / 40 / 39; LeWM's geometry with N = 300, OpenVINO 272 / 98 / 84, ONNX
Runtime 291 / - / 139.

- the bias is an int32 behind a DequantizeLinear whose scale is the product of both scales, which is
  what integer kernels add;
- every zero point is written, although it is 0: without it ONNX Runtime computes in float, slower
  than a float graph, without a warning;
- where few inputs are summed, an activation is shifted to begin at zero, so that its zero point is
  0 and nothing has to be compensated; the shift's product with the weight is in the bias. It is
  the same grid, moved by less than half a step.

Activations are u8 with one scale, weights s8 with one scale per output.

Shapes: M rows, I inputs of a layer, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from jetsight_compile.export.onnx_graph import drop_unread
from jetsight_compile.quantize.ranges import Sample, observe

F64 = npt.NDArray[np.float64]

# Beyond so many inputs the shift costs more than the compensation.
_FEW_INPUTS = 256
_LEVELS = 255.0
# Seven bits, as in `vendor.onnxruntime_u8s8`: x86 without VNNI saturates with eight.
_LARGEST = 63.0
_SMALLEST = 1e-6


@dataclass(frozen=True)
class RowsRecipe:
    """The layers to quantize, and their ranges.

    Attributes:
        layers: names of the layers, in the order they run.
        ranges: least and largest value of each layer's first input, both sides of zero.
    """

    layers: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    kind = "int8"


def found(graph: onnx.ModelProto, layers: Sequence[str], samples: Sequence[Sample]) -> RowsRecipe:
    """Build the recipe for some layers: their ranges reach over all values of the samples.

    Clipping a few values for a finer grid makes ranks worse: the candidates at the ends of a range
    are those that differ most.
    """
    reads = {node.name: node.input[0] for node in graph.graph.node if node.name in set(layers)}
    # From 0 on, because the zero point has to be on the grid.
    seen = dict.fromkeys(reads.values(), (0.0, 0.0))
    for values in observe(graph, list(seen), samples):
        for name, value in values.items():
            low, high = seen[name]
            seen[name] = min(low, float(value.min())), max(high, float(value.max()))
    return RowsRecipe(tuple(layers), {name: seen[value] for name, value in reads.items()})


def written(graph: onnx.ModelProto, recipe: RowsRecipe) -> onnx.ModelProto:
    """Copy a float32 graph with the layers of the recipe as integer products."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    wanted = set(recipe.layers)
    writer = _GemmWriter(copy.graph, recipe)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        copy.graph.node.append(writer.quantized(node) if node.name in wanted else node)
    drop_unread(copy.graph)
    return copy


@dataclass(frozen=True)
class _Input:
    """A quantized activation: its dequantized value, its step, and what was added to it."""

    value: str
    step: float
    shift: float


@dataclass(frozen=True)
class _Weight:
    """A quantized weight: its dequantized value, its numbers `[I, O]`, and their steps `[O]`."""

    value: str
    stored: F64
    steps: F64


class _GemmWriter:
    """Appends Q/DQ nodes to a graph; what several layers read is quantized once."""

    def __init__(self, graph: onnx.GraphProto, recipe: RowsRecipe) -> None:
        self._graph, self._recipe = graph, recipe
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs: dict[tuple[str, bool], _Input] = {}
        self._weights: dict[str, _Weight] = {}

    def quantized(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Replace a Gemm or MatMul by a Gemm."""
        weight = self._weight(node.input[1])
        given = self._input(node.input[0], self._recipe.ranges[node.name], len(weight.stored))
        bias = np.zeros(len(weight.steps))
        if len(node.input) > 2:
            bias = _float64(self._tensors[node.input[2]]).reshape(-1)
        # With the weights as they were rounded, as those are what the shift is multiplied by.
        bias = bias - given.shift * (weight.stored * weight.steps).sum(0)
        inputs = [given.value, weight.value, self._bias(node.name, bias, given.step * weight.steps)]
        # Always a Gemm: even a MatMul gets a bias, from the shift.
        return helper.make_node("Gemm", inputs, list(node.output), name=node.name)

    def _input(self, value: str, ends: tuple[float, float], size: int) -> _Input:
        key = (value, size <= _FEW_INPUTS)
        if key not in self._inputs:
            low, high = min(ends[0], -_SMALLEST), max(ends[1], _SMALLEST)
            # Rounded before any use: the graph stores float32, and the bias has to fit that.
            step, name = np.float32((high - low) / _LEVELS), f"{value}.u8"
            shift = np.float32(-low) if key[1] else np.float32(0.0)
            if key[1]:
                value = self._add("Add", [value, self._constant(f"{name}.shift", shift)], name)
            # After a shift the range begins at 0, and so does the grid.
            zero = np.uint8(0 if key[1] else np.rint(-low / step))
            scale = [self._constant(f"{name}.scale", step), self._constant(f"{name}.zero", zero)]
            packed = self._add("QuantizeLinear", [value, *scale], f"{name}.q")
            back = self._add("DequantizeLinear", [packed, *scale], f"{name}.dq")
            self._inputs[key] = _Input(back, float(step), float(shift))
        return self._inputs[key]

    def _weight(self, name: str) -> _Weight:
        if name not in self._weights:
            values = _float64(self._tensors[name])
            steps = np.maximum(np.abs(values).max(0) / _LARGEST, _SMALLEST).astype(np.float32)
            stored = np.clip(np.rint(values / steps), -_LARGEST, _LARGEST).astype(np.int8)
            value = self._dequantized(name, stored, steps, axis=1)
            self._weights[name] = _Weight(
                value, stored.astype(np.float64), steps.astype(np.float64)
            )
        return self._weights[name]

    def _bias(self, layer: str, bias: F64, steps: F64) -> str:
        scale = steps.astype(np.float32)
        limit = float(np.iinfo(np.int32).max)
        # Clipped in float64, because a cast beyond int32 wraps around.
        stored = np.clip(np.rint(bias / scale), -limit, limit).astype(np.int32)
        return self._dequantized(f"{layer}.bias", stored, scale, axis=0)

    def _dequantized(
        self, name: str, stored: npt.NDArray[Any], scale: npt.NDArray[np.float32], axis: int
    ) -> str:
        zero = np.zeros(len(scale), stored.dtype)
        each = {"q": stored, "scale": scale, "zero": zero}
        inputs = [self._constant(f"{name}.{what}", values) for what, values in each.items()]
        return self._add("DequantizeLinear", inputs, f"{name}.dq", axis=axis)

    def _constant(self, name: str, values: npt.NDArray[Any] | np.generic) -> str:
        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(np.asarray(values), name)
            self._graph.initializer.append(self._tensors[name])
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)
        self._graph.node.append(node)
        return output


def _float64(tensor: onnx.TensorProto) -> F64:
    return np.asarray(numpy_helper.to_array(tensor).astype(np.float64))
