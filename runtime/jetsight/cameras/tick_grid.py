"""Assignment of frames to ticks of the model's time grid."""

from __future__ import annotations

_GAIN = 0.1  # share of each frame's offset the grid follows: it forgets jitter in about ten frames


class TickGrid:
    """Numbers frames by the model's period, following a camera that is a little fast or slow.

    A frame belongs to the nearest tick. Where a camera has several frames per tick, the one nearest
    to the tick is used. The phase is tracked, so that a camera of 29.97 frames per second on a grid
    of 30 Hz never slips, and a clock that drifts does no harm.

    Args:
        period_ns: of the model's camera rate.
        spacing_ns: of the source's frames, where it is known; measured from then on.

    Example:
        >>> grid = TickGrid(period_ns=100)
        >>> [grid.place(media) for media in (7, 107, 120, 211, 411)]
        [0, 1, None, 2, 4]
    """

    def __init__(self, period_ns: int, spacing_ns: float | None = None) -> None:
        self._period_ns = period_ns
        self._spacing_ns = min(spacing_ns or period_ns, period_ns)
        self._origin_ns: float | None = None
        self._media_ns = 0
        self._tick = -1

    def place(self, media_ns: int) -> int | None:
        """Assign a tick to a frame at `media_ns`; None when another frame is nearer to its tick.

        A frame that is not newer than the last one gets a tick that is not newer either: the
        history refuses it.
        """
        if self._origin_ns is None:
            self._origin_ns, self._media_ns = float(media_ns), media_ns - self._period_ns
        place = (media_ns - self._origin_ns) / self._period_ns
        tick = round(place)
        if media_ns <= self._media_ns:
            return min(tick, self._tick)
        self._measure(media_ns)
        if tick <= self._tick or place - tick < self._earliest():
            return None
        self._origin_ns += _GAIN * (place - tick) * self._period_ns
        self._tick = tick
        return tick

    def cut(self, media_ns: int, skip_ticks: int) -> int:
        """Start over with a frame at `media_ns`, `skip_ticks` after the last tick."""
        self._tick = self._tick + skip_ticks if self._tick >= 0 else 0
        self._origin_ns = float(media_ns - self._tick * self._period_ns)
        self._media_ns = media_ns
        return self._tick

    def _measure(self, media_ns: int) -> None:
        gap_ns = min(media_ns - self._media_ns, self._period_ns)  # a lost frame is no slow camera
        self._spacing_ns += _GAIN * (gap_ns - self._spacing_ns)
        self._media_ns = media_ns

    def _earliest(self) -> float:
        """Share of a period a frame may come before its tick: later the next one is nearer."""
        spacing = self._spacing_ns / self._period_ns
        return -0.5 if spacing > 0.8 else -0.5 * spacing  # above 0.8 it is jitter, not a rate
