"""SmoothQuant (arXiv 2211.10438): move outlier channels of an activation into the weights.

Behind a LayerNorm some channels are far larger than the rest and set the step of all. The norm's
gain is divided by a factor per channel and the rows of the weights that read it are multiplied by
the same: the float result is unchanged up to rounding, nothing is added at run time, and both sides
become easier to quantize.

Shapes: C channels of a norm, O outputs of a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from jetsight_compile.quantize.ranges import Sample, observe

F64 = npt.NDArray[np.float64]

STRENGTH = 0.5  # part of the difference that moves; the paper's default
_PASSING = ("Slice",)  # operators between a norm and its layer that leave channels as they are
_SMALLEST = 1e-5
_LARGEST = 1e2  # a factor beyond it would leave the range of float16 for no gain


@dataclass(frozen=True)
class SmoothingSite:
    """One LayerNorm whose output only layers read.

    Attributes:
        norm: name of its node.
        output: its output value.
        affine: initializers `[C]` of its gain and, if it has one, its bias.
        weights: initializers `[C, O]` of those layers.
    """

    norm: str
    output: str
    affine: tuple[str, ...]
    weights: tuple[str, ...]


def places(graph: onnx.ModelProto) -> list[SmoothingSite]:
    """Every norm of a graph that can be smoothed exactly.

    A weight that another operator or a norm of another gain reads too is left as it is.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    constants = {tensor.name for tensor in graph.graph.initializer}
    returned = {value.name for value in graph.graph.output}
    norms = [node for node in graph.graph.node if node.op_type == "LayerNormalization"]
    found = []
    for node in norms:
        # A graph output would be divided with nothing behind it to multiply again.
        if constants.issuperset(node.input[1:]) and node.output[0] not in returned:
            weights = _weights(node.output[0], readers, constants)
            if weights:
                affine = tuple(node.input[1:])
                found.append(SmoothingSite(node.name, node.output[0], affine, tuple(weights)))
    alike = Counter((place.affine, place.weights) for place in found)
    return [
        place
        for place in found
        if all(len(readers[w]) == alike[place.affine, place.weights] for w in place.weights)
    ]


def factors(
    graph: onnx.ModelProto, samples: Sequence[Sample], strength: float = STRENGTH
) -> dict[str, F64]:
    """Factor per channel `[C]` of every norm that can be smoothed, by the norm's name.

    Norms that share weights, as those of unrolled steps do, share their factors.
    """
    found = places(graph)
    largest: dict[str, F64] = {}
    for values in observe(graph, [place.output for place in found], samples):
        for name, value in values.items():
            # Per channel over tokens and samples; the largest counts, as it sets the step.
            each = np.abs(value.astype(np.float64)).reshape(-1, value.shape[-1]).max(0)
            largest[name] = np.maximum(largest.get(name, 0.0), each)
    weights = {t.name: t for t in graph.graph.initializer}
    groups: dict[tuple[str, ...], list[SmoothingSite]] = {}
    for place in found:
        groups.setdefault(place.weights, []).append(place)
    result: dict[str, F64] = {}
    for names, group in groups.items():
        # One factor for the group, since there is one weight to multiply by it.
        x = np.maximum(np.max([largest[place.output] for place in group], axis=0), _SMALLEST)
        rows = [np.abs(numpy_helper.to_array(weights[n]).astype(np.float64)).max(1) for n in names]
        w = np.maximum(np.max(rows, axis=0), _SMALLEST)
        # At strength 0.5 both sides end with the same range, the root of x * w.
        factor = np.clip(x**strength / w ** (1.0 - strength), 1.0 / _LARGEST, _LARGEST)
        result.update((place.norm, factor) for place in group)
    return result


def smoothed(graph: onnx.ModelProto, factor: Mapping[str, F64]) -> onnx.ModelProto:
    """Copy a graph, in any float format, with the factors folded in."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes = {node.name: node for node in copy.graph.node}
    for place in places(graph):
        if place.norm not in factor:
            continue
        node = nodes[place.norm]
        # Norms of unrolled steps share their weights, so these are folded with the first one.
        names = [f"{place.weights[0]}.{part}.smooth" for part in ("gain", "bias")]
        if names[0] not in tensors:
            _fold(copy.graph, tensors, place, names, factor[place.norm])
        node.input[1:] = names[: len(place.affine)]
    return copy


def _fold(
    graph: onnx.GraphProto,
    tensors: dict[str, onnx.TensorProto],
    place: SmoothingSite,
    names: Sequence[str],
    factor: F64,
) -> None:
    """Divide gain and bias into new tensors; multiply the weights by the rounded divisor."""
    divided = _like(1.0 / factor, "", tensors[place.affine[0]])
    # Of the factor as rounded to the graph's format, which is what the gain is divided by.
    by = 1.0 / _float64(divided)
    for old, name in zip(place.affine, names, strict=False):
        tensors[name] = graph.initializer.add()
        tensors[name].CopyFrom(_like(_float64(tensors[old]) / by, name, tensors[old]))
    for weight in place.weights:
        rows = _float64(tensors[weight]) * by[:, None]
        tensors[weight].CopyFrom(_like(rows, weight, tensors[weight]))


def _weights(
    value: str, readers: Mapping[str, list[onnx.NodeProto]], constants: set[str]
) -> list[str] | None:
    """Weights of all layers that read `value`; None if anything else does."""
    found: list[str] = []
    for node in readers.get(value, []):
        if node.op_type in _PASSING and node.input[0] == value:
            more = _weights(node.output[0], readers, constants)
        # As the first input only: a weight or bias has its channels elsewhere.
        elif node.op_type == "Gemm" and node.input[0] == value and node.input[1] in constants:
            more = [node.input[1]]
        else:
            return None
        if more is None:
            return None
        found += more
    return found


def _float64(tensor: onnx.TensorProto) -> F64:
    return np.asarray(numpy_helper.to_array(tensor), dtype=np.float64)


def _like(values: F64, name: str, tensor: onnx.TensorProto) -> onnx.TensorProto:
    dtype: Any = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return numpy_helper.from_array(values.astype(dtype), name)
