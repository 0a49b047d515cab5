"""Float graphs to quantized ones: one function per scheme and its row in `SCHEMES`.

| scheme | weights | activations | for |
|---|---|---|---|
| `cpu_int8` | s8, per channel | u8, per tensor | ONNX Runtime and OpenVINO |
| `cpu_rows` | s8, per channel | u8, per tensor | the same, planners: products of many rows |
| `tensorrt` with int8 | s8, per channel | s8, per tensor | TensorRT, all Jetsons |
| `tensorrt` with fp8 | E4M3, per channel | E4M3, per tensor | TensorRT, Ada, Hopper, Thor |
| `weight_only` with int4 | s4, per 64 inputs | float | TensorRT, JetPack 7.2 and PCs |
| `weight_only` with nvfp4 | E2M1, per 16 inputs, FP8 scales | float | TensorRT, Thor |

In all of them norms, softmax, GELU, attention products, residuals and the action embedding stay
float, and sums leave the kernels in float. Where a scheme has variants, the one with the smallest
error on the judging samples is taken.

Shapes: every sample is one set of graph inputs, as the engine takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx

from jetsight.errors import UsageError
from jetsight_compile.config.precision import (
    CPU_METHODS,
    IMAGINE,
    METHODS,
    TENSORRT_METHODS,
    WEIGHT_ONLY,
)
from jetsight_compile.export.onnx_graph import check_quantized, quantizable, share
from jetsight_compile.quantize import gemm_int8, qdq, ranges, smoothquant, vendor
from jetsight_compile.quantize.quantized import (
    Quantized,
    Sample,
    applied,
    error_of,
    outputs,
    parted,
    relative_error,
)


@dataclass(frozen=True)
class QuantizeRequest:
    """A graph to quantize, with the options of all schemes.

    Attributes:
        graph: float32 graph; not modified.
        precision: number format, out of `precision.QUANTIZED`.
        samples: calibration inputs.
        methods: candidates for finding ranges; a scheme leaves out those that it does not have.
        keep_float: patterns of layer names that stay float, like `trunk.layers.0/*`.
    """

    graph: onnx.ModelProto
    precision: str
    samples: Sequence[Sample]
    methods: Sequence[str] = METHODS
    keep_float: Sequence[str] = ()


@dataclass(frozen=True)
class Scheme:
    """A row of `SCHEMES`: what a scheme is for, and how it is called.

    Attributes:
        backend: first part of the families' names, `"cpu"` or `"trt"`.
        precisions: number formats that it writes.
        quantize: the scheme.
        methods: ways to find ranges that it chooses from; empty where there is no choice.
        graphs: beginning of the graphs' names; empty for all.
    """

    backend: str
    precisions: Sequence[str]
    quantize: Callable[[QuantizeRequest], Quantized]
    methods: Sequence[str] = ()
    graphs: str = ""


# The first row that fits is taken. First and last layers are often kept float; on pusht-nano
# (32.2 dB, limit 20) that would bring 1.1 and 2.6 dB, so no scheme does it unless a gate fails.
SCHEMES = (
    Scheme(
        "cpu",
        ("int8",),
        # Before the CPU's general row, which would fit planners too.
        lambda r: cpu_rows(r.graph, r.samples, keep_float=r.keep_float),
        graphs=IMAGINE,
    ),
    Scheme(
        "cpu",
        ("int8",),
        lambda r: cpu_int8(r.graph, r.samples, methods=r.methods, keep_float=r.keep_float),
        CPU_METHODS,
    ),
    Scheme(
        "trt",
        ("int8", "fp8"),
        lambda r: tensorrt(
            r.graph, r.precision, r.samples, methods=r.methods, keep_float=r.keep_float
        ),
        TENSORRT_METHODS,
    ),
    Scheme(
        "trt",
        WEIGHT_ONLY,
        lambda r: weight_only(r.graph, r.precision, r.samples, keep_float=r.keep_float),
    ),
)


def quantize(request: QuantizeRequest, backend: str) -> Quantized:
    """Quantize a graph by the scheme that `SCHEMES` has for it.

    Args:
        request: the graph, the precision and the options.
        backend: `"cpu"` or `"trt"`.

    Raises:
        UsageError, EngineError, MissingDependency: as the scheme does.
    """
    scheme = _scheme(backend, request.graph.graph.name, request.precision)
    return scheme.quantize(request)


def check_methods(backend: str, graph: str, precision: str, methods: Sequence[str]) -> None:
    """Refuse, before any work, methods none of which the graph's scheme has.

    Raises:
        UsageError: the scheme finds ranges, and by none of these.
    """
    scheme = _scheme(backend, graph, precision)
    if scheme.methods:
        _known(backend, methods, scheme.methods)


def _scheme(backend: str, graph: str, precision: str) -> Scheme:
    return next(
        row
        for row in SCHEMES
        if row.backend == backend and graph.startswith(row.graphs) and precision in row.precisions
    )


def cpu_int8(
    graph: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    methods: Sequence[str] = CPU_METHODS,
    keep_float: Sequence[str] = (),
) -> Quantized:
    """Apply the scheme of `cpu-int8`: the method of `methods` with the smallest output error.

    ONNX Runtime's static quantizer, which both CPU backends turn into integer kernels.

    Args:
        graph: float graph; not modified.
        samples: inputs; every fourth one chooses the method, the others calibrate.
        methods: candidates; those that are not in `CPU_METHODS` are left out.
        keep_float: patterns of layer names that stay float, like `trunk.layers.0/*`.

    Raises:
        UsageError: a pattern matches no layer, nothing is left to quantize, or no method either.
        EngineError: the quantizer left a layer in float.
        MissingDependency: ONNX Runtime is not installed.
    """
    layers = quantizable(graph, keep_float)
    known = _known("cpu", methods, CPU_METHODS)
    calibrating, judging = parted(samples)
    expected = outputs(graph, judging)
    made = {method: vendor.onnxruntime_u8s8(graph, calibrating, layers, method) for method in known}
    errors = {m: relative_error(outputs(model, judging), expected) for m, model in made.items()}
    best = min(errors, key=errors.__getitem__)
    return Quantized(
        # No recipe: ONNX Runtime's quantizer writes a whole graph, not a form to repeat.
        model=made[best],
        method=best,
        layers=tuple(layers),
        tensors=check_quantized(made[best], layers),
        error=errors[best],
        share=share(graph, layers),
        tried=errors,
    )


def cpu_rows(
    graph: onnx.ModelProto, samples: Sequence[Sample], *, keep_float: Sequence[str] = ()
) -> Quantized:
    """Apply the scheme of `cpu-int8` for planners, whose products have many rows; see `gemm_int8`.

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
    # By max alone, because clipping makes ranks worse; see `gemm_int8.found`.
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
        UsageError: a pattern matches no layer, nothing is left to quantize, or no method either.
        EngineError: ModelOpt quantized none of the layers it was given.
        MissingDependency: ModelOpt is not installed.
    """
    known = _known("trt", methods, TENSORRT_METHODS)
    calibrating, judging = parted(samples)
    # One sample is enough: of ModelOpt's result only the places are read, not the ranges.
    placed = vendor.modelopt_placement(graph, kind, quantizable(graph, keep_float), calibrating[:1])
    factors = smoothquant.factors(graph, calibrating) if smoothing else {}
    variants = {"": qdq.QuantizationRecipe(kind, placed)}
    if factors:
        # A variant and no default: measured, it brought 9 % at most (docs/quantization.md).
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
        # A group is a run of matrix rows, so kernels and sizes that leave a rest have none.
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


def _by_method(
    graph: onnx.ModelProto,
    recipe: qdq.QuantizationRecipe,
    samples: Sequence[Sample],
    methods: Sequence[str],
) -> dict[str, qdq.QuantizationRecipe]:
    """Compute the recipe with the ranges of each method."""
    # Ranges belong to the activations as they will be quantized, after smoothing.
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
    """Select the methods that a backend's quantizer has."""
    left = [method for method in methods if method in known]
    if not left:
        raise UsageError(
            f"{'the CPU' if backend == 'cpu' else 'TensorRT'}'s quantizer has no calibration by "
            f"{' or '.join(methods)}; choose {', '.join(known)}"
        )
    return left
