"""Float graphs to quantized ones: one block per scheme, each chosen and checked by measurement.

| scheme | weights | activations | for |
|---|---|---|---|
| `cpu_int8` | s8, per channel | u8, per tensor | ONNX Runtime and OpenVINO |
| `cpu_rows` | s8, per channel | u8, per tensor | the same, products of many rows: planners |
| `tensorrt` with int8 | s8, per channel | s8, per tensor | TensorRT, all Jetsons |
| `tensorrt` with fp8 | E4M3, per channel | E4M3, per tensor | TensorRT, Ada, Hopper, Thor |
| `weight_only` with int4 | s4, per 64 inputs | float | TensorRT, JetPack 7.2 and PCs |
| `weight_only` with nvfp4 | E2M1, per 16 inputs, FP8 scales | float | TensorRT, Thor |

In all of them norms, softmax, GELU, attention products, residuals and the action embedding stay
float, and sums leave the kernels in float. Every fourth sample judges, the others calibrate.

Shapes: every sample is one set of graph inputs, as the engine takes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import UsageError
from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.calibration.run import run_all
from jetsight_compile.config.precision import CPU_METHODS, TENSORRT_METHODS
from jetsight_compile.export.onnx_graph import (
    block_of,
    blocks_of,
    check_quantized,
    quantizable,
    share,
)
from jetsight_compile.quantize import gemm_int8, qdq, ranges, smoothquant, vendor

F32 = npt.NDArray[np.float32]
Sample = Mapping[str, npt.NDArray[Any]]
Recipe = qdq.QuantizationRecipe | gemm_int8.RowsRecipe

# First and last layers are often kept float; on pusht-nano (32.2 dB, limit 20) that would bring 1.1
# and 2.6 dB, so nothing is by default. `keep_float` does it where a gate asks for it.
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
        kept: blocks that went back to float because a gate asked for it.
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


def cpu_int8(
    graph: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    methods: Sequence[str] = CPU_METHODS,
    keep_float: Sequence[str] = (),
) -> Quantized:
    """The scheme of `cpu-int8`: the method of `methods` with the smallest output error.

    ONNX Runtime's static quantizer, which both CPU backends turn into integer kernels.

    Args:
        graph: float graph; not modified.
        samples: inputs; every fourth one chooses the method, the others calibrate.
        methods: candidates; those that are not in `CPU_METHODS` are left out.
        keep_float: patterns of layer names that stay float, like `trunk.layers.0/*`.

    Raises:
        UsageError: a pattern matches no layer, nothing is left to quantize, or no method either.
        EngineError: the quantizer did not quantize what it was told to.
        MissingDependency: ONNX Runtime is not installed.
    """
    layers = quantizable(graph, keep_float)
    known = _known("the CPU", methods, CPU_METHODS)
    calibrating, judging = parted(samples)
    expected = outputs(graph, judging)
    made = {method: vendor.onnxruntime_u8s8(graph, calibrating, layers, method) for method in known}
    errors = {m: relative_error(outputs(model, judging), expected) for m, model in made.items()}
    best = min(errors, key=errors.__getitem__)
    tensors, part = check_quantized(made[best], layers), share(graph, layers)
    return Quantized(made[best], best, tuple(layers), tensors, errors[best], part, errors)


def cpu_rows(
    graph: onnx.ModelProto, samples: Sequence[Sample], *, keep_float: Sequence[str] = ()
) -> Quantized:
    """The scheme of `cpu-int8` for planners, whose products have many rows; see `gemm_int8`.

    Args:
        graph: float32 graph; not modified.
        samples: inputs; every fourth one measures the error, the others calibrate.
        keep_float: patterns of layer names that stay float.

    Raises:
        UsageError: a pattern matches no layer, or nothing is left to quantize.
        EngineError: ONNX Runtime cannot run the graph.
    """
    calibrating, judging = parted(samples)
    recipe = gemm_int8.found(graph, quantizable(graph, keep_float), calibrating)
    error = error_of(graph, recipe, judging, outputs(graph, judging))
    return applied(graph, recipe, "max", {"max": error})


def tensorrt(
    graph: onnx.ModelProto,
    kind: str,
    samples: Sequence[Sample],
    *,
    methods: Sequence[str] = TENSORRT_METHODS,
    keep_float: Sequence[str] = (),
    smoothing: bool = True,
) -> Quantized:
    """INT8 or FP8 weights and activations for TensorRT, the variant with the smallest error.

    ModelOpt places the Q/DQ pairs. Ranges are then found by each of `methods`, with SmoothQuant
    folded into the norms and without, and the best on the judging samples stays.

    Args:
        graph: float32 graph; not modified.
        kind: `"int8"` or `"fp8"`.
        samples: inputs; every fourth one chooses the variant, the others calibrate.
        methods: candidates; those that are not in `TENSORRT_METHODS` are left out.
        keep_float: patterns of layer names that stay float.
        smoothing: whether SmoothQuant may be used where norms allow it.

    Raises:
        UsageError: a pattern matches no layer, or nothing is left to quantize.
        EngineError: ModelOpt quantized none of the layers it was given.
        MissingDependency: ModelOpt is not installed.
    """
    known = _known("TensorRT", methods, TENSORRT_METHODS)
    calibrating, judging = parted(samples)
    placed = vendor.modelopt_placement(graph, kind, quantizable(graph, keep_float), calibrating[:1])
    factors = smoothquant.factors(graph, calibrating) if smoothing else {}
    variants = {"": qdq.QuantizationRecipe(kind, placed)}
    if factors:
        variants["+smooth"] = qdq.QuantizationRecipe(kind, placed, factors=factors)
    recipes = {
        f"{method}{name}": filled
        for name, recipe in variants.items()
        for method, filled in _by_method(graph, recipe, calibrating, known).items()
    }
    expected = outputs(graph, judging)
    errors = {name: error_of(graph, r, judging, expected) for name, r in recipes.items()}
    best = min(errors, key=errors.__getitem__)
    return applied(graph, recipes[best], best, errors)


def weight_only(
    graph: onnx.ModelProto,
    kind: str,
    samples: Sequence[Sample],
    *,
    keep_float: Sequence[str] = (),
) -> Quantized:
    """INT4 or NVFP4 weights behind a DequantizeLinear per group; activations stay float.

    At batch 1 a predictor reads its weights once per step and little else, so smaller weights are
    what makes it faster; there is nothing to calibrate.

    Raises:
        UsageError: a pattern matches no layer, or no weight can be cut into groups.
    """
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes = {node.name: node for node in graph.graph.node}
    layers = [
        name
        for name in quantizable(graph, keep_float)
        if nodes[name].op_type != "Conv"
        and weights[nodes[name].input[1]].dims[0] % qdq.GROUP[kind] == 0
    ]
    if not layers:
        raise UsageError(
            f"no layer of graph {graph.graph.name!r} has inputs in groups of {qdq.GROUP[kind]} for "
            f"{kind} weights; choose int8 or fp16, for an encoder alone like "
            f"--precision encode=fp16,forecast={kind}"
        )
    recipe = qdq.QuantizationRecipe(kind, tuple(layers))
    _, judging = parted(samples)
    error = error_of(graph, recipe, judging, outputs(graph, judging))
    return applied(graph, recipe, "rounding", {"rounding": error})


def applied(
    graph: onnx.ModelProto, recipe: Recipe, method: str, errors: Mapping[str, float]
) -> Quantized:
    """A recipe written into a float graph of any format, and proved to be there."""
    model = written(graph, recipe)
    tensors = check_quantized(model, recipe.layers, activations=recipe.kind not in qdq.GROUP)
    part = share(graph, recipe.layers)
    return Quantized(model, method, recipe.layers, tensors, errors[method], part, errors, recipe)


def rebase(made: Quantized, graph: onnx.ModelProto) -> Quantized:
    """The same quantization on another float format of the same graph."""
    if made.recipe is None:
        raise UsageError("the CPU's quantization has no recipe; quantize the other graph itself")
    return applied(graph, made.recipe, made.method, made.tried)


def restore_float(made: Quantized, graph: onnx.ModelProto, blocks: Collection[str]) -> Quantized:
    """The same quantization on `graph`, some blocks of it float again; its error is the old one."""
    if made.recipe is None:
        raise UsageError("the CPU's quantization has no recipe; quantize again with keep_float")
    left = tuple(name for name in made.layers if block_of(name) not in blocks)
    again = applied(graph, replace(made.recipe, layers=left), made.method, made.tried)
    return replace(again, kept=tuple(blocks))


def most_harmful(
    graph: onnx.ModelProto, recipe: Recipe, judging: Sequence[Sample], expected: F32
) -> list[str]:
    """Blocks by how much error goes when this one alone is float again, most first."""
    errors = {}
    for block, layers in blocks_of(recipe.layers).items():
        left = tuple(name for name in recipe.layers if name not in set(layers))
        errors[block] = error_of(graph, replace(recipe, layers=left), judging, expected)
    return sorted(errors, key=errors.__getitem__)


def written(graph: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """A recipe written into a float graph."""
    if isinstance(recipe, gemm_int8.RowsRecipe):
        return gemm_int8.written(graph, recipe)
    return qdq.written(smoothquant.smoothed(graph, recipe.factors), recipe)


def error_of(
    graph: onnx.ModelProto, recipe: Recipe, judging: Sequence[Sample], expected: F32
) -> float:
    """Relative output error of a recipe on a float32 graph."""
    return relative_error(outputs(written(graph, recipe), judging), expected)


def parted(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Samples that calibrate, and those that judge."""
    last = _JUDGE - 1
    calibrating = [sample for i, sample in enumerate(samples) if i % _JUDGE != last]
    return calibrating, list(samples[last::_JUDGE])


def outputs(model: onnx.ModelProto, samples: Sequence[Sample]) -> F32:
    """What a graph computes as it is written, stacked over the samples."""
    backend = OnnxRuntimeBackend(optimise=False)
    return run_all(backend, runnable(model).SerializeToString(), samples)


def relative_error(found: F32, expected: F32) -> float:
    """Squared error relative to the variance of what was expected; infinite if it is no number."""
    spread = np.square(expected - expected.mean(0, keepdims=True)).mean()
    error = float(np.square(found - expected).mean() / max(spread, 1e-30))
    return error if np.isfinite(error) else float("inf")


def _by_method(
    graph: onnx.ModelProto,
    recipe: qdq.QuantizationRecipe,
    samples: Sequence[Sample],
    methods: Sequence[str],
) -> dict[str, qdq.QuantizationRecipe]:
    """The recipe with the ranges each method finds."""
    model = smoothquant.smoothed(graph, recipe.factors)
    reads = {n.name: n.input[0] for n in model.graph.node if n.name in set(recipe.layers)}
    seen = ranges.collect(model, reads.values(), samples)
    grid: ranges.Grid = "fp8" if recipe.kind == "fp8" else "int8"
    return {
        method: replace(
            recipe,
            activations={n: ranges.find(seen[value], method, grid) for n, value in reads.items()},
        )
        for method in methods
    }


def _known(backend: str, methods: Sequence[str], known: Sequence[str]) -> list[str]:
    """The methods that a backend's quantizer has."""
    left = [method for method in methods if method in known]
    if not left:
        raise UsageError(
            f"{backend}'s quantizer has no calibration by {' or '.join(methods)}; "
            f"choose {', '.join(known)}"
        )
    return left
