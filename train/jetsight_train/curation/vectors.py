"""Ranges of recorded actions and states, dimension by dimension.

Shapes: N rows of all episodes, n dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A switch such as a gripper that is open or closed has few levels and is at an end all the time.
_SWITCH_LEVELS, _SWITCH_SHARE = 8, 0.8
_SATURATED_SHARE, _FEWEST_STAYS = 0.02, 3
_END = 1e-5  # share of the range: float32 rounding of a value that was clipped


@dataclass(frozen=True)
class DimensionSurvey:
    """Values of one dimension over all rows.

    Attributes:
        name: of the dimension.
        low: smallest value.
        q01: 1 % of the values are below.
        q99: 1 % of the values are above.
        high: largest value.
        std: standard deviation.
        levels: distinct values, counted up to 100.
        at_low: share of the values equal to the smallest.
        at_high: share of the values equal to the largest.
        stays: times that the values come to an end of the range.
        limits: smallest and largest value that is allowed; None if none are declared.
        outside: share of the values outside of `limits`.
    """

    name: str
    low: float
    q01: float
    q99: float
    high: float
    std: float
    levels: int
    at_low: float
    at_high: float
    stays: int
    limits: tuple[float, float] | None
    outside: float

    @property
    def constant(self) -> bool:
        """True where every row has the same value, up to float32 rounding."""
        return self.high - self.low <= 1e-6 * max(abs(self.low), abs(self.high), 1e-30)

    @property
    def switch(self) -> bool:
        """True for a dimension of few levels or mostly at its ends, such as a gripper."""
        at_ends = self.at_low + self.at_high >= _SWITCH_SHARE
        return not self.constant and (self.levels <= _SWITCH_LEVELS or at_ends)

    @property
    def saturated(self) -> float:
        """Share of the values that stay at an end of the range, where that is not natural."""
        share = max(self.at_low, self.at_high)
        # A command that is held has a largest value too, but does not return to it.
        clipped = share >= _SATURATED_SHARE and self.stays >= _FEWEST_STAYS
        return share if clipped and not (self.switch or self.constant) else 0.0


def survey_dimensions(
    values: NDArray[np.float32],
    names: Sequence[str],
    limits: Sequence[tuple[float, float] | None] | None = None,
) -> tuple[DimensionSurvey, ...]:
    """Measure `values [N, n]`, with one name and perhaps one pair of limits per dimension."""
    pairs = limits if limits is not None else [None] * len(names)
    return tuple(
        _dimension(values[:, i].astype(np.float64), name, pairs[i]) for i, name in enumerate(names)
    )


def _dimension(
    column: NDArray[np.float64], name: str, limits: tuple[float, float] | None
) -> DimensionSurvey:
    low, q01, q99, high = np.quantile(column, [0.0, 0.01, 0.99, 1.0]).tolist()
    slack = _END * (high - low)
    bottom, top = column <= low + slack, column >= high - slack
    outside = 0.0
    if limits is not None:
        # Limits are typed in decimals, recorded values are float32.
        room = 1e-6 * max(abs(limits[0]), abs(limits[1]))
        outside = float(np.mean((column < limits[0] - room) | (column > limits[1] + room)))
    return DimensionSurvey(
        name,
        low=low,
        q01=q01,
        q99=q99,
        high=high,
        std=float(column.std()),
        levels=min(len(np.unique(column)), 100),
        at_low=float(bottom.mean()),
        at_high=float(top.mean()),
        stays=max(_runs(bottom), _runs(top)),
        limits=limits,
        outside=outside,
    )


def _runs(holds: NDArray[np.bool_]) -> int:
    return int(holds[:1].sum() + (holds[1:] & ~holds[:-1]).sum())
