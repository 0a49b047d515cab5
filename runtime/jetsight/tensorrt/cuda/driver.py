"""Interface to the CUDA driver, implemented with PyCUDA.

Addresses, streams, events and graphs are integers. `jetsight.testing.FakeDevice` implements the
interface in host memory, so that all users of it run without a GPU.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import EngineError, MissingDependency, first_line
from jetsight.machine import system
from jetsight.tensorrt.cuda.graphs import GraphDriver

_NON_BLOCKING = 1  # CUstream_flags: does not wait for the legacy default stream; needed to capture
_MAPPED = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_BLOCKING_SYNC, _DISABLE_TIMING = 1, 2  # CUevent_flags


@dataclass(frozen=True, eq=False)
class HostMemory:
    """Page-locked host memory that the GPU can reach.

    Attributes:
        array: its bytes, uint8 [n].
        address: address on the GPU.
    """

    array: NDArray
    address: int


class Device(Protocol):
    """One GPU. Every call must be inside `with device:`, which makes its context current.

    Work on a stream runs in order and asynchronously; memory must not be freed before it is done.
    """

    @property
    def integrated(self) -> bool:
        """The GPU shares the board's memory with the processor."""
        ...

    def __enter__(self) -> Device:
        """Make the context current in this thread; may be nested."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore what was current; errors of the driver become `EngineError`."""
        ...

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        ...

    def allocate(self, nbytes: int, what: str) -> int:
        """Allocate GPU memory, aligned to 256 bytes; `EngineError` names `what` and the bytes."""
        ...

    def free(self, address: int) -> None:
        """Release what `allocate` returned."""
        ...

    def allocate_host(self, nbytes: int, what: str) -> HostMemory:
        """Allocate page-locked, mapped host memory; `EngineError` names `what` and the bytes."""
        ...

    def free_host(self, memory: HostMemory) -> None:
        """Release what `allocate_host` returned; its array must not be used any more."""
        ...

    def upload(self, address: int, host: NDArray, stream: int) -> None:
        """Enqueue a copy of page-locked bytes to the GPU."""
        ...

    def download(self, host: NDArray, address: int, stream: int) -> None:
        """Enqueue a copy from the GPU to page-locked bytes."""
        ...

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Enqueue a copy from one GPU address to another."""
        ...

    def create_stream(self) -> int:
        """Make a stream that does not wait for the default one."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Release a stream."""
        ...

    def is_done(self, stream: int) -> bool:
        """Return whether all work of a stream has finished, without holding the GIL."""
        ...

    def create_event(self, *, timing: bool) -> int:
        """Make an event whose `wait` blocks the thread instead of spinning."""
        ...

    def destroy_event(self, event: int) -> None:
        """Release an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let `event` happen when the work enqueued so far has finished."""
        ...

    def wait(self, event: int) -> None:
        """Block until `event` has happened."""
        ...

    def elapsed_ms(self, start: int, stop: int) -> float:
        """Milliseconds between two events that have happened."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Collect what is enqueued on `stream` instead of running it."""
        ...

    def end_capture(self, stream: int) -> int:
        """Leave capture mode, and return a graph; `EngineError` if it cannot be captured."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None:
        """Enqueue all work of a graph with one call."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Release a graph."""
        ...

    def close(self) -> None:
        """Release all allocations, then the context. Idempotent."""
        ...


def out_of_memory(what: str, needed: int, free: int, total: int) -> EngineError:
    """Make the error for memory that a GPU does not have."""
    return EngineError(
        f"the GPU has no memory for {what}: {needed} bytes needed, {free} of {total} free; close "
        "other programs that use it, or run a smaller model"
    )


def require_pycuda() -> Any:
    """Import `pycuda.driver`, without initialising the GPU.

    Raises:
        MissingDependency: PyCUDA is not installed.
        EngineError: it is, but does not load.
    """
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as error:
        # PyCUDA is there, a module that it imports is not.
        if (error.name or "").partition(".")[0] not in ("pycuda", ""):
            raise _unusable(error) from error
        raise MissingDependency("pycuda", "jetson", "running on an NVIDIA GPU") from None
    except (ImportError, OSError) as error:
        raise _unusable(error) from error
    return cuda


def require_gpu() -> None:
    """Raise early, and without allocating anything, the error that opening a GPU would raise.

    Raises:
        EngineError: there is no GPU, or PyCUDA does not load.
        MissingDependency: PyCUDA is not installed.
    """
    gpus = system.cuda(Path("/"))
    if not gpus.devices:
        raise EngineError(
            f"families 'trt-*' need an NVIDIA GPU, and none can be used here ({gpus.problem}); "
            "choose another --family, or compile the bundle with --target cpu"
        )
    require_pycuda()


def _unusable(error: BaseException) -> EngineError:
    return EngineError(
        f"PyCUDA is installed but does not load ({first_line(error)}); if the NVIDIA driver is "
        "there, build it for this CUDA: pip install --force-reinstall --no-cache-dir pycuda"
    )


class PyCudaDevice:
    """GPU through PyCUDA, on the primary context, which TensorRT and others use too.

    The context is current only inside `with device:`. So PyCUDA's stack of contexts is empty at the
    end of the program; otherwise PyCUDA aborts the process.

    Args:
        ordinal: number of the GPU.

    Raises:
        MissingDependency: PyCUDA is not installed.
        EngineError: there is no GPU, or its driver cannot be used.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._cuda = cuda = require_pycuda()
        self._driver = GraphDriver()  # before the context, which an error would leave open
        try:
            cuda.init()
            gpu = cuda.Device(ordinal)
            self._integrated = bool(gpu.get_attribute(cuda.device_attribute.INTEGRATED))
            self._context = gpu.retain_primary_context()
        except cuda.Error as error:
            raise EngineError(
                f"GPU {ordinal} cannot be opened: {first_line(error)}; see: jetsight doctor"
            ) from error
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._memory: dict[int, Any] = {}
        self._next_event = itertools.count(1)
        # The finalizer gets the dictionaries: a reference to self would keep the device alive.
        owned = (self._events, self._streams, self._memory)
        # Also runs when the program ends without `close`, before the modules are torn down.
        self._finalizer = weakref.finalize(self, _release, cuda, self._driver, self._context, owned)

    @property
    def integrated(self) -> bool:
        """The GPU shares the board's memory with the processor."""
        return self._integrated

    def __enter__(self) -> PyCudaDevice:
        """Make the context current in this thread; may be nested."""
        if not self._finalizer.alive:
            raise EngineError("the GPU was closed and cannot be used; open it again")
        self._context.push()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore what was current; errors of the driver become `EngineError`."""
        if self._finalizer.alive:  # else `close` inside the block has released it
            self._context.pop()
        if isinstance(error, self._cuda.Error):
            raise EngineError(f"the CUDA driver failed: {first_line(error)}") from error

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, nbytes: int, what: str) -> int:
        """Allocate GPU memory."""
        try:
            memory = self._cuda.mem_alloc(nbytes)
        except self._cuda.MemoryError:
            raise out_of_memory(what, nbytes, *self.memory_info()) from None
        address = int(memory)
        self._memory[address] = memory  # PyCUDA frees it with its last reference
        return address

    def free(self, address: int) -> None:
        """Release what `allocate` returned."""
        self._memory.pop(address).free()

    def allocate_host(self, nbytes: int, what: str) -> HostMemory:
        """Allocate page-locked, mapped host memory."""
        try:
            array = self._cuda.pagelocked_empty(nbytes, np.uint8, mem_flags=_MAPPED)
        except self._cuda.MemoryError:
            raise out_of_memory(what, nbytes, *self.memory_info()) from None
        return HostMemory(array, int(array.base.get_device_pointer()))

    def free_host(self, memory: HostMemory) -> None:
        """Release what `allocate_host` returned."""
        base: Any = memory.array.base
        base.free()  # at once, even if a view of the array is still referred to

    def upload(self, address: int, host: NDArray, stream: int) -> None:
        """Enqueue a copy of page-locked bytes to the GPU."""
        self._cuda.memcpy_htod_async(address, host, self._streams[stream])

    def download(self, host: NDArray, address: int, stream: int) -> None:
        """Enqueue a copy from the GPU to page-locked bytes."""
        self._cuda.memcpy_dtoh_async(host, address, self._streams[stream])

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Enqueue a copy from one GPU address to another."""
        self._cuda.memcpy_dtod_async(target, source, nbytes, self._streams[stream])

    def create_stream(self) -> int:
        """Make a stream that does not wait for the default one."""
        stream = self._cuda.Stream(_NON_BLOCKING)
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def destroy_stream(self, stream: int) -> None:
        """Release a stream."""
        del self._streams[stream]  # PyCUDA destroys it with its last reference

    def is_done(self, stream: int) -> bool:
        """Return whether all work of a stream has finished."""
        return self._driver.is_done(stream)  # PyCUDA's own query holds the GIL

    def create_event(self, *, timing: bool) -> int:
        """Make an event whose `wait` blocks the thread instead of spinning."""
        event = self._cuda.Event(_BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING))
        number = next(self._next_event)
        self._events[number] = event
        return number

    def destroy_event(self, event: int) -> None:
        """Release an event."""
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        """Let `event` happen when the work enqueued so far has finished."""
        self._events[event].record(self._streams[stream])

    def wait(self, event: int) -> None:
        """Block until `event` has happened."""
        self._events[event].synchronize()

    def elapsed_ms(self, start: int, stop: int) -> float:
        """Milliseconds between two events that have happened."""
        return float(self._events[start].time_till(self._events[stop]))

    def begin_capture(self, stream: int) -> None:
        """Collect what is enqueued on `stream` instead of running it."""
        self._driver.begin_capture(stream)

    def end_capture(self, stream: int) -> int:
        """Leave capture mode, and return a graph."""
        return self._driver.end_capture(stream)

    def launch_graph(self, graph: int, stream: int) -> None:
        """Enqueue all work of a graph with one call."""
        self._driver.launch(graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Release a graph."""
        self._driver.destroy(graph)

    def close(self) -> None:
        """Release the context."""
        self._finalizer()


def _release(
    cuda: Any, driver: GraphDriver, context: Any, owned: tuple[dict[int, Any], ...]
) -> None:
    """Release all objects, then the reference to the primary context."""
    handle = int(context.handle)
    try:
        context.push()  # PyCUDA releases only objects whose context is current in the thread
        for objects in owned:
            objects.clear()
        context.detach()
    except cuda.Error:
        pass  # the GPU failed before; at the end of a program there is no caller to report to
    finally:
        driver.forget_context(handle)
