"""Quantizers of other projects, one function each.

ONNX Runtime's makes the whole of `cpu-int8`; of NVIDIA's ModelOpt only the placement is used: the
layers that TensorRT gains from quantizing, by its own knowledge of kernels.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from jetsight.errors import EngineError, MissingDependency
from jetsight_compile.export.onnx_export import strip
from jetsight_compile.export.onnx_graph import WEIGHTED
from jetsight_compile.quantize.ranges import PERCENTILE

Sample = Mapping[str, npt.NDArray[Any]]

# Samples whose activations are in memory at a time. The quantizer's own option for this,
# CalibMaxIntermediateOutputs, forgets what it has seen (onnxruntime 1.32); strides do not.
_STRIDE = 16


def onnxruntime_u8s8(
    graph: onnx.ModelProto, samples: Sequence[Sample], layers: Sequence[str], method: str
) -> onnx.ModelProto:
    """Q/DQ with u8 activations and s8 weights per output channel around every layer of `layers`.

    Raises:
        MissingDependency: ONNX Runtime is not installed.
    """
    quantization = _onnxruntime_quantization()
    kinds = quantization.CalibrationMethod
    how = {"max": kinds.MinMax, "percentile": kinds.Percentile, "entropy": kinds.Entropy}
    samples = _whole_strides(list(samples))
    with tempfile.TemporaryDirectory(prefix="jetsight-quantize-") as folder, _quiet():
        path = Path(folder, "quantized.onnx")
        quantization.quantize_static(
            copy.deepcopy(graph),  # the quantizer moves the weights of its argument to a file
            path,
            _reader(quantization, samples),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(WEIGHTED),
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
                "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": min(_STRIDE, len(samples)),  # of every method
            },
        )
        return strip(onnx.load(path), graph.graph.name)


def modelopt_placement(
    graph: onnx.ModelProto, kind: str, layers: Sequence[str], samples: Sequence[Sample]
) -> tuple[str, ...]:
    """Select the layers that ModelOpt puts Q/DQ pairs around, in the order they run.

    It leaves out what TensorRT has no kernel for or loses with, such as FP8 convolutions of few
    channels.

    Raises:
        EngineError: it quantized nothing, which it does without an error of its own.
        MissingDependency: ModelOpt is not installed.
    """
    quantization = _onnxruntime_quantization()
    with tempfile.TemporaryDirectory(prefix="jetsight-quantize-") as folder, _quiet(), _unpatched():
        quantize = _modelopt()
        source, target = Path(folder, "float.onnx"), Path(folder, "placed.onnx")
        onnx.save(graph, source)
        quantize(
            str(source),
            quantize_mode=kind,
            calibration_data_reader=_reader(quantization, samples),
            # Without effect: only the places are read, and ranges come from `quantize.ranges`.
            calibration_method="max",
            calibration_eps=["cpu"],
            op_types_to_quantize=list(WEIGHTED),
            nodes_to_quantize=list(layers),
            # Its rule against products with one row is about latency at batch 1; here that is
            # for `jetsight build` to measure.
            enable_gemv_detection_for_trt=False,
            high_precision_dtype="fp32",
            output_path=str(target),
            log_level="ERROR",
        )
        placed = onnx.load(target)
    # Read from the graph that was written: ModelOpt leaves layers out without saying so.
    dequantized = {n.output[0] for n in placed.graph.node if n.op_type == "DequantizeLinear"}
    reads = {n.name: n.input[0] for n in placed.graph.node}
    found = tuple(name for name in layers if reads.get(name) in dequantized)
    if not found:
        raise EngineError(
            f"ModelOpt quantized none of the {len(layers)} layers of graph {graph.graph.name!r} to "
            f"{kind}; check nvidia-modelopt against constraints.txt"
        )
    return found


def _whole_strides(samples: list[Sample]) -> list[Sample]:
    """As many samples as fill whole strides; the quantizer takes no other number."""
    return samples[: len(samples) // _STRIDE * _STRIDE] if len(samples) > _STRIDE else samples


def _reader(quantization: Any, samples: Sequence[Sample]) -> Any:
    class CalibrationReader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """An iterator over the samples, one stride after the other."""

        def __init__(self) -> None:
            self._left = iter(samples)

        def __len__(self) -> int:
            return len(samples)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(samples[start_index:end_index])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            sample = next(self._left, None)
            return None if sample is None else dict(sample)

        def get_first(self) -> dict[str, npt.NDArray[Any]]:
            return dict(samples[0])

        def rewind(self) -> None:
            self._left = iter(samples)

    return CalibrationReader()


def _onnxruntime_quantization() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError:
        raise MissingDependency("onnxruntime", "compile", "quantizing a graph") from None
    return quantization


def check_modelopt() -> None:
    """Raise `MissingDependency` unless ModelOpt's ONNX parts are installed."""
    with _quiet():
        _modelopt()


def _modelopt() -> Any:
    try:
        from modelopt.onnx.quantization import quantize
    except ImportError as error:
        module = error.name or "modelopt"
        raise MissingDependency(module, "quantize", "quantizing for TensorRT") from None
    return quantize


@contextlib.contextmanager
def _unpatched() -> Iterator[None]:
    """Restore the parts of ONNX Runtime's quantizer that ModelOpt replaces.

    Otherwise they stay replaced for the rest of the process, and `onnxruntime_u8s8` fails or finds
    other ranges.
    """
    from onnxruntime.quantization import base_quantizer, calibrate, qdq_quantizer, registry

    owners: list[Any] = []
    for module in (base_quantizer, calibrate, qdq_quantizer):
        # Methods are replaced as well, so the classes defined in a module are owners too.
        inside = [value for value in vars(module).values() if isinstance(value, type)]
        owners += [module, *(each for each in inside if each.__module__ == module.__name__)]
    before = [(owner, dict(vars(owner))) for owner in owners]
    tables = [(table, dict(table)) for table in (registry.QDQRegistry, registry.QLinearOpsRegistry)]
    try:
        yield
    finally:
        for owner, known in before:
            for name, value in list(vars(owner).items()):
                if name not in known:
                    delattr(owner, name)
                elif value is not known[name]:
                    setattr(owner, name, known[name])
        for table, known in tables:
            # In place, because other modules hold the same table.
            table.clear()
            table.update(known)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizers' advice and progress text off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
