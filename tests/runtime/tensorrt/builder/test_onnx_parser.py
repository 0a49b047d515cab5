"""The builder, against NVIDIA's compiler where it is installed and a scripted one for failures."""

from __future__ import annotations

import gc
import signal
import sys
import types
import weakref
from importlib.util import find_spec
from typing import Any

import pytest
from helpers.runtime.engine_factory import encode
from helpers.runtime.fake_builder import FakeTensorRT, Severity
from onnx import helper

from jetsight.errors import EngineError, MissingDependency
from jetsight.machine.jetson import Jetson
from jetsight.tensorrt import bindings
from jetsight.tensorrt.bindings import TensorRtModule, open_library
from jetsight.tensorrt.builder import onnx_parser
from jetsight.tensorrt.builder.timing_cache import TimingCache
from jetsight.tensorrt.fingerprint import BuildOptions

needs_rtx = pytest.mark.skipif(
    not find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)
GRAPH = encode().SerializeToString()


def build(trt: FakeTensorRT, tmp_path, **more):
    return onnx_parser.build(GRAPH, tmp_path / "build.log", library=trt.library(), **more)


def refusal(trt: FakeTensorRT, tmp_path, **more) -> str:
    with pytest.raises(EngineError) as caught:
        build(trt, tmp_path, **more)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "build.log") in str(caught.value)
    return str(caught.value)


@needs_rtx
def test_a_graph_becomes_an_engine(tmp_path) -> None:
    said: list[tuple[float, str]] = []
    options = BuildOptions(workspace_mb=64, level=2)
    built = onnx_parser.build(
        GRAPH, tmp_path / "log", options=options, say=lambda part, what: said.append((part, what))
    )
    assert built.engine[:4] == b"vtrt"
    assert built.inputs == {"frame_hwc_u8": ("uint8", (8, 12, 3))}
    assert built.outputs == {"z": ("float32", (4,))}
    assert built.layers["MATRIX_MULTIPLY"] == 1
    parts = [part for part, _ in said]
    assert parts == sorted(parts)
    assert parts[-1] > 0.8
    assert b"product" in (tmp_path / "log").read_bytes()


def test_what_was_chosen_reaches_tensorrt(tmp_path) -> None:
    trt = FakeTensorRT()
    build(trt, tmp_path, options=BuildOptions(workspace_mb=64, level=5))
    (config,) = trt.configs
    assert trt.flags == [1 << 1], "strongly typed"
    assert config.pools == {"workspace": 64 << 20}
    assert config.builder_optimization_level == 5
    assert config.profiling_verbosity == "detailed"


def test_names_that_one_tensorrt_lacks_are_not_needed(tmp_path) -> None:
    """10.3 has the flag for strong typing, a later one may not; progress may be missing too."""
    trt = FakeTensorRT((12, 0, 0, 1))
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace()
    del trt.IProgressMonitor
    assert build(trt, tmp_path).layers == {"MATRIX_MULTIPLY": 1}
    assert trt.flags == [0]


@pytest.mark.parametrize(
    ("trt", "says"),
    [
        (
            FakeTensorRT(
                plan=None,
                says=[
                    (
                        "WARNING",
                        "Requested amount of GPU memory (68719476736 bytes) could not be had.",
                    ),
                    (
                        "ERROR",
                        "2: [virtualMemoryBuffer.cpp::resizePhysical] Error Code 2: OutOfMemory",
                    ),
                ],
            ),
            ["Error Code 2: OutOfMemory", "close other programs", "--workspace-mb 256"],
        ),
        (
            FakeTensorRT(
                plan=None,
                says=[
                    (
                        "WARNING",
                        "Skipping tactic 3 due to insuficient memory on requested size of 538",
                    ),
                    ("ERROR", "10: Could not find any implementation for node /blocks.0/MatMul."),
                ],
            ),
            ["/blocks.0/MatMul", "--workspace-mb 256"],
        ),
        (
            FakeTensorRT(
                plan=None,
                says=[
                    ("ERROR", "10: Could not find any implementation for node /blocks.0/MatMul."),
                ],
            ),
            ["no kernel fits node /blocks.0/MatMul", "older target"],
        ),
        (
            FakeTensorRT(raises=TypeError("pybind11::init(): factory function returned nullptr")),
            ["factory function returned nullptr"],
        ),
        (
            FakeTensorRT(plan=None, says=[("ERROR", "CUDA initialization failure with error: 35")]),
            ["missing or too old", "CUDA error 35", "update the driver", "jetsight doctor"],
        ),
        (
            FakeTensorRT(plan=None, says=[("ERROR", "In f at g.cpp:25 (cudaError 803: x)")]),
            ["CUDA error 803", "user-space library"],
        ),
        (
            FakeTensorRT(plan=None, says=[("ERROR", "first\nproblem"), ("ERROR", "second")]),
            ["TensorRT 10.3.0.26 cannot compile the graph: first problem"],
        ),
        (FakeTensorRT(plan=None), ["it gave no reason"]),
        (
            FakeTensorRT(parser_errors=[("head/x", "Fourier", "no importer")]),
            ["cannot parse the graph: node 'head/x' (Fourier): no importer", "--target orin-jp6"],
        ),
    ],
)
def test_why_tensorrt_refuses_and_what_to_do(trt, says, tmp_path) -> None:
    text = refusal(trt, tmp_path)
    for part in says:
        assert part in text
    assert (tmp_path / "build.log").exists()


def test_a_warning_about_memory_is_no_failure(tmp_path) -> None:
    """The negative control: the same words in a build that succeeds."""
    build(FakeTensorRT(says=[("WARNING", "Skipping tactic 3 due to insuficient memory")]), tmp_path)


def test_weights_outside_the_graph_are_refused_before_the_parser(tmp_path) -> None:
    model = encode()
    tensor = model.graph.initializer[0]
    tensor.data_location = tensor.EXTERNAL
    with pytest.raises(EngineError, match="weight 'w' is outside the bundle"):
        onnx_parser.build(model.SerializeToString(), library=FakeTensorRT().library())


@needs_rtx
def test_an_operator_nobody_knows_names_its_node(tmp_path) -> None:
    odd = helper.make_node("Fourier", ["z"], ["odd"], name="head/Fourier", domain="com.me")
    with pytest.raises(EngineError, match=r"node 'head/Fourier' .*jetsight compile --target"):
        onnx_parser.build(encode(extra=[odd]).SerializeToString(), tmp_path / "log")


def test_ctrl_c_cancels_the_build_and_is_delivered_after_it(tmp_path) -> None:
    """TensorRT swallows what its callbacks raise; the signal must not be lost with it."""
    asked: list[bool] = []

    def interrupt(config) -> None:
        config.progress_monitor.phase_start("Building", None, 3)
        asked.append(config.progress_monitor.step_complete("Building", 0))
        signal.raise_signal(signal.SIGINT)
        asked.append(config.progress_monitor.step_complete("Building", 1))
        config.progress_monitor.phase_finish("Building")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(FakeTensorRT(during=interrupt), tmp_path)
    assert asked == [True, False]
    assert signal.getsignal(signal.SIGINT) is before


def test_timing_caches_of_several_builds_are_merged(tmp_path) -> None:
    path = tmp_path / "machine.cache"
    path.write_bytes(b"cache\nolder kernel")

    def another_build_ends_first(config) -> None:
        assert config.cache.lines == {b"older kernel"}
        path.write_bytes(b"cache\nolder kernel\ntheir kernel")

    trt = FakeTensorRT(during=another_build_ends_first)
    build(trt, tmp_path, timing=TimingCache(path, trt.library()))
    assert path.read_bytes() == b"cache\nkernel\nolder kernel\ntheir kernel"


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_timing_cache_is_replaced(tmp_path, content) -> None:
    (tmp_path / "machine.cache").write_bytes(content)
    trt = FakeTensorRT()
    build(trt, tmp_path, timing=TimingCache(tmp_path / "machine.cache", trt.library()))
    assert (tmp_path / "machine.cache").read_bytes() == b"cache\nkernel"


def test_tensorrt_rtx_keeps_no_timing_cache(tmp_path) -> None:
    trt = FakeTensorRT((1, 7, 1, 116))
    build(trt, tmp_path, timing=TimingCache(tmp_path / "machine.cache", trt.library()))
    assert not (tmp_path / "machine.cache").exists()


def test_a_logger_keeps_what_is_said_up_to_a_limit(monkeypatch) -> None:
    monkeypatch.setattr(bindings, "_MOST_LINES", 2)
    monkeypatch.setattr(bindings, "_MOST_ERRORS", 2)
    logger: Any = bindings.make_logger(FakeTensorRT().library())
    for name in ("INFO", "ERROR", "VERBOSE", "INTERNAL_ERROR", "INFO", "ERROR"):
        logger.log(Severity[name], name.lower())
    assert logger.lines == ["INFO info", "ERROR error", "INTERNAL_ERROR internal_error"]
    assert logger.errors == ["error", "internal_error"]


def test_a_logger_outlives_what_was_made_with_it_and_serves_again() -> None:
    """TensorRT may still call the first logger it got when that one's own objects are gone."""
    trt = FakeTensorRT()
    first, second = bindings.make_logger(trt.library()), bindings.make_logger(trt.library())
    assert first is not second, "two in use at once"
    first.lines.append("x")
    first.errors.append("x")
    address, gone = id(first), weakref.ref(first)
    first.forget()
    first.forget()
    del first
    gc.collect()
    kept = gone()
    assert kept is not None
    kept.lines.append("last words of an object that went late")
    del kept
    again, other = bindings.make_logger(trt.library()), bindings.make_logger(trt.library())
    assert id(again) == address
    assert (again.lines, again.errors) == ([], [])
    assert other is not again, "handed out twice"


def test_a_build_gives_its_logger_back(tmp_path) -> None:
    trt = FakeTensorRT(says=[("INFO", "hello")])
    build(trt, tmp_path)
    free = bindings.make_logger(trt.library())
    assert free.lines == []
    free.forget()
    before = len(bindings._IDLE[trt.ILogger])
    build(trt, tmp_path)
    assert len(bindings._IDLE[trt.ILogger]) == before


def test_the_library_is_tensorrt_before_tensorrt_rtx(monkeypatch) -> None:
    fake = types.SimpleNamespace(__version__="10.3.0.26")
    rtx = types.SimpleNamespace(__version__="1.7.1.116")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert open_library() == TensorRtModule(fake, "tensorrt", (10, 3, 0, 26))
    assert str(open_library(("tensorrt_rtx",))) == "TensorRT-RTX 1.7.1.116"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert open_library().name == "tensorrt_rtx"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match=r"jetsight\[rtx\]"):
        open_library()


def test_a_jetson_without_tensorrt_is_told_about_apt(monkeypatch) -> None:

    board = Jetson("Orin NX", "36.4.3", "6.2", "10.3", "0")
    monkeypatch.setattr(bindings, "jetson", lambda root: board)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"apt install python3-libnvinfer.*--system-site-pack"):
        open_library()


@pytest.mark.parametrize("version", ["8.6.2", "10.0.1.6"])
def test_a_tensorrt_with_other_names_is_refused_before_they_are_missed(
    monkeypatch, version
) -> None:

    old = types.SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(
        EngineError, match=rf"{version} is too old, expected 10\.3 .*jetsight\[rtx\]"
    ):
        open_library()
    board = Jetson("Orin NX", "36.3.0", "6.0", "8.6", "0")
    monkeypatch.setattr(bindings, "jetson", lambda root: board)
    with pytest.raises(EngineError, match=r"is too old, .*flash JetPack 6\.1 or newer"):
        open_library()
    old.__version__ = "10.3.0"  # the negative control
    assert open_library().module is old


def test_a_library_that_does_not_load_says_why(monkeypatch, tmp_path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineError, match=r"does not load \(libnvinfer\.so\.10: cannot open\)"):
        open_library()
