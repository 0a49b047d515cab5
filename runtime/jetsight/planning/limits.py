"""Limits on planned actions: per request, and checked once more before a plan is returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError

NO_LIMIT = 1e9  # what the graphs take for none
_ROUNDING = 1e-3  # of an action's range: what a half precision engine may be off its limits


@dataclass(frozen=True, slots=True)
class Limits:
    """Tighter limits than the robot's own, for one plan; None leaves the robot's.

    Args:
        low: `[a]` smallest action, in robot units.
        high: `[a]` largest action.
        rate_per_s: `[a]` largest change per second.

    Raises:
        UsageError: numbers that are not finite.
    """

    low: Sequence[float] | NDArray | None = None
    high: Sequence[float] | NDArray | None = None
    rate_per_s: Sequence[float] | NDArray | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "rate_per_s"):
            given = getattr(self, name)
            if given is not None and not np.isfinite(np.asarray(given, np.float64)).all():
                raise UsageError(f"limits: {name} is {list(given)}, expected finite numbers")

    def fill(self, spec: PlanSpec, low: NDArray, high: NDArray, rate: NDArray) -> None:
        """Write bounds and change per tick into `low`, `high`, `rate`, each `[a]`.

        Raises:
            UsageError: another number of values, inverted, or wider than the robot's own.
        """
        size = len(spec.names)
        low[:] = spec.low if self.low is None else _sized("low", self.low, size)
        high[:] = spec.high if self.high is None else _sized("high", self.high, size)
        rate[:] = NO_LIMIT if spec.rate_per_tick is None else spec.rate_per_tick
        if self.rate_per_s is not None:
            tighter = _sized("rate_per_s", self.rate_per_s, size)
            own, rate[:] = rate.copy(), tighter / np.float32(spec.stream.camera_hz)
            _refuse(spec, rate <= 0, "rate_per_s", tighter, "must be above 0")
            _refuse(spec, rate > own * 1.00001, "rate_per_s", tighter, "is above the robot's own")
        _refuse(spec, low > high, "low", low, "is above high")
        _refuse(spec, low < spec.low, "low", low, "is below the robot's own")
        _refuse(spec, high > spec.high, "high", high, "is above the robot's own")


def _sized(name: str, values: Sequence[float] | NDArray, size: int) -> NDArray:
    array: NDArray = np.asarray(values, np.float32)
    if array.shape != (size,):
        raise UsageError(f"limits: {name} has the shape {list(array.shape)}, expected {[size]}")
    return array


def _refuse(spec: PlanSpec, wrong: NDArray, key: str, values: NDArray, why: str) -> None:
    for name, is_wrong, value in zip(spec.names, wrong, values, strict=True):
        if is_wrong:
            raise UsageError(f"limits: {key} of {name!r} is {value:g}, which {why}")


class LimitChecker:
    """Admits plans that obey the limits in a planner's inputs as they are at that moment.

    Args:
        spec: of the robot.
        inputs: the planner's: `low`, `high`, `a_last`, and `rate` where there is one.
        ticks: T.
    """

    def __init__(self, spec: PlanSpec, inputs: Mapping[str, NDArray], ticks: int) -> None:
        self._inputs = inputs
        self._rate = inputs.get("rate", np.full_like(spec.low, np.inf))
        self._slack = _ROUNDING * (spec.high - spec.low)
        self._before = np.zeros((ticks, len(spec.low)), np.float32)

    def admits(self, actions: NDArray) -> bool:
        """Whether `actions [T, a]` may be executed after the last action that was.

        What rounding put outside the bounds is put back in place; anything else is refused.
        """
        low, high, before = self._inputs["low"], self._inputs["high"], self._before
        if not np.isfinite(actions).all():
            return False
        before[0], before[1:] = self._inputs["a_last"], actions[:-1]
        # Where the last action was out of bounds, the way back may be as long as it must.
        lower = np.clip(before - self._rate, low, high) - self._slack
        upper = np.clip(before + self._rate, low, high) + self._slack
        # Asked this way round, a limit that is NaN admits nothing.
        if not ((actions >= lower) & (actions <= upper)).all():
            return False
        np.clip(actions, low, high, out=actions)
        return True
