"""Ticks of the control loop: which one it is now, and what was executed at each.

Shapes: h x w camera frame, a size of one robot action, n ticks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.tick_grid import TickGrid
from jetsight.engine import NDArray
from jetsight.errors import UsageError
from jetsight.stream.frames import Frame
from jetsight.stream.history import ActionLog


class TickTrack:
    """Places frames on the time grid, and logs the executed action of every tick.

    Args:
        spec: of the model.
        frame_shape: `[h, w, 3]`, or with the cameras before it.

    Attributes:
        realtime: ticks follow the clock; else every frame without a tick is the next one.
        tick: newest one that is known; -1 before the first.
    """

    def __init__(self, spec: StreamSpec, frame_shape: tuple[int, ...]) -> None:
        self.realtime, self._shape = True, frame_shape
        self._period_ns, self._state_names = spec.period_ns, spec.state_names
        self._grid = TickGrid(spec.period_ns)
        capacity = (spec.history + 1) * spec.action_block + 1
        self._log = ActionLog(capacity, spec.step_size)
        self._room: NDArray = np.zeros((capacity, spec.step_size), np.float32)
        self._frame_tick: int | None = None
        self._now_ns = 0
        self.tick = -1

    def place(
        self, given: Frame | NDArray | None, state: NDArray | None, now_ns: int
    ) -> Frame | None:
        """Make the frame of this call, and advance `tick`.

        Args:
            given: a frame with its own tick and stamp, an image of now, or None without one.
            state: `[s]` of the robot beside an image; None where it is not known.
            now_ns: on the session's clock.

        Returns:
            None without a frame, and for an image that comes too early for another tick.

        Raises:
            UsageError: the image or the state is of another size than the model takes.
        """
        state = self._state(state)
        passed, self._now_ns = now_ns - self._now_ns, now_ns
        if isinstance(given, Frame):
            self._check(given.image_hwc_u8)
            self.tick = max(self.tick, given.tick)
            # A copy: the header is filled in below, and belongs to the caller.
            return replace(given, state=given.state if state is None else state)
        if given is None:
            ticks = round(passed / self._period_ns) if self.realtime else 1
            self.tick += max(ticks, 1) if self.tick >= 0 else 0
            return None
        image = self._check(given)
        tick = self._next_tick(now_ns)
        if tick is None:
            return None
        self.tick = tick
        return Frame(image, index=tick, tick=tick, captured_ns=now_ns, state=state)

    def executed(self, first: int, end: int, action: NDArray) -> None:
        """Log `action [a]` as executed at ticks `first .. end - 1`."""
        count = min(end - first, len(self._room))
        if count > 0:
            self._log.extend(end, np.broadcast_to(action, (count, len(action))))

    def known(self, tick: int) -> NDArray | None:
        """Return the actions between the last frame and that of `tick`, `[n, a]`, if known."""
        before, self._frame_tick = self._frame_tick, tick
        start = tick - 1 if before is None else before
        count = self._log.since(start, tick, self._room)
        return self._room[-count:].copy() if count else None

    def _next_tick(self, now_ns: int) -> int | None:
        if not self.realtime:
            return self.tick + 1
        placed = self._grid.place(now_ns)
        return None if placed is None or placed <= self.tick else placed

    def _state(self, given: NDArray | None) -> NDArray | None:
        if given is None:
            return None
        state, names = np.asarray(given, np.float32), self._state_names
        if state.shape != (len(names),):
            raise UsageError(
                f"the state has the shape {list(state.shape)}, but the model reads "
                f"{', '.join(names) or 'none'}"
            )
        return state

    def _check(self, image: NDArray) -> NDArray:
        image = np.asarray(image)
        if image.shape != self._shape or image.dtype != np.uint8:
            raise UsageError(
                f"the frame is {image.dtype} {list(image.shape)}, but the model takes uint8 "
                f"{list(self._shape)}, RGB; crop and resize it to that, or compile the bundle for "
                "this camera"
            )
        return np.ascontiguousarray(image)
