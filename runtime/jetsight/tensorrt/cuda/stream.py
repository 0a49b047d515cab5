"""One stream for engines that run in turn, the scratch block they share, and how a run is made.

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
_SPIN_NS = (
    200_000  # a blocking wait wakes up tens of microseconds late; a short run is over by then
)
_SMALLEST_SCRATCH = 256
_LOGGER = logging.getLogger("jetsight")

# What a graph depends on: addresses, shapes, scratch block and stream, as one comparable value.
Parameters = tuple[object, ...]


class CudaQueue:
    """A stream and a scratch block on a device.

    Not thread-safe: everything on one queue is used by one thread at a time.

    Args:
        device: the GPU; stays the caller's.
        sync: how to wait for it. `"spin"` asks again and again: lowest latency, one core busy.
            `"block"` sleeps until the driver wakes the thread. `"hybrid"` spins for 0.2 ms first.
        clock: what time is, for `hybrid`.

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
            self.stream = device.create_stream()
            undo.callback(device.destroy_stream, self.stream)
            self._blocker = device.create_event(timing=False)
            undo.callback(device.destroy_event, self._blocker)
            undo.callback(self._free_scratch)
            self._owned = undo.pop_all()
        self._open = True

    def reserve(self, nbytes: int) -> None:
        """Make the scratch block at least that large; a larger one moves.

        Engines notice by `scratch_address`. If there is no memory, the old block is still there.

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
        address, self.scratch_address, self.scratch_bytes = self.scratch_address, 0, 0
        if address:
            self.drain()
            self.device.free(address)

    def wait(self) -> None:
        """Return when everything enqueued has finished; call it inside `with device:`."""
        device, stream = self.device, self.stream
        if self._sync != "block":
            until = self._clock.now_ns() + _SPIN_NS
            while self._sync == "spin" or self._clock.now_ns() < until:
                if device.is_done(stream):
                    return
        device.record(self._blocker, stream)
        device.wait(self._blocker)

    def drain(self) -> None:
        """Wait before something is freed, in case a run was interrupted or never made."""
        # A GPU that failed has no work left. Its driver's own errors become ours at the inner exit.
        with suppress(EngineError), self.device:
            self.wait()

    def close(self) -> None:
        """Release scratch, event and stream, in this order. Idempotent."""
        if self._open:
            self._open = False
            with self.device:
                self._owned.close()


def checked_sync(sync: str) -> str:
    """`sync`, if it is one of the modes.

    Raises:
        UsageError: it is not.
    """
    if sync not in SYNC_MODES:
        raise UsageError(f"sync is {sync!r}; choose one of {', '.join(map(repr, SYNC_MODES))}")
    return sync


class Runner:
    """Runs one piece of work again and again: as a CUDA graph as soon as that is possible.

    The first run with new parameters is plain, because libraries finish preparing in it what
    cannot be captured. The second is captured and launched, later ones only launched. If capturing
    or launching fails, all further runs are plain, and `problem` says why.

    Args:
        queue: where to run.
        graphs: whether to try graphs at all.
        timing: whether to measure every run with events.

    Attributes:
        problem: why no graph is used; None while there is no reason.
        device_ms: how long the GPU took for the last run; None without timing.
    """

    def __init__(self, queue: CudaQueue, *, graphs: bool, timing: bool) -> None:
        self._queue = queue
        self.problem = None if graphs else "CUDA graphs were switched off"
        self.device_ms: float | None = None
        self._graph = 0
        self._captured: Parameters | None = None  # what the graph was captured with
        self._warm: Parameters | None = None  # what the last plain run was made with
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
            parameters: everything the work depends on that a graph would freeze.
            enqueue: puts the work on the stream.

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
                with suppress(EngineError):  # the stream has to leave capture mode all the same
                    device.destroy_graph(device.end_capture(stream))
                raise
            self._graph = device.end_capture(stream)
            self._captured = parameters
        except Exception as error:  # what the bindings below raise shares no base
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.drop_graph()
        self.problem = first_line(error)
        _LOGGER.warning("no CUDA graph, every kernel is launched on its own: %s", self.problem)

    def drop_graph(self) -> None:
        """Forget the graph; the next run captures it again, or is plain."""
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
