"""A GPU in host memory: it counts and records, fails on request, and runs its work late.

Work on a stream is only done when a caller waits for that stream, as late as a real GPU may: code
that reads a result too early, or frees memory too early, is found out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import EngineError
from jetsight.tensorrt.cuda.driver import HostMemory, out_of_memory

_ALIGNMENT = 256
_TOTAL_BYTES = 1 << 30


class FakeDevice:
    """A `jetsight.tensorrt.cuda.driver.Device` without a GPU.

    Args:
        integrated: pretend to share memory with the processor, as a Jetson does.
        total_bytes: memory it has; host memory counts too.
        fail_at: which allocation (memory, stream, event, graph; counted from 0) to refuse.
        refuse: names of calls that fail, e.g. `{"begin_capture"}`; may be changed at any time.
        busy_polls: how often `is_done` says no before the work is done.
        record: keep `calls`; off where memory is measured.

    Attributes:
        calls: every call in order, as `"name subject"`.
        asked: number of allocations requested; `fail_at` from 0 to one less covers every failure.
        running: how often work was done on it, whether enqueued or replayed.
        closed: whether it was closed.

    Example: nothing may be left behind.
        >>> with FakeDevice() as device:
        ...     address = device.allocate(16, "weights")
        >>> device.live
        ['memory 0: weights']
    """

    def __init__(
        self,
        *,
        integrated: bool = False,
        total_bytes: int = _TOTAL_BYTES,
        fail_at: int | None = None,
        refuse: Collection[str] = (),
        busy_polls: int = 0,
        record: bool = True,
    ) -> None:
        self._integrated, self._total = integrated, total_bytes
        self.fail_at, self.refuse = fail_at, set(refuse)
        self.calls: list[str] = []
        self.running = 0
        self.closed = False
        self._record, self._busy_polls, self._polls = record, busy_polls, 0
        self.asked = 0
        self._names: dict[int, str] = {}  # handle to the name of what is live
        self._memory: dict[int, NDArray] = {}
        self._pending: dict[int, list[Callable[[], None]]] = {}
        self._captures: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._stamps: dict[int, int | None] = {}
        self._handles = itertools.count(1)
        self._depth = 0

    @property
    def integrated(self) -> bool:
        """Properties of the pretended GPU."""
        return self._integrated

    @property
    def live(self) -> list[str]:
        """Resources taken and not yet released, in order."""
        return list(self._names.values())

    def __enter__(self) -> FakeDevice:
        """Allow calls."""
        if self.closed:
            raise EngineError("the GPU was closed and cannot be used; open it again")
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Allow no calls any more, unless nested."""
        self._depth -= 1

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        self._note("memory_info")
        return self._free_bytes(), self._total

    def _free_bytes(self) -> int:
        return self._total - sum(memory.nbytes for memory in self._memory.values())

    def allocate(self, nbytes: int, what: str) -> int:
        """Memory, filled with 0xA5 so that no code relies on zeros."""
        return self._take(nbytes, what, "memory")

    def free(self, address: int) -> None:
        """Release memory."""
        self._drop("free", address)
        del self._memory[address]

    def allocate_host(self, nbytes: int, what: str) -> HostMemory:
        """Memory that both sides reach."""
        address = self._take(nbytes, what, "host memory")
        return HostMemory(self._memory[address], address)

    def free_host(self, memory: HostMemory) -> None:
        """Release memory."""
        self._drop("free_host", memory.address)
        del self._memory[memory.address]

    def view(self, address: int, nbytes: int) -> NDArray:
        """Return the bytes at an address, as a kernel sees them.

        Raises:
            EngineError: they are not inside one live allocation.
        """
        for start, memory in self._memory.items():
            if start <= address and address + nbytes <= start + memory.nbytes:
                return memory[address - start : address - start + nbytes]
        raise EngineError(f"illegal address: {nbytes} bytes at {address:#x} are not allocated")

    def upload(self, address: int, host: NDArray, stream: int) -> None:
        """Enqueue a copy."""
        self._note("upload", address)
        # Only the address is kept, as on a GPU: host memory that is changed too early shows.
        source, nbytes = host.ctypes.data, host.nbytes
        self._enqueue(stream, lambda: self._copy(address, source, nbytes))

    def download(self, host: NDArray, address: int, stream: int) -> None:
        """Enqueue a copy."""
        self._note("download", address)
        target, nbytes = host.ctypes.data, host.nbytes
        self._enqueue(stream, lambda: self._copy(target, address, nbytes))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Enqueue a copy."""
        self._note("copy", target)
        self._enqueue(stream, lambda: self._copy(target, source, nbytes))

    def _copy(self, target: int, source: int, nbytes: int) -> None:
        self.view(target, nbytes)[...] = self.view(source, nbytes)

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        """Enqueue a piece of work, as a kernel launch does."""
        self._note("submit", stream)

        def counted() -> None:
            self.running += 1
            work()

        self._enqueue(stream, counted)

    def create_stream(self) -> int:
        """Create a stream."""
        stream = self._handle("create_stream", "stream", "")
        self._pending[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        """Release a stream; what is still enqueued on it is an error."""
        self._drop("destroy_stream", stream)
        if self._pending.pop(stream):
            raise EngineError("a stream was destroyed with work on it")

    def is_done(self, stream: int) -> bool:
        """Do the work of a stream, after saying no `busy_polls` times."""
        self._note("is_done", stream)
        self._polls += 1
        if self._polls <= self._busy_polls:
            return False
        self._flush(stream)
        return True

    def create_event(self, *, timing: bool) -> int:
        """Create an event."""
        event = self._handle("create_event", "event", "timing" if timing else "")
        self._stamps[event] = None
        return event

    def destroy_event(self, event: int) -> None:
        """Release an event."""
        self._drop("destroy_event", event)
        del self._stamps[event]

    def record(self, event: int, stream: int) -> None:
        """Enqueue an event; it notes how much work was done before it."""
        self._note("record", event)
        self._enqueue(stream, lambda: self._stamps.__setitem__(event, self.running))

    def wait(self, event: int) -> None:
        """Do the work of every stream."""
        self._note("wait", event)
        for stream in self._pending:
            self._flush(stream)
        if self._stamps[event] is None:
            raise EngineError("waited for an event that was never recorded")

    def elapsed_ms(self, start: int, stop: int) -> float:
        """One millisecond for each piece of work between two events."""
        self._note("elapsed_ms")
        first, last = self._stamps[start], self._stamps[stop]
        if first is None or last is None:
            raise EngineError("asked for the time of an event that has not happened")
        return float(last - first)

    def begin_capture(self, stream: int) -> None:
        """Collect work."""
        self._note("begin_capture", stream)
        self._captures[stream] = []

    def end_capture(self, stream: int) -> int:
        """Work that can be launched again and again, with the addresses it has now."""
        work = self._captures.pop(stream)
        graph = self._handle("end_capture", "graph", "")
        self._graphs[graph] = work
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        """Enqueue all the work in a graph."""
        self._note("launch_graph", graph)
        for work in self._graphs[graph]:
            self._enqueue(stream, work)

    def destroy_graph(self, graph: int) -> None:
        """Release a graph."""
        self._drop("destroy_graph", graph)
        del self._graphs[graph]

    def close(self) -> None:
        """Refuse every call from now on."""
        self.closed = True

    def _enqueue(self, stream: int, work: Callable[[], None]) -> None:
        (self._captures if stream in self._captures else self._pending)[stream].append(work)
        self._polls = 0

    def _flush(self, stream: int) -> None:
        if stream in self._captures:
            raise EngineError("a stream that is being captured cannot be waited for")
        # Taken out first, so that work that raises is not done again by the next wait.
        pending, self._pending[stream] = self._pending[stream], []
        for work in pending:
            work()

    def _take(self, nbytes: int, what: str, kind: str) -> int:
        self._note("allocate" if kind == "memory" else "allocate_host", what)
        free = self._free_bytes()
        if nbytes <= 0:
            raise EngineError(f"{what}: {nbytes} bytes cannot be allocated")
        try:
            number = self._refusable()
        except EngineError:
            # A scripted failure looks like memory that ran out, with the same message.
            free = 0
        if nbytes > free:
            raise out_of_memory(what, nbytes, free, self._total)
        # Not zeros, so that code which relies on cleared memory is found out.
        raw: NDArray = np.full(nbytes + _ALIGNMENT, 0xA5, np.uint8)
        # NumPy aligns less than a GPU does.
        start = -raw.ctypes.data % _ALIGNMENT
        memory = raw[start : start + nbytes]
        self._memory[memory.ctypes.data] = memory
        self._names[memory.ctypes.data] = f"{kind} {number}: {what}"
        return int(memory.ctypes.data)

    def _handle(self, call: str, kind: str, what: str) -> int:
        self._note(call, what)
        number = self._refusable()
        handle = next(self._handles)
        self._names[handle] = f"{kind} {number}{f': {what}' if what else ''}"
        return handle

    def _refusable(self) -> int:
        number, self.asked = self.asked, self.asked + 1
        if number == self.fail_at:
            raise EngineError(f"thing {number} was refused as the script says")
        return number

    def _drop(self, call: str, handle: int) -> None:
        self._note(call, self._names.get(handle, "what is not live"))
        if self._names.pop(handle, None) is None:
            raise EngineError(f"{call} of what is not live")

    def _note(self, call: str, subject: Any = "") -> None:
        if self._depth < 1:
            raise EngineError(f"{call} was called outside `with device:`")
        if self._record:
            self.calls.append(f"{call} {subject}".rstrip())
        if call in self.refuse:
            raise EngineError(f"{call} was refused as the script says")
