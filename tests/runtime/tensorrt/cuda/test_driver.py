"""The PyCUDA device against a PyCUDA made of Python: contexts, memory, errors and the way out."""

from __future__ import annotations

import ast
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetsight.errors import EngineError, MissingDependency
from jetsight.tensorrt.cuda import driver as cuda_module
from jetsight.tensorrt.cuda.driver import PyCudaDevice, require_pycuda
from jetsight.tensorrt.cuda.stream import CudaQueue
from jetsight.testing import FakeClock

# Every name of PyCUDA that is used; each was found in the sources of 2024.1 and 2026.1.
PYCUDA = {
    "Device",
    "Error",
    "Event",
    "MemoryError",
    "Stream",
    "device_attribute",
    "device_attribute.INTEGRATED",
    "init",
    "mem_alloc",
    "mem_get_info",
    "memcpy_dtod_async",
    "memcpy_dtoh_async",
    "memcpy_htod_async",
    "pagelocked_empty",
}


class Thing:
    """A PyCUDA object: an allocation, a stream or an event."""

    def __init__(self, log: list[str], name: str, handle: int = 7) -> None:
        self.log, self.name, self.handle = log, name, handle
        log.append(f"new {name}")

    def __int__(self) -> int:
        return self.handle

    def get_device_pointer(self) -> int:
        return self.handle + 1

    def free(self) -> None:
        self.log.append(f"free {self.name}")

    def record(self, stream: Thing) -> None:
        self.log.append(f"record {self.name} on {stream.name}")

    def synchronize(self) -> None:
        self.log.append(f"synchronize {self.name}")

    def time_till(self, stop: Thing) -> float:
        return 2.5

    def __del__(self) -> None:
        self.log.append(f"drop {self.name}")


class PyCuda(types.ModuleType):
    """`pycuda.driver` with one GPU, which notes what is done with it."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def __init__(self, *, integrated: bool = True, gpus: int = 1) -> None:
        super().__init__("pycuda.driver")
        self.log: list[str] = []
        self.stack: list[Any] = []
        self.full = False
        self._integrated, self._gpus = integrated, gpus
        self.device_attribute = types.SimpleNamespace(INTEGRATED="integrated")
        self.Stream = lambda flags: Thing(self.log, f"stream {flags}", handle=0xFFFF_0000_0001)
        self.Event = lambda flags: Thing(self.log, f"event {flags}")

    def init(self) -> None:
        pass

    def Device(self, ordinal: int) -> Any:
        if ordinal >= self._gpus:
            raise self.Error("cuDeviceGet failed: invalid device ordinal")
        return types.SimpleNamespace(
            get_attribute=lambda name: self._integrated,
            retain_primary_context=lambda: Context(self),
        )

    def mem_get_info(self) -> tuple[int, int]:
        return 1000, 8000

    def mem_alloc(self, nbytes: int) -> Thing:
        if self.full:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        return Thing(self.log, f"memory {nbytes}")

    def pagelocked_empty(self, nbytes: int, dtype: type, mem_flags: int) -> Any:
        if self.full:
            raise self.MemoryError("cuMemHostAlloc failed: out of memory")
        base = Thing(self.log, f"host {nbytes} flags {mem_flags}")
        return types.SimpleNamespace(base=base, nbytes=nbytes)

    def memcpy_htod_async(self, address: int, host: Any, stream: Thing) -> None:
        raise self.Error("cuMemcpyHtoDAsync failed: an illegal memory access\nwas encountered")


class Context:
    """A primary context on the stack of a PyCuda."""

    handle = 0x77

    def __init__(self, pycuda: PyCuda) -> None:
        self.pycuda = pycuda
        pycuda.log.append("retain")

    def push(self) -> None:
        self.pycuda.stack.append(self)

    def pop(self) -> None:
        self.pycuda.stack.pop()

    def detach(self) -> None:
        self.pycuda.stack.pop()
        self.pycuda.log.append("release")


class NoGraphs:
    """In place of `GraphDriver`."""

    def forget_context(self, context: int) -> None:
        assert context == Context.handle


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> PyCuda:
    driver, package = PyCuda(), types.ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(cuda_module, "GraphDriver", NoGraphs)
    return driver


def test_the_context_is_current_only_inside(pycuda: PyCuda) -> None:
    device = PyCudaDevice()
    assert device.integrated
    assert pycuda.stack == []
    with device, device:
        assert len(pycuda.stack) == 2
    with pytest.raises(KeyboardInterrupt), device:
        raise KeyboardInterrupt
    assert pycuda.stack == []  # PyCUDA aborts the process at its end otherwise
    device.close()
    device.close()
    assert pycuda.log == ["retain", "release"]
    with pytest.raises(EngineError, match="the GPU was closed"), device:
        pass


def test_a_device_that_is_closed_inside_or_forgotten_releases_its_context(pycuda: PyCuda) -> None:
    device = PyCudaDevice()
    with device:
        device.create_event(timing=False)
        device.close()
    device = PyCudaDevice()
    del device
    assert pycuda.log.count("release") == pycuda.log.count("retain") == 2
    assert "drop event 3" in pycuda.log


def test_memory_is_mapped_streams_are_non_blocking_and_events_block(pycuda: PyCuda) -> None:
    device = PyCudaDevice()
    with device:
        address = device.allocate(16, "x")
        host = device.allocate_host(8, "y")
        stream, event = device.create_stream(), device.create_event(timing=True)
        device.record(event, stream)
        device.wait(event)
        assert (address, host.address, stream) == (7, 8, 0xFFFF_0000_0001)
        assert device.elapsed_ms(event, event) == 2.5
        device.destroy_event(event)
        device.destroy_stream(stream)
        device.free_host(host)
        device.free(address)
    assert [line for line in pycuda.log if line[:4] in ("new ", "free")] == [
        "new memory 16",
        "new host 8 flags 2",
        "new stream 1",
        "new event 1",
        "free host 8 flags 2",
        "free memory 16",
    ]
    assert "record event 1 on stream 1" in pycuda.log
    assert "synchronize event 1" in pycuda.log


def test_memory_that_is_not_there_is_counted(pycuda: PyCuda) -> None:
    pycuda.full = True
    device = PyCudaDevice()
    message = r"no memory for frame: 50 bytes needed, 1000 of 8000 free; close other programs"
    with device:
        with pytest.raises(EngineError, match=message):
            device.allocate(50, "frame")
        with pytest.raises(EngineError, match=message):
            device.allocate_host(50, "frame")


def test_errors_of_the_driver_are_one_line(pycuda: PyCuda) -> None:
    device = PyCudaDevice()
    with device:
        stream = device.create_stream()
    with pytest.raises(EngineError, match="driver failed: cuMemcpyHtoDAsync failed") as caught:  # noqa: SIM117
        with device:
            device.upload(7, np.zeros(4, np.uint8), stream)
    assert "\n" not in str(caught.value)
    assert pycuda.stack == []
    with pytest.raises(EngineError, match=r"GPU 4 cannot be opened: cuDeviceGet failed"):
        PyCudaDevice(4)


def test_a_failed_gpu_keeps_nothing_from_being_released(pycuda: PyCuda, monkeypatch) -> None:
    device = PyCudaDevice()
    queue = CudaQueue(device, "block", FakeClock())
    queue.reserve(1000)

    def fail(event: Thing, stream: Thing) -> None:
        raise PyCuda.Error("cuEventRecord failed: an illegal memory access was encountered")

    monkeypatch.setattr(Thing, "record", fail)
    queue.close()
    device.close()
    assert pycuda.log.count("free memory 1000") == 1
    assert "drop stream 1" in pycuda.log
    assert pycuda.log[-1] == "release"
    assert pycuda.stack == []


def test_what_is_no_error_of_the_driver_passes_as_it_is(pycuda: PyCuda) -> None:
    with pytest.raises(ZeroDivisionError), PyCudaDevice():
        _ = 1 / 0


def test_pycuda_that_is_missing_or_broken_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'jetsight\[jetson\]'"):
        require_pycuda()


@pytest.mark.parametrize(
    "line",
    [
        "raise ImportError('libcuda.so.1: cannot open shared object file')",
        "import a_module_that_pycuda_lacks",
    ],
)
def test_pycuda_that_does_not_load_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("")
    (tmp_path / "pycuda" / "driver.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(EngineError, match=r"PyCUDA is installed but does not load \("):
        require_pycuda()
    for name in ("pycuda", "pycuda.driver"):
        sys.modules.pop(name, None)


def _used_of_pycuda(source: str) -> set[str]:
    """Names used of `cuda` and `self._cuda`, dotted where they are nested."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node)
            for root in ("cuda.", "self._cuda."):
                if path.startswith(root) and "(" not in path:
                    found.add(path.removeprefix(root))
    return found


def test_only_names_that_pycuda_has_are_used() -> None:
    source = Path(cuda_module.__file__).read_text()
    assert _used_of_pycuda(source) == PYCUDA
    assert _used_of_pycuda("cuda.Graph().launch()") == {"Graph"}  # negative control
