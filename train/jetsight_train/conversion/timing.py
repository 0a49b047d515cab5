"""Rates of a recording: declared against measured from its time stamps.

Shapes: T rows of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Half a row more than due: nearer to the row after the next, so at least one row is missing.
_GAP = 1.5


@dataclass(frozen=True)
class TimingSurvey:
    """Rate and regularity of a recording.

    Attributes:
        declared_hz: rate that the dataset states.
        measured_hz: one over the median distance of two rows; None without two rows.
        jitter_ms: 95 % of distances differ from their median by at most this.
        gaps: distances of 1.5 periods or more, as `(episode, row before the gap, seconds)`.
        backward: episodes whose time stamps do not ascend.
    """

    declared_hz: float
    measured_hz: float | None
    jitter_ms: float
    gaps: tuple[tuple[int, int, float], ...]
    backward: tuple[int, ...]

    @property
    def deviation(self) -> float:
        """Relative difference of the measured from the declared rate; 0 if none was measured."""
        return 0.0 if self.measured_hz is None else self.measured_hz / self.declared_hz - 1.0


def survey_timing(stamps_s: Mapping[int, NDArray[np.float64]], declared_hz: float) -> TimingSurvey:
    """Measure the time stamps of whole episodes.

    Args:
        stamps_s: `[T]` seconds by episode.
        declared_hz: rate that the dataset states.
    """
    steps = {i: np.diff(stamps) for i, stamps in stamps_s.items() if len(stamps) > 1}
    backward = tuple(i for i, step in steps.items() if not (step > 0).all())
    ascending = [step for i, step in steps.items() if i not in backward]
    joined = np.concatenate([np.zeros(0), *ascending])
    if not len(joined):
        return TimingSurvey(declared_hz, None, 0.0, (), backward)
    # The median, because a single pause would shift a mean.
    period_s = float(np.median(joined))
    jitter_s = float(np.quantile(np.abs(joined - period_s), 0.95))
    gaps = tuple(
        (i, int(row), float(step[row]))
        for i, step in steps.items()
        if i not in backward
        for row in np.flatnonzero(step >= _GAP * period_s)
    )
    return TimingSurvey(declared_hz, 1.0 / period_s, 1e3 * jitter_s, gaps, backward)
