"""Limits on planned actions: per request, and checked once more before a plan is returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError

NO_LIMIT = 1e9  # stands for none in the graphs, whose inputs are never infinite
_ROUNDING = 1e-3  # share of an action's range by which a half precision engine may miss a limit


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


class LimitChecker:
    """Check of plans against the current limits in a planner's inputs.

    Args:
        spec: of the robot.
        inputs: the planner's: `low`, `high`, `a_last`, and `rate` where there is one.
        ticks: T.
    """

    def __init__(self, spec: PlanSpec, inputs: Mapping[str, NDArray], ticks: int) -> None:
        self._inputs = inputs
        # Infinity is fine on the host; only inputs of graphs must be finite.
        self._rate = inputs.get("rate", np.full_like(spec.low, np.inf))
        self._slack = _ROUNDING * (spec.high - spec.low)
        self._before = np.zeros((ticks, len(spec.low)), np.float32)

    def admits(self, actions: NDArray) -> bool:
        """Check that `actions [T, a]` may be executed after the last executed action.

        Actions that rounding moved past the bounds are clipped in place; others are refused.
        """
        low, high, before = self._inputs["low"], self._inputs["high"], self._before
        # First: np.clip keeps NaN.
        if not np.isfinite(actions).all():
            return False
        before[0], before[1:] = self._inputs["a_last"], actions[:-1]
        # A last action out of bounds may return to them in one step, however long.
        lower = np.clip(before - self._rate, low, high) - self._slack
        upper = np.clip(before + self._rate, low, high) + self._slack
        # Not `any outside`: comparisons with a NaN limit are false, so this form refuses it.
        if not ((actions >= lower) & (actions <= upper)).all():
            return False
        # Moves an action by the slack at most, since everything farther out was refused.
        np.clip(actions, low, high, out=actions)
        return True
