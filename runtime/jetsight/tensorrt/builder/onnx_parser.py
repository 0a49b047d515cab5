"""Compilation of ONNX bytes to an engine: strongly typed, with memory limit, timing cache and log.

Only names in both TensorRT 10.3 and 11 are called; others are looked up with `getattr`, never
derived from a version. Precision is in the graph (casts, Q/DQ), because TensorRT 11 has no flags
for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.bundle import onnx_scan
from jetsight.signals import deferred_signals
from jetsight.storage.atomic import write_file
from jetsight.tensorrt import log_messages
from jetsight.tensorrt.bindings import CollectingLogger, TensorRtModule, make_logger, open_library
from jetsight.tensorrt.builder.progress import Say, make_monitor
from jetsight.tensorrt.builder.timing_cache import TimingCache
from jetsight.tensorrt.fingerprint import BuildOptions

PortSpec = tuple[str, tuple[int, ...]]  # type and shape
_MIB = 1 << 20
_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION")
# Layers between a DequantizeLinear and its product that do not change the numbers.
_MOVING = ("SHUFFLE", "IDENTITY", "CAST", "SLICE")


@dataclass(frozen=True)
class Built:
    """Result of the compiler for one graph.

    Attributes:
        engine: the serialized engine.
        inputs: name to (type, shape), e.g. `("uint8", (96, 96, 3))`.
        outputs: the same.
        layers: number of layers of each kind in the parsed network.
        quantized: products with both inputs dequantized.
        weight_only: products whose weight alone is.
    """

    engine: bytes
    inputs: dict[str, PortSpec]
    outputs: dict[str, PortSpec]
    layers: Counter[str]
    quantized: int = 0
    weight_only: int = 0


def build(
    graph: bytes,
    log: Path | None = None,
    *,
    library: TensorRtModule | None = None,
    options: BuildOptions | None = None,
    timing: TimingCache | None = None,
    say: Say | None = None,
    what: str = "the graph",
) -> Built:
    """Parse and compile an ONNX graph.

    Args:
        graph: ONNX bytes with all their weights.
        log: file for TensorRT's messages; nothing is printed.
        library: the TensorRT to use; the installed one if None.
        options: memory limit and optimization level.
        timing: kernel times measured before on this machine; updated after the build.
        say: called with the part done, 0 to 1, and the name of the phase.
        what: name of the graph in messages.

    Raises:
        EngineError: the parser or the compiler refuses the graph; one line with its reason, the
            next step, and the path of the log.
        MissingDependency: no TensorRT is installed.
    """
    library = library or open_library()
    onnx_scan.refuse_external_data(graph, what)  # TensorRT would follow paths out of the graph
    logger = make_logger(library)
    try:
        # TensorRT swallows exceptions of its callbacks, so the monitor cancels the build instead.
        with deferred_signals() as stop:
            return _Build(library, logger, log, options or BuildOptions()).run(
                graph, timing, say, stop
            )
    finally:
        # Also after a failure, whose message names this file.
        if log is not None:
            write_file(log, "\n".join(logger.lines).encode(errors="replace"))
        logger.forget()


class _Build:
    """One build: it keeps alive the objects that TensorRT needs until its end."""

    def __init__(
        self,
        library: TensorRtModule,
        logger: CollectingLogger,
        log: Path | None,
        options: BuildOptions,
    ) -> None:
        self._library, self._logger, self._log, self._options = library, logger, log, options
        self._trt = library.module

    def run(self, graph: bytes, timing: TimingCache | None, say: Say | None, stop: Any) -> Built:
        builder = self._call(self._trt.Builder, self._logger)
        network, parser = self._parsed(builder, graph)
        config = self._configured(builder)
        config.progress_monitor = make_monitor(self._library, say or _silent, stop)
        if timing is not None:
            timing.load(config)
        engine = self._call(builder.build_serialized_network, network, config)
        if timing is not None:
            timing.save(config)
        del parser  # it owns the weights and must live until here
        trt = self._trt
        kinds = (network.get_layer(i).type.name for i in range(network.num_layers))
        return Built(
            bytes(engine),  # a copy: that memory is TensorRT's
            _ports(trt, map(network.get_input, range(network.num_inputs))),
            _ports(trt, map(network.get_output, range(network.num_outputs))),
            Counter(kinds),
            *quantized_products(network),
        )

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a binding; raise `EngineError` if it returns None or raises."""
        result: Any = None
        raised: Exception | None = None
        try:
            result = function(*arguments)
        # TypeError: TensorRT returned nothing.
        except (TypeError, RuntimeError, ValueError, MemoryError) as error:
            raised = error
        if result is None:
            failure = log_messages.build_failure(self._library, self._logger, self._log, raised)
            raise failure from raised
        return result

    def _parsed(self, builder: Any, graph: bytes) -> tuple[Any, Any]:
        # Accepted and ignored where strong typing is the only mode left.
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = self._call(builder.create_network, 0 if flag is None else 1 << int(flag))
        parser = self._call(self._trt.OnnxParser, network, self._logger)
        if not parser.parse(graph):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            raise log_messages.parse_failure(self._library, list(map(_text, errors)), self._log)
        return network, parser

    def _configured(self, builder: Any) -> Any:
        trt, options = self._trt, self._options
        config = self._call(builder.create_builder_config)
        if options.workspace_mb is not None:
            limit = options.workspace_mb * _MIB
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if options.level is not None:
            config.builder_optimization_level = options.level
        # Else the inspector shows only names of layers, which prove no precision.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return config


def _text(error: Any) -> str:
    """Format one parser error with its node; TensorRT 8's errors have no names."""
    name, operator = (getattr(error, key, None) for key in ("node_name", "node_operator"))
    if not name or not operator or not (name() or operator()):
        return str(error.desc())
    return f"node {name()!r} ({operator()}): {error.desc()}"


def _ports(trt: Any, tensors: Iterable[Any]) -> dict[str, PortSpec]:
    names = {trt.uint8: "uint8", trt.float32: "float32", trt.float16: "float16"}
    return {t.name: (names.get(t.dtype, str(t.dtype)), tuple(t.shape)) for t in tensors}


def _silent(part: float, what: str) -> None:
    pass


def quantized_products(network: Any) -> tuple[int, int]:
    """Count products and convolutions with both inputs dequantized, and with the weight alone."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    both = weight_only = 0
    for layer in layers:
        if layer.type.name not in _PRODUCTS or layer.num_inputs < 2:
            continue
        # Input 1 is the weight, in both kinds of layers.
        first, second = (_is_dequantized(layer.get_input(i), makers) for i in range(2))
        both += first and second
        weight_only += second and not first
    return both, weight_only


def _is_dequantized(tensor: Any, makers: dict[str, Any]) -> bool:
    """Return whether a tensor is of a DequantizeLinear, through layers that only move numbers."""
    while (maker := makers.get(tensor.name)) is not None:
        if maker.type.name == "DEQUANTIZE":
            return True
        if maker.type.name not in _MOVING:
            return False
        tensor = maker.get_input(0)
    return False
