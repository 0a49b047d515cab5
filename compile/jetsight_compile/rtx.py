"""Real engines from TensorRT-RTX, which needs no GPU to build: a compiler's proof of a graph.

It parses and compiles every TensorRT family with NVIDIA's own compiler, strongly typed, so an
operator, a type or a fusion it refuses is found here and not on the robot. The engine's bytes are
for the caller to inspect; they never enter a bundle, because engines are tied to a device and are
executable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.atomic import write_file
from jetsight.errors import EngineError, MissingDependency

Port = tuple[str, tuple[int, ...]]  # type and shape


@dataclass(frozen=True)
class Built:
    """What the compiler made of one graph.

    Attributes:
        engine: the serialized engine.
        inputs: name to (type, shape), e.g. `("uint8", (96, 96, 3))`.
        outputs: the same.
        layers: how many layers of each kind the parsed network has.
        version: of TensorRT-RTX.
    """

    engine: bytes
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    layers: Counter[str]
    version: str


def build(graph: bytes, log: Path | None = None) -> Built:
    """Parse and compile an ONNX graph.

    Args:
        graph: ONNX bytes.
        log: file for everything TensorRT says; nothing is printed.

    Raises:
        EngineError: the parser or the compiler refuses the graph; one line with its reason.
        MissingDependency: tensorrt_rtx is not installed.
    """
    trt = _tensorrt_rtx()
    logger = _collecting_logger(trt)
    try:
        builder = trt.Builder(logger)
        network, parser = _parsed(trt, builder, logger, graph)
        engine = builder.build_serialized_network(network, builder.create_builder_config())
        del parser
    finally:
        if log is not None:
            write_file(log, "\n".join(logger.lines).encode())
    if engine is None:
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} cannot compile the graph: {_reason(logger.errors)}; "
            f"{_where(log)}"
        )
    kinds = (network.get_layer(i).type.name for i in range(network.num_layers))
    return Built(
        bytes(engine),
        _ports(trt, map(network.get_input, range(network.num_inputs))),
        _ports(trt, map(network.get_output, range(network.num_outputs))),
        Counter(kinds),
        trt.__version__,
    )


def _ports(trt: Any, tensors: Iterable[Any]) -> dict[str, Port]:
    names = {trt.uint8: "uint8", trt.float32: "float32", trt.float16: "float16"}
    return {t.name: (names.get(t.dtype, str(t.dtype)), tuple(t.shape)) for t in tensors}


def _parsed(trt: Any, builder: Any, logger: Any, graph: bytes) -> tuple[Any, Any]:
    """The network and its parser, which owns the weights and must live as long."""
    # Accepted and ignored where strong typing is the only mode left.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = [f"node {e.node_name()!r} ({e.node_operator()}): {e.desc()}" for e in errors]
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} cannot parse the graph: {_reason(said)}; export it "
            "for an older target, whose operators are decomposed"
        )
    return network, parser


def _collecting_logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps every line; TensorRT prints nothing itself then."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(f"{severity.name} {message}")
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _reason(said: list[str]) -> str:
    return " ".join(said[0].split())[:300] if said else "it gave no reason"


def _where(log: Path | None) -> str:
    return f"its log is in {log}" if log else "pass a log file to see all it said"


def _tensorrt_rtx() -> Any:
    try:
        import tensorrt_rtx
    except ImportError:
        raise MissingDependency("tensorrt_rtx", "rtx", "compiling a graph for RTX GPUs") from None
    return tensorrt_rtx
