"""The range of an activation: how far out its quantization grid reaches, for TensorRT families.

`max` is exact for what was seen and the safe choice for FP8, whose grid is fine near zero anyway;
`percentile` and `mse` trade a few clipped outliers for a finer grid, the usual choice for
transformers. Which one is best for a graph is measured, not guessed.

Everything is taken from one histogram of |x| per tensor, so that memory does not grow with samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import UsageError
from jetsight_compile.calibration.run import loaded

NDArray = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
Sample = Mapping[str, NDArray]
Grid = Literal["int8", "fp8"]

PERCENTILE = 99.99
INT8_MAX, FP8_MAX = 127.0, 448.0
_BINS = 2048
_MSE_STEPS = 64
_SMALLEST = 1e-6  # range of a tensor that is zero throughout


@dataclass(frozen=True)
class Seen:
    """The values of an activation over the calibration samples.

    Attributes:
        amax: largest |x|.
        counts: `[bins]` histogram of |x| over 0 to amax.
    """

    amax: float
    counts: F64

    @property
    def centres(self) -> F64:
        """`[bins]` the |x| in the middle of each bin."""
        return np.asarray((np.arange(len(self.counts)) + 0.5) * (self.amax / len(self.counts)))


def collect(
    graph: onnx.ModelProto, tensors: Iterable[str], samples: Sequence[Sample]
) -> dict[str, Seen]:
    """Run the float graph over the samples, twice: for the limits, then for the histograms.

    Raises:
        EngineError: ONNX Runtime cannot run the graph.
    """
    names = list(dict.fromkeys(tensors))
    largest = dict.fromkeys(names, 0.0)
    for values in observe(graph, names, samples):
        for name, value in values.items():
            largest[name] = max(largest[name], float(np.abs(value).max()))
    counts = {name: np.zeros(_BINS) for name in names}
    for values in observe(graph, names, samples):
        for name, value in values.items():
            limit = max(largest[name], _SMALLEST)
            counts[name] += np.histogram(np.abs(value), _BINS, (0.0, limit))[0]
    return {name: Seen(max(largest[name], _SMALLEST), counts[name]) for name in names}


def observe(
    graph: onnx.ModelProto, tensors: Sequence[str], samples: Sequence[Sample]
) -> Iterable[dict[str, NDArray]]:
    """Values inside a graph, sample by sample; views are valid until the next one.

    A tensor that is an input of the graph is taken from the sample.

    Raises:
        EngineError: ONNX Runtime cannot run the graph.
    """
    inside = [name for name in tensors if name not in {value.name for value in graph.graph.input}]
    with loaded(OnnxRuntimeBackend(), exposing(graph, inside).SerializeToString()) as engine:
        for sample in samples:
            for name, value in sample.items():
                engine.inputs[name].write(np.asarray(value))
            engine.run()
            values = {name: engine.outputs[name].read() for name in inside}
            yield {name: values[name] if name in values else sample[name] for name in tensors}


def exposing(graph: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Copy a graph and add internal values to its outputs.

    `onnx.utils` does the same only through files.
    """
    inferred = onnx.shape_inference.infer_shapes(graph)
    kinds = {value.name: value for value in inferred.graph.value_info}
    present = {value.name for value in graph.graph.output}
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    # One name twice among the outputs is no valid graph.
    copy.graph.output.extend(kinds[name] for name in tensors if name not in present)
    return copy


def find(seen: Seen, method: str, grid: Grid) -> float:
    """Find the range by one of the `TENSORRT_METHODS`.

    Raises:
        UsageError: there is no such method.
    """
    if method not in _FINDERS:
        raise UsageError(f"no calibration method {method!r}; choose one of {', '.join(_FINDERS)}")
    return max(_FINDERS[method](seen, grid), _SMALLEST)


def rounded(values: F64, amax: float, grid: Grid) -> F64:
    """`values` on the grid that reaches to `amax`."""
    if grid == "int8":
        step = amax / INT8_MAX
        # QuantizeLinear saturates at -128, one step beyond the range.
        return np.clip(np.rint(values / step), -INT8_MAX - 1, INT8_MAX) * step
    from ml_dtypes import float8_e4m3fn

    step = amax / FP8_MAX
    inside = np.clip(values / step, -FP8_MAX, FP8_MAX)  # beyond, E4M3 has NaN and no infinity
    return inside.astype(float8_e4m3fn).astype(np.float64) * step


def _max(seen: Seen, grid: Grid) -> float:
    return seen.amax


def _percentile(seen: Seen, grid: Grid) -> float:
    below = np.cumsum(seen.counts)
    last = int(np.searchsorted(below, below[-1] * PERCENTILE / 100.0))
    # The far edge of the bin, so that nothing below the percentile is clipped.
    return seen.amax * min(last + 1, _BINS) / _BINS


def _mse(seen: Seen, grid: Grid) -> float:
    """Find the range of smallest squared error, by search over the whole range."""
    candidates = seen.amax * np.linspace(1.0 / _MSE_STEPS, 1.0, _MSE_STEPS)
    centres = seen.centres
    errors = [
        float((seen.counts * np.square(rounded(centres, c, grid) - centres)).sum())
        for c in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


_FINDERS: dict[str, Callable[[Seen, Grid], float]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
}
