"""Histories of latents and actions by tick, preallocated and evenly spaced.

A frame that never arrived leaves its tick empty, so a history is either exactly uniform or refused;
nothing is ever shifted closer together. Shapes: K history, B action block, D latent, n rows, W row.
"""

from __future__ import annotations

from array import array

import numpy as np

from jetsight.engine import NDArray
from jetsight.stream.frames import Reason

_EMPTY = -(2**62)  # earlier than any tick


class TickRing:
    """Rows `float32 [W]` of the newest `capacity` ticks; putting tick t forgets t - capacity."""

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity = capacity
        self._rows = np.zeros((capacity, width), np.float32)
        # Neither numpy, whose scalars are slow, nor a list, which would keep an object per tick.
        self._ticks = array("q", [_EMPTY]) * capacity

    def put(self, tick: int, row: NDArray) -> None:
        """Copy `row` in as the value at `tick`."""
        slot = tick % self.capacity
        self._rows[slot] = row
        self._ticks[slot] = tick

    def get(self, tick: int) -> NDArray | None:
        """Return a view of the row at `tick`, valid until overwritten; None if there is none."""
        slot = tick % self.capacity
        return self._rows[slot] if self._ticks[slot] == tick else None

    def __contains__(self, tick: int) -> bool:
        return self._ticks[tick % self.capacity] == tick

    def window(self, first: int, step: int, out: NDArray) -> int:
        """Copy ticks `first, first + step, ...` into the rows of `out` where they are known.

        Returns:
            Number of rows that were not known and were left as they are.
        """
        missing = 0
        # A loop over few rows: indexing with arrays would allocate in every frame.
        for i in range(len(out)):
            tick = first + i * step
            slot = tick % self.capacity
            if self._ticks[slot] == tick:
                out[i] = self._rows[slot]
            else:
                missing += 1
        return missing

    def clear(self) -> None:
        """Forget every tick."""
        for slot in range(self.capacity):
            self._ticks[slot] = _EMPTY


class LatentRing:
    """Latents by tick, read as histories of K latents exactly B ticks apart.

    A gap of B or more missing ticks clears the ring: no evenly spaced history can reach across it.
    A tick that is not newer than the last one is refused; if that goes on for `patience` ticks the
    time line has really moved, and the ring starts again on the new one.

    Example:
        >>> ring = LatentRing(history=2, block=5, size=3, patience=10)
        >>> for tick in range(6):
        ...     if ring.advance(tick):
        ...         ring.put(tick, np.full(3, tick, np.float32))
        >>> out = np.empty((2, 3), np.float32)
        >>> ring.history(5, out) is None, out[:, 0].tolist()
        (True, [0.0, 5.0])
    """

    def __init__(self, history: int, block: int, size: int, patience: int) -> None:
        # One block more than a history spans: surprise needs the history of one block ago.
        self._ring = TickRing(history * block + 1, size)
        self._block = block
        self._patience = patience
        self._last: int | None = None
        self._since = 0
        self._refused = 0
        self.resets = 0

    def advance(self, tick: int) -> bool:
        """Move time on to `tick`; False when the frame must be dropped because time went back."""
        last = self._last
        if last is not None and tick <= last:
            self._refused += 1
            if self._refused < self._patience:
                return False
        if last is None or self._refused >= self._patience or tick - last > self._block:
            # The first frame of a stream is no reset.
            self.resets += last is not None
            self._ring.clear()
            self._since = tick
        self._last = tick
        self._refused = 0
        return True

    def put(self, tick: int, z: NDArray) -> None:
        """Copy latent `z [D]` in; a tick without one (a broken latent) stays empty."""
        self._ring.put(tick, z)

    def history(self, tick: int, out: NDArray) -> Reason | None:
        """Copy the latents ending at `tick` into `out [n, D]`, n <= K, oldest first.

        Returns:
            None when all were known, else why not; `out` is then unspecified.
        """
        first = tick - (len(out) - 1) * self._block
        if self._ring.window(first, self._block, out) == 0:
            return None
        return Reason.WARMING_UP if first < self._since else Reason.HISTORY_GAP


class ActionLog:
    """Executed actions by tick, separate from frames so that a lost frame loses no action."""

    def __init__(self, capacity: int, size: int) -> None:
        self._ring = TickRing(capacity, size)

    def extend(self, end: int, actions: NDArray) -> None:
        """Log `actions [n, a]` as executed at ticks `end - n .. end - 1`."""
        # Older ones than fit would overwrite the newest, which are put first.
        count = min(len(actions), self._ring.capacity)
        for i in range(1, count + 1):
            self._ring.put(end - i, actions[-i])

    def since(self, start: int, end: int, out: NDArray) -> int:
        """Copy the newest unbroken run of known actions before `end` into the tail of `out`.

        Args:
            start: oldest tick wanted.
            end: tick after the newest one wanted.
            out: `[n, a]`, n >= the rows wanted.

        Returns:
            Number of rows, counted from the end of `out`, that were filled.
        """
        limit = min(end - start, len(out), self._ring.capacity)
        for i in range(1, limit + 1):
            row = self._ring.get(end - i)
            if row is None:
                return i - 1
            out[-i] = row
        return max(limit, 0)

    def window(self, first: int, out: NDArray) -> int:
        """Copy ticks `first ..` into `out [n, a]`; returns the number of unknown rows."""
        return self._ring.window(first, 1, out)

    def clear(self) -> None:
        """Forget every action."""
        self._ring.clear()
