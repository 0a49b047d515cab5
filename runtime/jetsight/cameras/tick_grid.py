"""Assignment of frames to ticks of the model's time grid."""

from __future__ import annotations

_GAIN = 0.1  # share of each frame's offset that the grid follows: jitter decays in about ten frames


class TickGrid:
    """Time grid of the model's period that tracks the phase of the camera.

    A frame belongs to the nearest tick; of several frames the one nearest to the tick is used. The
    phase is tracked, so that a camera of 29.97 frames per second never slips on a grid of 30 Hz,
    and a clock may drift.

    Args:
        period_ns: period of the model's camera rate.
        spacing_ns: initial spacing of the source's frames; the period if None.

    Example:
        >>> grid = TickGrid(period_ns=100)
        >>> [grid.place(media) for media in (7, 107, 120, 211, 411)]
        [0, 1, None, 2, 4]
    """

    def __init__(self, period_ns: int, spacing_ns: float | None = None) -> None:
        self._period_ns = period_ns
        # A source slower than the grid cannot have two frames for one tick.
        self._spacing_ns = min(spacing_ns or period_ns, period_ns)
        self._origin_ns: float | None = None
        self._media_ns = 0
        self._tick = -1

    def place(self, media_ns: int) -> int | None:
        """Assign a tick to a frame at `media_ns`; None if another frame is nearer to its tick.

        A frame that is not newer than the last one gets a tick that is not newer either, which the
        history refuses.
        """
        if self._origin_ns is None:
            self._origin_ns, self._media_ns = float(media_ns), media_ns - self._period_ns
        place = (media_ns - self._origin_ns) / self._period_ns
        tick = round(place)
        # Before measuring: a step back in time is no spacing.
        if media_ns <= self._media_ns:
            return min(tick, self._tick)
        self._measure(media_ns)
        # Too early for its tick: the next frame of a faster source is nearer to it.
        if tick <= self._tick or place - tick < self._earliest():
            return None
        # A share only: following each frame in full would turn jitter into drift.
        self._origin_ns += _GAIN * (place - tick) * self._period_ns
        self._tick = tick
        return tick

    def cut(self, media_ns: int, skip_ticks: int) -> int:
        """Restart with a frame at `media_ns`, `skip_ticks` after the last tick."""
        self._tick = self._tick + skip_ticks if self._tick >= 0 else 0
        self._origin_ns = float(media_ns - self._tick * self._period_ns)
        self._media_ns = media_ns
        return self._tick

    def _measure(self, media_ns: int) -> None:
        gap_ns = min(media_ns - self._media_ns, self._period_ns)  # a lost frame is no slow camera
        self._spacing_ns += _GAIN * (gap_ns - self._spacing_ns)
        self._media_ns = media_ns

    def _earliest(self) -> float:
        """Return the lower limit of a frame's offset from its tick, in periods."""
        spacing = self._spacing_ns / self._period_ns
        return -0.5 if spacing > 0.8 else -0.5 * spacing  # above 0.8 it is jitter, not a rate
