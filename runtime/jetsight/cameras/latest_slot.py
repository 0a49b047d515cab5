"""Exchange of frames between camera thread and loop: bounded, newest wins, drops counted.

Shapes: h, w frame size; n steps; a size of one robot action.
"""

from __future__ import annotations

import threading

import numpy as np

from jetsight.cameras.source import Reading, StreamRequest
from jetsight.engine import NDArray
from jetsight.stream.frames import Frame
from jetsight.stream.history import ActionLog

_LOG_TICKS = 256  # actions kept while the loop does not take frames


class _Buffer:
    """One preallocated frame with room for its state and the actions around it."""

    __slots__ = ("actions", "frame", "plan", "state")

    def __init__(self, request: StreamRequest) -> None:
        self.frame = Frame(np.zeros(request.frame_shape, np.uint8))
        self.state = np.zeros(len(request.state_names), np.float32)
        self.actions = np.zeros((_LOG_TICKS, request.step_size), np.float32)
        self.plan = np.zeros((request.plan_ticks, request.step_size), np.float32)


class LatestSlot:
    """Three frame buffers: one being written, one ready, one being read.

    The writer never waits for the reader, unless `lossless`: then it waits until the ready frame
    was taken and nothing is ever dropped. Actions of frames that were overwritten unread are
    delivered with the next frame, so a dropped frame loses no action.

    Args:
        request: frame and action sizes to preallocate for.
        lossless: wait instead of dropping.
    """

    def __init__(self, request: StreamRequest, *, lossless: bool = False) -> None:
        # Allocated once: in steady state a frame costs a copy and an exchange of references.
        self._back, self._ready, self._front = (_Buffer(request) for _ in range(3))
        self._lossless = lossless
        self._log = ActionLog(_LOG_TICKS, request.step_size)
        self._changed = threading.Condition()
        self._fresh = False
        self._closed = False
        self._taken_tick: int | None = None
        self.dropped = 0

    def put(self, reading: Reading, index: int, tick: int, captured_ns: int) -> bool:
        """Copy a checked reading in; return False if the slot was closed."""
        back = self._back
        frame = back.frame
        if reading.image_hwc_u8 is not None:
            frame.image_hwc_u8[...] = reading.image_hwc_u8  # outside the lock: 10 us per 100 kB
        frame.index, frame.tick, frame.captured_ns = index, tick, captured_ns
        frame.plan = _copied(reading.plan, back.plan)
        # A model without a state has no room for one.
        frame.state = _copied(reading.state, back.state) if len(back.state) else None
        with self._changed:
            # A loop, as a condition variable may wake without cause.
            while self._lossless and self._fresh and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if reading.actions is not None:
                # In the log, not in the buffer: that of a frame overwritten unread is lost.
                self._log.extend(tick, reading.actions)
            self.dropped += self._fresh
            # An exchange under the lock, so that neither side ever sees half a frame.
            self._back, self._ready = self._ready, back
            self._fresh = True
            self._changed.notify_all()
        return True

    def take(self, timeout_s: float) -> Frame | None:
        """Take the newest frame not taken yet, waiting up to `timeout_s`; None if there is none.

        The frame is the caller's until the next `take`.
        """
        with self._changed:
            # A single wait: waking early only means a try again, and the loop copes with None.
            if not self._fresh and not self._closed:
                self._changed.wait(timeout_s)
            if not self._fresh:
                return None
            self._front, self._ready = self._ready, self._front
            self._fresh = False
            self._changed.notify_all()
            front = self._front
            front.frame.action_since = self._actions_of(front)
        return front.frame

    def _actions_of(self, buffer: _Buffer) -> NDArray | None:
        tick, before = buffer.frame.tick, self._taken_tick
        self._taken_tick = tick
        # Of the first frame only the action right before it is wanted.
        known = self._log.since(tick - 1 if before is None else before, tick, buffer.actions)
        return buffer.actions[-known:] if known else None

    def close(self) -> None:
        """End the stream and wake the waiting thread. A frame that is ready can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        """True if the slot is closed and the last frame was taken."""
        with self._changed:
            # The last frame is still delivered after the end.
            return self._closed and not self._fresh


def _copied(values: NDArray | None, room: NDArray) -> NDArray | None:
    if values is None or len(values) == 0:
        return None
    count = min(len(values), len(room))
    room[:count] = values[:count]
    return room[:count]
