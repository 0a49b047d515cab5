"""Result of one tick of control: the action to send to the robot, and where it is from.

Shapes: a size of one robot action, n actions left of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from jetsight.engine import NDArray
from jetsight.planning.plan import Plan
from jetsight.stream.frames import Forecast


class ActionSource(str, Enum):
    """Origin of an action."""

    PLANNED = "planned"  # of a plan that is as fresh as was requested
    CONTINUED = "continued"  # of an older plan, because this tick brought none
    WARM_UP = "warm-up"  # there is no history yet to plan from
    HOLD = "hold"  # the last executed action again
    NEUTRAL = "neutral"  # the robot's neutral action

    def __str__(self) -> str:
        return self.value


@dataclass(slots=True)
class Action:
    """One action for the robot; it may always be sent.

    Args:
        values: `float32 [a]` in robot units: finite, inside the bounds, no farther from the last
            executed action than the rate limits allow.
        source: where it is from.
        reason: `"ok"`, or why it is not from a fresh plan: a `PlanReason` or a `Reason`, or
            `no_goal`, `no_frame`, `frame_rejected`, `frame_not_newer`, `late`, `not_finite`.
        limited: bounds or rate limits changed the values.
        tick: of the model's time grid, from which on it is executed.
        arrive_ticks: ticks until the goal is due, as used at this tick; None for the end of
            every plan.
        remaining: `float32 [n, a]` what is left of the plan after this action.
        forecast: of this tick's frame, under the actions that were going to be executed when it
            came; None without a new frame. A view until the next tick: keep one with `copy()`.
        plan: made at this tick, valid or not; None if none was due. A view likewise.
        step_ms: time for the frame, until its forecast.
        plan_ms: time for the plan.
        total_ms: the whole call.
    """

    values: NDArray
    source: ActionSource
    reason: str = "ok"
    limited: bool = False
    tick: int = -1
    arrive_ticks: int | None = None
    remaining: NDArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    forecast: Forecast | None = None
    plan: Plan | None = None
    step_ms: float = 0.0
    plan_ms: float = 0.0
    total_ms: float = 0.0

    def copy(self) -> Action:
        """Copy the action with arrays of its own, to keep beyond the next one."""
        return replace(
            self,
            forecast=None if self.forecast is None else self.forecast.copy(),
            plan=None if self.plan is None else self.plan.copy(),
        )
