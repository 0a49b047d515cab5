"""Stream and scratch block of engines that run in turn, and their replay as CUDA graphs.

A CUDA graph freezes what it was captured with. `Runner` keeps those parameters beside the graph
and compares them before every replay: a graph whose addresses have changed is never launched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress

from jetsight.clock import Clock
from jetsight.errors import EngineError, UsageError, first_line
from jetsight.tensorrt.cuda.driver import Device

SYNC_MODES = ("spin", "block", "hybrid")
# A blocking wait wakes up tens of microseconds late; a short run has finished by then.
_SPIN_NS = 200_000
_SMALLEST_SCRATCH = 256
_LOGGER = logging.getLogger("jetsight")

# Addresses, shapes, scratch block and stream of a graph, as one comparable value.
Parameters = tuple[object, ...]


class CudaQueue:
    """Stream and scratch block on a device.

    Not thread-safe: everything on one queue is used by one thread at a time.

    Args:
        device: the GPU, owned by the caller.
        sync: mode of waiting for it. `"spin"` polls: lowest latency, one core busy. `"block"`
            sleeps until the driver wakes the thread. `"hybrid"` polls for 0.2 ms first.
        clock: clock of `"hybrid"`.

    Raises:
        UsageError: no such mode.
        EngineError: the GPU refuses a stream.
    """

    def __init__(self, device: Device, sync: str, clock: Clock) -> None:
        self.device = device
        self._sync = checked_sync(sync)
        self._clock = clock
        self.scratch_address = self.scratch_bytes = 0
        with device, ExitStack() as undo:
            self.stream = device.create_stream()  # released last, as undo runs in reverse
            undo.callback(device.destroy_stream, self.stream)
            self._blocker = device.create_event(timing=False)
            undo.callback(device.destroy_event, self._blocker)
            undo.callback(self._free_scratch)
            self._owned = undo.pop_all()
        self._open = True

    def reserve(self, nbytes: int) -> None:
        """Make the scratch block at least that large; growing changes its address.

        Without memory the old block stays valid.

        Raises:
            EngineError: out of memory.
        """
        nbytes = max(nbytes, _SMALLEST_SCRATCH)
        if nbytes > self.scratch_bytes:
            with self.device:
                address = self.device.allocate(nbytes, "scratch of the engines")
                self._free_scratch()
                self.scratch_address, self.scratch_bytes = address, nbytes

    def _free_scratch(self) -> None:
        # Cleared first: an error below must not lead to a second free.
        address, self.scratch_address, self.scratch_bytes = self.scratch_address, 0, 0
        if address:
            self.drain()
            self.device.free(address)

    def wait(self) -> None:
        """Wait until all enqueued work has finished; call it inside `with device:`."""
        device, stream = self.device, self.stream
        if self._sync != "block":
            until = self._clock.now_ns() + _SPIN_NS
            while self._sync == "spin" or self._clock.now_ns() < until:
                if device.is_done(stream):
                    return
        # Recorded only here: most waits have ended in the loop above.
        device.record(self._blocker, stream)
        device.wait(self._blocker)

    def drain(self) -> None:
        """Wait before memory is freed, in case a run was interrupted."""
        # A GPU that failed has no work left. The driver's errors become `EngineError` at the inner
        # exit.
        with suppress(EngineError), self.device:
            self.wait()

    def close(self) -> None:
        """Release scratch, event and stream, in this order. Idempotent."""
        if self._open:
            self._open = False  # first: a release that fails is not tried twice
            with self.device:
                self._owned.close()


def checked_sync(sync: str) -> str:
    """Return `sync` if it is one of the modes.

    Raises:
        UsageError: it is not.
    """
    if sync not in SYNC_MODES:
        raise UsageError(f"sync is {sync!r}; choose one of {', '.join(map(repr, SYNC_MODES))}")
    return sync


class Runner:
    """Repeated runs of the same work, as a CUDA graph as soon as possible.

    The first run with new parameters is plain, because libraries finish preparations in it that
    cannot be captured. The second is captured and launched, later ones only launched. If capturing
    or launching fails, all further runs are plain, and `problem` is the reason.

    Args:
        queue: stream of the runs.
        graphs: try CUDA graphs.
        timing: measure every run with events.

    Attributes:
        problem: why no graph is used; None without a reason.
        device_ms: GPU time of the last run; None without timing.
    """

    def __init__(self, queue: CudaQueue, *, graphs: bool, timing: bool) -> None:
        self._queue = queue
        self.problem = None if graphs else "CUDA graphs were switched off"
        self.device_ms: float | None = None
        self._graph = 0
        self._captured: Parameters | None = None  # parameters of the graph
        self._warm: Parameters | None = None  # parameters of the last plain run
        self._events: tuple[int, int] | None = None
        with queue.device as device, ExitStack() as undo:
            undo.callback(self.drop_graph)
            if timing:
                start = device.create_event(timing=True)
                undo.callback(device.destroy_event, start)
                stop = device.create_event(timing=True)
                undo.callback(device.destroy_event, stop)
                self._events = start, stop
            self._owned = undo.pop_all()
        self._open = True

    @property
    def replays(self) -> bool:
        """True if the last run was a graph."""
        return self._graph != 0

    def run(self, parameters: Parameters, enqueue: Callable[[], None]) -> None:
        """Do the work and wait for it; call it inside `with device:`.

        Args:
            parameters: all parameters of the work that a graph freezes.
            enqueue: enqueues the work on the stream.

        Raises:
            EngineError: the work cannot be enqueued, or failed.
        """
        queue, device = self._queue, self._queue.device
        if self._events is None:
            self._submit(parameters, enqueue)
            queue.wait()
            return
        start, stop = self._events
        device.record(start, queue.stream)
        self._submit(parameters, enqueue)
        device.record(stop, queue.stream)
        queue.wait()
        self.device_ms = device.elapsed_ms(start, stop)

    def _submit(self, parameters: Parameters, enqueue: Callable[[], None]) -> None:
        if parameters != self._captured:
            self.drop_graph()
            if parameters == self._warm and self.problem is None:
                self._capture(parameters, enqueue)
        # Also right after a capture, which collects the work without running it.
        if self._graph:
            try:
                self._queue.device.launch_graph(self._graph, self._queue.stream)
                return
            except EngineError as error:
                self._give_up(error)
        enqueue()
        self._warm = parameters

    def _capture(self, parameters: Parameters, enqueue: Callable[[], None]) -> None:
        device, stream = self._queue.device, self._queue.stream
        try:
            device.begin_capture(stream)
            try:
                enqueue()
            except BaseException:
                with suppress(EngineError):  # the stream must leave capture mode in any case
                    device.destroy_graph(device.end_capture(stream))
                raise
            self._graph = device.end_capture(stream)
            self._captured = parameters
        except Exception as error:  # the exceptions of the bindings share no base
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.drop_graph()
        self.problem = first_line(error)
        _LOGGER.warning("no CUDA graph, every kernel is launched on its own: %s", self.problem)

    def drop_graph(self) -> None:
        """Release the graph; the next run captures it again, or is plain."""
        graph, self._graph, self._captured = self._graph, 0, None
        if graph:
            with self._queue.device as device:
                device.destroy_graph(graph)

    def close(self) -> None:
        """Release events and graph. Idempotent."""
        if self._open:
            self._open = False
            with self._queue.device:
                self._owned.close()
