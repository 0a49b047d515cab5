"""Which tick of the model's time grid a frame belongs to."""

from __future__ import annotations

_GAIN = 0.1  # share of each frame's offset the grid follows: it forgets jitter in about ten frames


class TickGrid:
    """Numbers frames by the model's period, following a camera that is a little fast or slow.

    A frame belongs to the nearest tick. A camera of a higher rate than the model's has several
    frames per tick: the first is used. The phase is tracked, so that a camera of 29.97 frames per
    second on a grid of 30 Hz never slips, and a clock that drifts does no harm.

    Example:
        >>> grid = TickGrid(period_ns=100)
        >>> [grid.place(media) for media in (7, 40, 107, 211, 411)]
        [0, None, 1, 2, 4]
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._origin_ns: float | None = None
        self._media_ns = 0
        self._tick = -1

    def place(self, media_ns: int) -> int | None:
        """Tick of a frame at `media_ns`; None when its tick already has a frame.

        A frame that is not newer than the last one gets a tick that is not newer either: whoever
        keeps the history refuses it.
        """
        if self._origin_ns is None:
            self._origin_ns, self._media_ns = float(media_ns), media_ns - 1
        place = (media_ns - self._origin_ns) / self._period_ns
        tick = round(place)
        if media_ns <= self._media_ns:
            return min(tick, self._tick)
        if tick <= self._tick:
            return None
        self._origin_ns += _GAIN * (place - tick) * self._period_ns
        self._tick, self._media_ns = tick, media_ns
        return tick

    def cut(self, media_ns: int, skip_ticks: int) -> int:
        """Start over with a frame at `media_ns`, `skip_ticks` after the last tick."""
        self._tick = self._tick + skip_ticks if self._tick >= 0 else 0
        self._origin_ns = float(media_ns - self._tick * self._period_ns)
        self._media_ns = media_ns
        return self._tick
