"""Normalisers of recorded columns: mean, scale, and the columns that never vary.

Dividing by the spread of a column that never varies would make a model a thousand times more
sensitive to it than to any other, so such a column gets the scale 1 and is reported as fixed.

Shapes: F ticks, n columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetsight.errors import DataError
from jetsight.planning.limits import NO_LIMIT
from jetsight_train.data.columns import FloatArray

MOST_VALUE = NO_LIMIT  # the graphs take anything above for no limit, and float32 squares it safely
ROUNDING = 1e-6  # share of a column's largest value that float32 rounding may vary by
STILL_SHARE = 1e-4  # share of a column's limits below which its variation is noise
LEAST_SCALE = 0.01  # scale as a share of the recorded range; rare events would weigh more


@dataclass(frozen=True)
class Normaliser:
    """Mean and scale of each column, and the names of those that never vary."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed: tuple[str, ...]


def measure(
    values: FloatArray, names: Sequence[str], span: Sequence[float] | None = None
) -> Normaliser:
    """Measure the normaliser of columns `[F, n]` that `check_range` accepts.

    Args:
        values: recorded numbers.
        names: of the columns.
        span: width of the limits of each column, which its variation is compared with; None
            compares with the column's own magnitude alone.
    """
    exact = np.asarray(values, np.float64)  # float32 sums of many ticks would round
    low, high = exact.min(0), exact.max(0)
    still = is_still(exact, span)
    mean = np.where(high == low, low, exact.mean(0))
    std = np.where(still, 1.0, np.maximum(exact.std(0), LEAST_SCALE * (high - low)))
    fixed = tuple(name for name, each in zip(names, still, strict=True) if each)
    return Normaliser(tuple(mean.tolist()), tuple(std.tolist()), fixed)


def is_still(
    values: npt.NDArray[np.floating], span: Sequence[float] | None = None
) -> npt.NDArray[np.bool_]:
    """Find the columns of `[F, n]` that vary by no more than rounding or noise: `[n]`."""
    exact = np.asarray(values, np.float64)
    noise = ROUNDING * np.abs(exact).max(0)
    if span is not None:
        noise = np.maximum(noise, STILL_SHARE * np.asarray(span, np.float64))
    return np.asarray(np.ptp(exact, axis=0) <= noise)


def check_range(values: FloatArray, names: Sequence[str], where: object) -> None:
    """Refuse columns `[F, n]` with numbers that no robot has and no normaliser can scale.

    Raises:
        DataError: a number is above `MOST_VALUE`; the message has the column, value and tick.
    """
    beyond = np.argwhere(~(np.abs(values) <= MOST_VALUE))  # this way round NaN is found too
    if len(beyond):
        tick, column = (int(index) for index in beyond[0])
        raise DataError(
            f"{where}: {names[column]!r} is {values[tick, column]:g} at tick {tick}, expected "
            f"numbers within {MOST_VALUE:g}; record in the robot's units, or leave the column out"
        )
