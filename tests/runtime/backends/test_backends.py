"""Both CPU backends against numpy, their arrays, their choice and their errors."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.runtime import live_bundle
from onnx import TensorProto, helper

from jetsight.backends import host_arrays, registry
from jetsight.engine import Engine
from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight.machine.cpu import default_threads

NAMES = ("onnxruntime", "openvino")
FRAME = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)


def _load(name: str, graph: bytes) -> Engine:
    return registry.open_backend(name, "cpu-fp32", threads=1).load(graph)


def _encode(name: str, graph: bytes, frame: np.ndarray = FRAME) -> np.ndarray:
    engine = _load(name, graph)
    engine.inputs["frame_hwc_u8"].write(frame)
    engine.run()
    return engine.outputs["z"].read().copy()


def _graph(node: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> bytes:
    value = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(node, ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model.SerializeToString()


@pytest.mark.parametrize("name", NAMES)
def test_fp32_equals_numpy(name: str) -> None:
    found = _encode(name, live_bundle.encode_graph())
    np.testing.assert_allclose(found, live_bundle.encode(FRAME), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoiled", ["graph", "input"])
def test_parity_check_can_fail(name: str, spoiled: str) -> None:
    """Negative control: another graph or another frame must not pass the comparison above."""
    graph = live_bundle.encode_graph(1.01 if spoiled == "graph" else 1.0)
    found = _encode(name, graph, FRAME if spoiled == "graph" else FRAME[::-1])
    expected = live_bundle.encode(FRAME)
    assert not np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_int8_is_near_but_not_the_float_result(name: str) -> None:
    """Near: it computes the same. Not equal: the integers were really used."""
    found = _encode(name, live_bundle.encode_graph(int8=True))
    expected = live_bundle.encode(FRAME)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.999
    assert np.abs(found - expected).max() > 1e-5


def test_backends_agree_on_int8() -> None:
    graph = live_bundle.encode_graph(int8=True)
    np.testing.assert_allclose(_encode("onnxruntime", graph), _encode("openvino", graph), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_forecast_equals_numpy(name: str) -> None:
    engine = _load(name, live_bundle.forecast_graph())
    golden = live_bundle.reference()
    for key, array in engine.inputs.items():
        array.write(golden[key][0])
    engine.run()
    found = engine.outputs["z_future"].read()
    np.testing.assert_allclose(found, golden["z_future"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bound_output_feeds_next_engine_without_copy(name: str) -> None:
    backend = registry.open_backend(name, "cpu-fp32", threads=1)
    first, second = backend.load(_graph("Neg", [4])), backend.load(_graph("Abs", [4]))
    second.bind("x", first.outputs["y"])
    for factor in (1.0, 2.0):  # a second round shows that it stays bound
        values = np.array([-1, 2, -3, 4], np.float32) * np.float32(factor)
        first.inputs["x"].write(values)
        first.run()
        second.run()
        np.testing.assert_array_equal(second.outputs["y"].read(), np.abs(values))
    assert np.shares_memory(first.outputs["y"].read(), second.inputs["x"].read())


@pytest.mark.parametrize("name", NAMES)
def test_bind_refuses_what_cannot_fit(name: str) -> None:
    engine = _load(name, _graph("Neg", [4]))
    wrong = _load(name, _graph("Neg", [5])).inputs["x"]
    with pytest.raises(EngineError, match=r"float32 \[4\].*float32 \[5\]"):
        engine.bind("x", wrong)
    with pytest.raises(EngineError, match="no input or output 'q'"):
        engine.bind("q", engine.inputs["x"])
    other = _load(NAMES[1 - NAMES.index(name)], _graph("Neg", [4])).inputs["x"]
    with pytest.raises(EngineError, match="same backend"):
        engine.bind("x", other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "bad", [np.zeros(5, np.float32), np.zeros(4, np.float64), np.zeros((4, 1))]
)
def test_write_neither_casts_nor_broadcasts(name: str, bad: np.ndarray) -> None:
    engine = _load(name, _graph("Neg", [4]))
    with pytest.raises(EngineError, match=r"takes float32 \[4\]"):
        engine.inputs["x"].write(bad)


@pytest.mark.parametrize("name", NAMES)
def test_read_gives_a_locked_view_or_fills_yours(name: str) -> None:
    engine = _load(name, _graph("Neg", [2]))
    engine.inputs["x"].write(np.array([1, 2], np.float32))
    engine.run()
    view, mine = engine.outputs["y"].read(), np.empty(2, np.float32)
    assert engine.outputs["y"].read(mine) is mine
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0
    engine.inputs["x"].write(np.array([5, 6], np.float32))
    engine.run()
    assert view.tolist() == [-5, -6]
    assert mine.tolist() == [-1, -2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", [b"", b"not a graph", live_bundle.encode_graph()[:300]])
def test_broken_graph_is_one_line(name: str, graph: bytes) -> None:
    with pytest.raises(EngineError, match=f"{name} .* cannot load the graph: ") as caught:
        _load(name, graph)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_operator_and_dynamic_shape_are_named(name: str) -> None:
    with pytest.raises(EngineError, match="NoSuchOp"):
        _load(name, _graph("NoSuchOp", [4]))
    with pytest.raises(EngineError, match="'x' has the dynamic shape"):
        _load(name, _graph("Neg", ["n"]))


@pytest.mark.parametrize("name", NAMES)
def test_closed_engine_refuses_to_run_and_lets_go(name: str) -> None:
    engine = _load(name, _graph("Neg", [4]))
    memory = weakref.ref(engine.inputs["x"].read().base)
    engine.close()
    engine.close()
    gc.collect()
    assert memory() is None
    with pytest.raises(EngineError, match="was closed"):
        engine.run()


@pytest.mark.parametrize("name", NAMES)
def test_run_keeps_no_memory(name: str) -> None:
    engine = _load(name, live_bundle.encode_graph())
    tracemalloc.start()
    try:
        for _ in range(1500):  # openvino's Python binding fills a table of 12 kB first
            engine.run()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            engine.run()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 512  # a leak of one byte per run shows


def test_int64_and_bool_tensors_pass_too() -> None:
    for kind, dtype in ((TensorProto.INT64, np.int64), (TensorProto.BOOL, np.bool_)):
        for name in NAMES:
            engine = _load(name, _graph("Identity", [2], kind))
            engine.inputs["x"].write(np.array([1, 0], dtype))
            engine.run()
            assert engine.outputs["y"].read().tolist() == [1, 0]


def test_double_precision_is_refused_by_name() -> None:
    for name in NAMES:
        with pytest.raises(EngineError, match="'x' is a"):
            _load(name, _graph("Neg", [2], TensorProto.DOUBLE))


def test_openvino_is_pinned_to_float32() -> None:
    """On a CPU with bfloat16 it would otherwise change precision on its own."""
    engine = _load("openvino", _graph("Neg", [2]))
    precision = engine._compiled.get_property("INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
    assert precision.get_type_name() == "f32"


@pytest.mark.parametrize(
    ("machine", "flags", "fp32", "int8"),
    [
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, "openvino", "openvino"),
        ("x86_64", {"avx2", "avx512f"}, "openvino", "onnxruntime"),
        ("x86_64", {"avx2"}, "onnxruntime", "onnxruntime"),
        ("aarch64", set(), "onnxruntime", "onnxruntime"),
    ],
)
def test_default_depends_on_what_the_cpu_can_do(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: set[str], fp32: str, int8: str
) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(registry, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("jetsight.machine.cpu.cpu_flags", lambda: frozenset(flags))
    for family, expected in (("cpu-fp32", fp32), ("cpu-int8", int8)):
        assert registry.choose(family) == expected
        assert registry.open_backend(None, family).name == expected


def test_the_only_installed_backend_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    for hidden, left in (NAMES, NAMES[::-1]):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, hidden, None)
            assert registry.choose("cpu-int8") == left


def _saturating() -> tuple[bytes, np.ndarray]:
    """A quantized product whose partial sums do not fit 16 bits, and its exact result."""
    weight = np.where(np.arange(64 * 8).reshape(64, 8) % 3 == 0, -1.0, 1.0).astype(np.float32)
    constants: list[onnx.TensorProto] = []
    nodes = live_bundle._quantized_matmul("x", weight, "y", 1 / 255, 0, constants)
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in _SIZES]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model.SerializeToString(), weight.sum(axis=0)[None]


_SIZES = (("x", [1, 64]), ("y", [1, 8]))


def test_onnxruntime_int8_is_exact_on_every_x86_and_arm() -> None:
    graph, expected = _saturating()
    engine = _load("onnxruntime", graph)
    engine.inputs["x"].write(np.ones((1, 64), np.float32))
    engine.run()
    np.testing.assert_allclose(engine.outputs["y"].read(), expected, rtol=1e-4)


def test_weights_that_share_a_zero_point_load_without_vnni(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control of the exact kernels: their rewrite refuses such a graph."""
    monkeypatch.setattr("jetsight.backends.onnxruntime.has_vnni", lambda: False)
    constants: list[onnx.TensorProto] = []
    weight = np.eye(64, dtype=np.float32)
    nodes = live_bundle._quantized_matmul("x", weight, "m", 1 / 255, 0, constants)
    more: list[onnx.TensorProto] = []
    second = live_bundle._quantized_matmul("m", weight, "y", 1 / 255, 0, more)
    for node in second:
        node.input[:] = [f"{n}2" if n in ("xq", "xd", "Wq", "Wd") else n for n in node.input]
        node.output[:] = [f"{n}2" if n in ("xq", "xd", "Wd") else n for n in node.output]
    constants.append(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(more[-1]), "Wq2"))
    sizes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64]) for n in "xy"]
    graph = helper.make_graph([*nodes, *second], "g", sizes[:1], sizes[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    with pytest.raises(Exception, match="replace the existing tensor"):
        onnxruntime.InferenceSession(model.SerializeToString(), options)
    engine = _load("onnxruntime", model.SerializeToString())
    engine.inputs["x"].write(np.ones((1, 64), np.float32))
    engine.run()
    np.testing.assert_allclose(engine.outputs["y"].read(), 1.0, rtol=1e-2)


def test_name_beats_variable_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.VARIABLE, "onnxruntime")
    assert registry.open_backend(None, "cpu-fp32").name == "onnxruntime"
    assert registry.open_backend("openvino", "cpu-fp32").name == "openvino"


def test_unknown_backend_and_family_say_what_there_is() -> None:
    with pytest.raises(UsageError, match="choose one of 'openvino', 'onnxruntime'"):
        registry.open_backend("tensorflow", "cpu-fp32")
    with pytest.raises(UsageError, match="does not run family 'trt-op20-fp16'"):
        registry.open_backend("openvino", "trt-op20-fp16")
    with pytest.raises(EngineError, match="no backend of this version runs family 'npu-int8'"):
        registry.open_backend(None, "npu-int8")


def test_missing_libraries_name_the_extra() -> None:
    code = """
import sys
sys.modules["openvino"] = sys.modules["onnxruntime"] = None
from jetsight.backends import registry
from jetsight.errors import MissingDependency
assert all("jetsight[cpu]" in i.reason for i in registry.available() if i.runs("cpu-int8"))
for name in ("openvino", "onnxruntime", None):
    try:
        registry.open_backend(name, "cpu-int8")
    except MissingDependency as error:
        assert "jetsight[cpu]" in str(error)
    else:
        raise SystemExit(f"{name} opened")
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


def test_looking_around_imports_nothing_heavy() -> None:
    code = (
        "import sys; from jetsight.backends import registry; registry.available(); "
        "assert not {'openvino', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'pycuda'} & "
        "sys.modules.keys()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


def test_host_arrays_start_on_a_cache_line() -> None:
    for size in (1, 3, 17, 1000):
        assert host_arrays.aligned_zeros((size, 3), np.dtype(np.uint8)).ctypes.data % 64 == 0


def test_default_threads_are_within_what_the_process_may_use() -> None:
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))


def test_graphs_of_this_file_are_valid_onnx() -> None:
    """Negative control for the broken-graph tests: the whole graph does load."""
    onnx.checker.check_model(onnx.load_from_string(live_bundle.encode_graph()))
    assert issubclass(MissingDependency, Exception)


def test_openvino_reports_to_nobody() -> None:
    code = """
import sys
from jetsight.backends.registry import open_backend
open_backend("openvino", "cpu-fp32")
print([name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


SIGNAL_AFTER_TWO = """
import signal, sys, threading
from jetsight.backends.openvino import OpenVinoBackend
from helpers.runtime import live_bundle
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first = [OpenVinoBackend().load(live_bundle.encode_graph())]
second = [OpenVinoBackend().load(live_bundle.encode_graph())]
first.clear()
thread = threading.Thread(target=second.clear)
thread.start()
thread.join()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_still_arrives_after_openvino_was_used() -> None:
    """A robot is stopped by signals; with two cores in one process the first one crashed it."""
    pytest.importorskip("openvino")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_TWO],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
