"""Real engines from TensorRT-RTX, which needs no GPU to build: a compiler's proof of a graph.

The builder is the robot's own (`jetsight.tensorrt.builder`), strongly typed, so an operator, a type
or a fusion that it refuses is found by the tests instead of on the robot.
"""

from __future__ import annotations

from pathlib import Path

from jetsight.tensorrt import bindings
from jetsight.tensorrt.builder import onnx_parser
from jetsight.tensorrt.builder.onnx_parser import Built


def build(graph: bytes, log: Path | None = None) -> Built:
    """Parse and compile an ONNX graph with TensorRT-RTX.

    Args:
        graph: ONNX bytes.
        log: file for everything TensorRT says; nothing is printed.

    Raises:
        EngineError: the parser or the compiler refuses the graph; one line with its reason.
        MissingDependency: tensorrt_rtx is not installed.
    """
    return onnx_parser.build(graph, log, library=bindings.open_library((bindings.RTX,)))
