"""A quantized graph: how it was made, the same on another float graph, and its error.

Every fourth calibration sample judges, the others calibrate.

Shapes: every sample is one set of graph inputs, as the engine takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import UsageError
from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.calibration.run import run_all
from jetsight_compile.export.onnx_graph import check_quantized, share
from jetsight_compile.quantize import gemm_int8, qdq, smoothquant

F32 = npt.NDArray[np.float32]
Sample = Mapping[str, npt.NDArray[Any]]
Recipe = qdq.QuantizationRecipe | gemm_int8.RowsRecipe
_JUDGE = 4


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and how it came to be.

    Attributes:
        model: the graph.
        method: how its ranges were found.
        layers: names of the layers that compute on quantized numbers.
        tensors: tensors that are quantized, activations and weights.
        error: squared error of the outputs against the float graph, relative to their variance.
        share: part of the graph's multiply-accumulates that is in those layers, 0 to 1.
        tried: error by variant, the chosen one included.
        recipe: what writes the same quantization into another graph of this structure; None for
            `cpu_int8`.
        kept: blocks that went back to float, the most harmful first.
    """

    model: onnx.ModelProto
    method: str
    layers: tuple[str, ...]
    tensors: int
    error: float
    share: float
    tried: Mapping[str, float]
    recipe: Recipe | None = None
    kept: tuple[str, ...] = ()


def applied(
    graph: onnx.ModelProto, recipe: Recipe, method: str, errors: Mapping[str, float]
) -> Quantized:
    """Write a recipe into a float graph of any format, and verify the result."""
    model = written(graph, recipe)
    return Quantized(
        model=model,
        method=method,
        layers=recipe.layers,
        # Counted from the graph that was written, and not from the recipe.
        tensors=check_quantized(model, recipe.layers, activations=recipe.kind not in qdq.GROUP),
        error=errors[method],
        share=share(graph, recipe.layers),
        tried=errors,
        recipe=recipe,
    )


def rebase(made: Quantized, graph: onnx.ModelProto) -> Quantized:
    """Apply the same quantization to another float format of the same graph."""
    if made.recipe is None:
        raise UsageError("the CPU's quantization has no recipe; quantize the other graph itself")
    return applied(graph, made.recipe, made.method, made.tried)


def written(graph: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """Write a recipe into a float graph."""
    if isinstance(recipe, gemm_int8.RowsRecipe):
        return gemm_int8.written(graph, recipe)
    return qdq.written(smoothquant.smoothed(graph, recipe.factors), recipe)


def error_of(
    graph: onnx.ModelProto, recipe: Recipe, judging: Sequence[Sample], expected: F32
) -> float:
    """Relative output error of a recipe on a float32 graph."""
    return relative_error(outputs(written(graph, recipe), judging), expected)


def parted(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Split samples into those that calibrate and those that judge."""
    last = _JUDGE - 1
    # Interleaved, so that both parts cover all episodes; ranges would flatter their own samples.
    calibrating = [sample for i, sample in enumerate(samples) if i % _JUDGE != last]
    return calibrating, list(samples[last::_JUDGE])


def outputs(model: onnx.ModelProto, samples: Sequence[Sample]) -> F32:
    """Run a graph as it is written, and stack its outputs over the samples."""
    # Optimised, onnxruntime 1.32 alters Q/DQ pairs around a ReLU: error 0.97, not 0.0007.
    backend = OnnxRuntimeBackend(optimise=False)
    return run_all(backend, runnable(model).SerializeToString(), samples)


def relative_error(found: F32, expected: F32) -> float:
    """Squared error relative to the variance of what was expected; infinite if it is no number."""
    spread = np.square(expected - expected.mean(0, keepdims=True)).mean()
    error = float(np.square(found - expected).mean() / max(spread, 1e-30))
    # NaN compares false with everything, so `min` over variants might keep it.
    return error if np.isfinite(error) else float("inf")
