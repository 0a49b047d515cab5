"""Time stamps of rows, against the rate that a dataset declares.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError

# Recorders stamp rows with a clock that jitters; the mean over an episode does not.
_RATE_TOLERANCE = 0.02
_FEWEST = 5  # rows that measure a rate


def check_stamps(stamps_s: NDArray[np.float64], fps: float, where: object) -> NDArray[np.float64]:
    """Check the stamps of an episode, and count them from its first row.

    Args:
        stamps_s: `[T]` recorded stamps.
        fps: declared rate.
        where: the episode, first words of the message.

    Raises:
        DataError: they do not increase, or run at another rate.
    """
    if not len(stamps_s):
        return stamps_s
    times_s: NDArray[np.float64] = stamps_s - stamps_s[0]
    steps_s = np.diff(times_s)
    if (steps_s <= 0).any():
        at = int(np.flatnonzero(steps_s <= 0)[0])
        raise DataError(
            f"{where}: the time of row {at + 1} is {stamps_s[at + 1]:.6g} s, after "
            f"{stamps_s[at]:.6g} s of the row before, expected growing times; if the rows are "
            f"evenly spaced, add --map rate={fps:g}"
        )
    if len(times_s) < _FEWEST:
        return times_s
    mean_hz, median_hz = (len(times_s) - 1) / times_s[-1], 1 / float(np.median(steps_s))
    # A pause changes the mean alone, jitter the median alone.
    if all(abs(rate - fps) > _RATE_TOLERANCE * fps for rate in (mean_hz, median_hz)):
        raise DataError(
            f"{where}: rows are stamped {mean_hz:.4g} times per second, but meta/info.json says "
            f"{fps:g} frames per second; add --map rate={mean_hz:.4g} if the stamps are right, or "
            f"--map rate={fps:g} to ignore them"
        )
    return times_s
