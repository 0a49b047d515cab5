"""Float graphs to quantized ones: one block per scheme, chosen and checked by measurement.

`cpu_int8` is ONNX Runtime's static quantizer: Q/DQ with u8 activations and s8 weights, per output
channel, around every Conv, Gemm and MatMul with a constant weight; norms, softmax, GELU, attention
products, residuals and the action embedding stay float. Both CPU backends turn that into integer
kernels.

Shapes: every sample is one set of graph inputs, as the engine takes them.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight_compile.engines import run_all
from jetsight_compile.graphs import strip

F32 = npt.NDArray[np.float32]
Sample = Mapping[str, npt.NDArray[Any]]

# How the range of an activation is found. Entropy suits CNN-like histograms, percentiles suit
# transformers with outlier channels, minmax is exact for what was seen; measured, not guessed.
METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
# First and last layers are often kept float; on pusht-nano (32.2 dB, limit 20) that would bring 1.1
# and 2.6 dB, so nothing is by default. `keep_float` does it where a gate asks for it.
# Never quantized: resizing is exact arithmetic on pixels, and the action embedding is a few
# numbers through layers of ten columns, where rounding costs much and saves nothing.
ALWAYS_FLOAT = ("pixels/*", "action_embedding.*")
_WEIGHTED = ("Conv", "Gemm", "MatMul")
# Samples whose activations are in memory at a time. The quantizer's own option for this,
# CalibMaxIntermediateOutputs, forgets what it has seen (onnxruntime 1.32); strides do not.
_STRIDE = 16
_JUDGE = 4


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and how it came to be.

    Attributes:
        model: the graph.
        method: how its ranges were found.
        layers: weighted layers that compute in integers.
        tensors: tensors that are quantized, activations and weights.
        error: squared error of the outputs against the float graph, relative to their variance.
    """

    model: onnx.ModelProto
    method: str
    layers: int
    tensors: int
    error: float


def cpu_int8(
    graph: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    methods: Sequence[str] = METHODS,
    keep_float: Sequence[str] = (),
) -> Quantized:
    """The scheme of `cpu-int8`: the method of `methods` with the smallest output error.

    Args:
        graph: float graph; not modified.
        samples: inputs; every fourth one chooses the method, the others calibrate.
        methods: candidates out of `METHODS`.
        keep_float: patterns of layer names that stay float, like `trunk.layers.0/*`.

    Raises:
        UsageError: a pattern matches no layer, or nothing is left to quantize.
        EngineError: the quantizer did not quantize what it was told to.
        MissingDependency: ONNX Runtime is not installed.
    """
    layers = quantizable(graph, keep_float)
    judging = samples[_JUDGE - 1 :: _JUDGE]
    calibrating = [sample for i, sample in enumerate(samples) if i % _JUDGE != _JUDGE - 1]
    calibrating = _whole_strides(calibrating)
    expected = _outputs(graph, judging)
    candidates = []
    for method in methods:
        model = _static_u8s8(graph, calibrating, layers, method)
        tensors = check_quantized(model, layers)
        error = relative_error(_outputs(model, judging), expected)
        candidates.append(Quantized(model, method, len(layers), tensors, error))
    return min(candidates, key=lambda each: each.error)


def quantizable(graph: onnx.ModelProto, keep_float: Sequence[str] = ()) -> list[str]:
    """Names of the Conv, Gemm and MatMul nodes with a constant weight that may be quantized.

    Raises:
        UsageError: a pattern matches no such node, or none is left.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    names = [
        node.name
        for node in graph.graph.node
        if node.op_type in _WEIGHTED and constants.intersection(node.input[:2])
    ]
    for pattern in keep_float:
        if not any(_matches(name, [pattern]) for name in names):
            raise UsageError(f"--keep-float {pattern!r} matches no layer; layers are {names}")
    left = [name for name in names if not _matches(name, [*ALWAYS_FLOAT, *keep_float])]
    if not left:
        raise UsageError("no layer is left to quantize; drop a --keep-float or choose fp32")
    return left


def matches_any(graph: onnx.ModelProto, pattern: str) -> bool:
    """Whether a pattern of layer names fits any weighted node of a graph."""
    return any(_matches(n.name, [pattern]) for n in graph.graph.node if n.op_type in _WEIGHTED)


def check_quantized(model: onnx.ModelProto, layers: Sequence[str]) -> int:
    """Count quantized tensors, having proved that each of `layers` reads two dequantized ones.

    Quantizers have been seen to insert nothing and say nothing; so it is counted.

    Raises:
        EngineError: a layer is missing, or an input of it is still float.
    """
    nodes = {node.name: node for node in model.graph.node}
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for name in layers:
        found = [value in dequantized for value in nodes[name].input[:2]] if name in nodes else []
        if found != [True, True]:
            raise EngineError(
                f"the quantizer left layer {name!r} in float (inputs quantized: {found}); check "
                "the installed onnxruntime against constraints.txt"
            )
    return len({value for node in map(nodes.get, layers) if node for value in node.input[:2]})


def relative_error(found: F32, expected: F32) -> float:
    """Squared error relative to the variance of what was expected."""
    spread = np.square(expected - expected.mean(0, keepdims=True)).mean()
    return float(np.square(found - expected).mean() / max(spread, 1e-30))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a layer matches, with or without the prefix of its unrolled step."""
    plain = name.split("/", 1)[1] if name.startswith("step") else name
    return any(fnmatch.fnmatchcase(n, p) for n in (name, plain) for p in patterns)


def _static_u8s8(
    graph: onnx.ModelProto, samples: Sequence[Sample], layers: Sequence[str], method: str
) -> onnx.ModelProto:
    quantization = _onnxruntime_quantization()
    kinds = quantization.CalibrationMethod
    how = {"minmax": kinds.MinMax, "percentile": kinds.Percentile, "entropy": kinds.Entropy}
    with tempfile.TemporaryDirectory(prefix="jetsight-quantize-") as folder, _quiet():
        path = Path(folder, "quantized.onnx")
        quantization.quantize_static(
            copy.deepcopy(graph),  # it moves the weights of what it is given to a file
            path,
            _reader(quantization, samples),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_WEIGHTED),
            nodes_to_quantize=list(layers),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            # Seven bits of weight: without VNNI (AVX2, older servers) x86 adds two u8*s8 products
            # in 16 bits and saturates; a bundle travels. Measured on such a CPU, ViT-tiny: cosine
            # 0.997 with eight bits, 0.9998 with seven.
            reduce_range=True,
            calibrate_method=how[method],
            extra_options={
                # Sums leave the kernels in float; only inputs are rounded.
                "OpTypesToExcludeOutputQuantization": list(_WEIGHTED),
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": min(_STRIDE, len(samples)),  # of every method
            },
        )
        return strip(onnx.load(path), graph.graph.name)


def _whole_strides(samples: list[Sample]) -> list[Sample]:
    """As many samples as fill whole strides, which is what the quantizer takes."""
    return samples[: len(samples) // _STRIDE * _STRIDE] if len(samples) > _STRIDE else samples


def _reader(quantization: Any, samples: Sequence[Sample]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands the samples to ONNX Runtime, one stride after the other."""

        def __init__(self) -> None:
            self._left = iter(samples)

        def __len__(self) -> int:
            return len(samples)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(samples[start_index:end_index])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            sample = next(self._left, None)
            return None if sample is None else dict(sample)

    return Reader()


def _outputs(model: onnx.ModelProto, samples: Sequence[Sample]) -> F32:
    return run_all(OnnxRuntimeBackend(), model.SerializeToString(), samples)


def _onnxruntime_quantization() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError:
        raise MissingDependency("onnxruntime", "compile", "quantizing a graph") from None
    return quantization


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice and progress text off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
