"""The last look at actions before they leave: finite, within bounds, no faster than allowed.

Shapes: T ticks of the horizon, a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray

_ROUNDING = 1e-3  # of an action's range: what a half precision engine may be off its limits


class Admission:
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
