"""When the TensorRT backend is offered and chosen, and what it says it lacks."""

from __future__ import annotations

import pytest

from jetsight.backends import registry
from jetsight.backends.registry import BackendInfo
from jetsight.errors import EngineError
from jetsight.machine import system
from jetsight.machine.jetson import Jetson
from jetsight.machine.system import Cuda, Gpu

ORIN = Gpu("Orin", 8 << 30, "8.7", multiprocessors=16, integrated=True)
NO_GPU = Cuda(None, None, (), "no NVIDIA driver (libcuda.so.1 is not installed)")


def _tensorrt(monkeypatch: pytest.MonkeyPatch, there: set[str], cuda: Cuda) -> BackendInfo:
    monkeypatch.setattr(system, "cuda", lambda _: cuda)
    monkeypatch.setattr(registry, "_is_installed", lambda name: name in there)
    (info,) = [info for info in registry.available() if info.runs("trt-op20-fp16")]
    assert info.name == "tensorrt"
    return info


@pytest.mark.parametrize(
    ("there", "cuda", "reason"),
    [
        (set(), NO_GPU, "Python package 'tensorrt_rtx' is not installed; run: pip install 'jetsig"),
        ({"tensorrt_rtx"}, NO_GPU, "no NVIDIA driver (libcuda.so.1 is not installed)"),
        ({"tensorrt"}, Cuda("540", "12.6", (ORIN,), None), "Python package 'pycuda' is not insta"),
    ],
)
def test_tensorrt_needs_a_library_a_gpu_and_pycuda(
    monkeypatch: pytest.MonkeyPatch, there: set[str], cuda: Cuda, reason: str
) -> None:
    assert (_tensorrt(monkeypatch, there, cuda).reason or "").startswith(reason)
    assert registry.choose("trt-op20-fp16") is None


def test_tensorrt_is_chosen_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda("540", "12.6", (ORIN,), None)
    assert _tensorrt(monkeypatch, {"tensorrt", "pycuda"}, cuda).reason is None
    assert registry.choose("trt-op20-fp16") == "tensorrt"
    assert registry.choose("cpu-fp32") is None


def test_a_jetson_gets_its_tensorrt_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Jetson("Orin", "36.4.3", "6.2", "10.3", "0")
    monkeypatch.setattr(registry, "jetson", lambda _: board)
    assert _tensorrt(monkeypatch, set(), NO_GPU).reason == (
        "Python package 'tensorrt' is not installed; run: sudo apt install python3-libnvinfer"
    )


@pytest.mark.parametrize("name", ["tensorrt", None])
def test_tensorrt_without_a_gpu_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    monkeypatch.setattr(system, "cuda", lambda _: NO_GPU)
    with pytest.raises(EngineError, match=r"need an NVIDIA GPU.*libcuda.*--target cpu"):
        registry.open_backend(name, "trt-op20-fp16")
