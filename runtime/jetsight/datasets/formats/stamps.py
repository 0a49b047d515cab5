"""Time stamps of recordings: the rate they show, and values brought to the ticks of a camera.

Shapes: T ticks of an episode, M messages of a topic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError

_FASTEST_HZ, _SLOWEST_HZ = 240.0, 0.1
_JITTER, _STEADY_SHARE = 0.25, 0.8  # 80 % of the periods within 25 % of the median


def measured_rate(stamps_s: Sequence[NDArray[np.float64]], where: object) -> float:
    """Measure the frames per second of a recording that declares no rate.

    Args:
        stamps_s: `[T]` of each episode, in s.
        where: the recording, first words of a message.

    Raises:
        DataError: there are no stamps, they do not ascend, or show no steady rate of a camera.
    """
    periods = np.concatenate([np.diff(each) for each in stamps_s] or [np.zeros(0)])
    if not len(periods):
        raise DataError(
            f"{where} declares no rate and has no time stamps; give the frames per second that it "
            "was recorded at, for example --map rate=10"
        )
    median = float(np.median(periods))
    rate = 1.0 / median if median > 0 else np.inf
    if not _SLOWEST_HZ <= rate <= _FASTEST_HZ:
        raise DataError(
            f"{where} declares no rate, and its time stamps are {1000 * median:.3g} ms apart, "
            "which is no camera's period; give the frames per second that it was recorded at, for "
            "example --map rate=20"
        )
    steady = float((np.abs(periods - median) <= _JITTER * median).mean())
    if steady < _STEADY_SHARE:
        raise DataError(
            f"{where} declares no rate, and only {100 * steady:.0f} % of its periods are near the "
            f"median of {1000 * median:.3g} ms; if that was the intended rate, add "
            f"--map rate={_round(rate):g}"
        )
    return _round(rate)


def _round(rate: float) -> float:
    """Round a measured rate to a whole one that is near, since clocks are never exact."""
    whole = round(rate)
    return float(whole) if whole and abs(rate - whole) <= 0.02 * whole else round(rate, 2)


def in_force(ticks_s: NDArray[np.float64], stamps_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the message in force at each tick: the newest one not after it.

    Args:
        ticks_s: `[T]` times of the ticks, ascending.
        stamps_s: `[M]` times of the messages, ascending.

    Returns:
        `[T]` indices of messages; -1 before the first one.

    Example:
        >>> in_force(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.9, 2.0])).tolist()
        [-1, 1, 2]
    """
    return np.searchsorted(stamps_s, ticks_s, side="right") - 1
