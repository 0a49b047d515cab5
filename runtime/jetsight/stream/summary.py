"""Summary of a stream: counts, and percentiles over every forecast, in constant memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jetsight.histogram import Histogram
from jetsight.stream.frames import Forecast, Reason


class StreamSummary:
    """Counts and percentiles of published forecasts.

    Attributes:
        frames: forecasts of a frame, valid or not.
        stalls: forecasts published without a frame.
        surprising: forecasts whose frame the model did not expect.
    """

    def __init__(self) -> None:
        self.encode_ms = Histogram()
        self.forecast_ms = Histogram()
        self.overhead_ms = Histogram()
        self.frame_age_ms = Histogram()
        self.surprise = Histogram()
        self.frames = 0
        self.stalls = 0
        self.surprising = 0
        self._reasons: Counter[Reason] = Counter()

    def clear(self) -> None:
        """Start again with the same memory."""
        for recorder in self._recorders().values():
            recorder.clear()
        self.frames = 0
        self.stalls = 0
        self.surprising = 0
        self._reasons.clear()

    def add(self, forecast: Forecast) -> None:
        """Count the forecast of a frame."""
        self.frames += 1
        self.surprising += forecast.surprising
        self._reasons[forecast.reason] += 1
        self.encode_ms.add(forecast.encode_ms)
        self.overhead_ms.add(forecast.overhead_ms)
        # The age is negative where a caller of `step` stamps ahead; the histogram takes none.
        self.frame_age_ms.add(max(forecast.age_ms, 0.0))
        if forecast.z_future is not None:
            self.forecast_ms.add(forecast.forecast_ms)
        if forecast.surprise is not None:
            self.surprise.add(forecast.surprise)

    def summary(self) -> dict[str, Any]:
        """Return counts, and p50, p99 and max of every measured quantity."""
        return {
            "frames": self.frames,
            "valid": self._reasons[Reason.OK],
            "stalls": self.stalls,
            "surprising": self.surprising,
            "reasons": {str(reason): count for reason, count in self._reasons.items()},
            **{name: recorder.summary() for name, recorder in self._recorders().items()},
        }

    def _recorders(self) -> dict[str, Histogram]:
        return {
            "encode_ms": self.encode_ms,
            "forecast_ms": self.forecast_ms,
            "overhead_ms": self.overhead_ms,
            "frame_age_ms": self.frame_age_ms,
            "surprise": self.surprise,
        }
