"""Result of a planner: actions that may be executed, or the reason why there are none.

Shapes: H horizon in action blocks, B ticks per block, a size of one robot action, D latent size,
N samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from jetsight.engine import NDArray
from jetsight.stream.frames import Reason

BROKEN_COST = 1e38  # graphs write 3e38 for a cost that is not finite


class PlanReason(str, Enum):
    """Reason why there is no plan; `OK` and `HANDED_ON` are the only values of a valid one."""

    OK = "ok"
    HANDED_ON = "handed_on"  # no time for an iteration: the plan before, shifted to this tick
    NOT_PLANNED = "not_planned"
    WARMING_UP = "warming_up"  # fewer frames since the start or the last cut than are needed
    HISTORY_GAP = "history_gap"  # a frame of the evenly spaced history never arrived
    ACTIONS_UNKNOWN = "actions_unknown"  # the actions between those frames were not reported
    ACTION_UNTRAINED = "action_untrained"  # the robot moved along what never varied in training
    FRAME_STALE = "frame_stale"  # the newest frame is too old to plan from
    STATE_UNKNOWN = "state_unknown"  # the model reads a state that the newest frame came without
    LATENT_NOT_FINITE = "latent_not_finite"
    GOAL_NOT_FINITE = "goal_not_finite"
    DEADLINE = "deadline"  # shorter than one iteration, and no plan before that could be handed on
    ALL_INVALID = "all_invalid"  # no candidate has a finite cost
    INFEASIBLE = "infeasible"  # every candidate violates a constraint
    ENGINE_FAILED = "engine_failed"
    PLAN_REFUSED = "plan_refused"  # the engine's result is not finite or breaks the limits

    def __str__(self) -> str:
        return self.value


# Reason of a plan for each reason to refuse a history.
OF_HISTORY = {
    Reason.WARMING_UP: PlanReason.WARMING_UP,
    Reason.HISTORY_GAP: PlanReason.HISTORY_GAP,
    Reason.ACTIONS_UNKNOWN: PlanReason.ACTIONS_UNKNOWN,
    Reason.ACTION_UNTRAINED: PlanReason.ACTION_UNTRAINED,
    Reason.STATE_UNKNOWN: PlanReason.STATE_UNKNOWN,
    Reason.LATENT_NOT_FINITE: PlanReason.LATENT_NOT_FINITE,
}


def _nothing() -> NDArray:
    return np.zeros(0, np.float32)


@dataclass(slots=True)
class Plan:
    """Actions to execute from `tick` on, with their evidence; invalid until proven otherwise.

    `actions` and `z_future` are None unless the plan is valid; every array is a read-only view of
    the planner's buffers, valid until its next plan: keep one with `copy()`.

    Args:
        actions: `float32 [H*B, a]` in robot units, the first one for `tick`.
        z_future: `float32 [H, D]` latents the model expects after each block of them; None also
            for a plan that was handed on.
        cost: predicted cost of the actions; NaN without any.
        violation: by how much constraints are violated; 0 or less is feasible.
        iterations: how many were run.
        costs: `float32 [iterations]` best cost after each.
        spread: `float32 [iterations]` mean standard deviation after each, as a share of the first
            one's.
        candidate_costs: `float32 [N]` of the last iteration; 3e38 where a candidate is invalid.
        candidate_violations: `float32 [N]` likewise, 0 or less is feasible; empty without hazards.
        invalid: candidates whose cost was not finite, in all iterations together.
        planned_ms: time from the call to the plan.
        parts_ms: the same by part, e.g. `{"goal": 3.1, "noise": 0.2, "iterations": 40.5}`.
        valid: the actions may be executed.
        reason: why not, or `OK` or `HANDED_ON`.
        tick: of the newest frame it was planned from.
        ticks_old: of a plan that was handed on, ticks since it was made.
        planner: name of its graph.
    """

    actions: NDArray | None = None
    z_future: NDArray | None = None
    cost: float = float("nan")
    violation: float = float("nan")
    iterations: int = 0
    costs: NDArray = field(default_factory=_nothing)
    spread: NDArray = field(default_factory=_nothing)
    candidate_costs: NDArray = field(default_factory=_nothing)
    candidate_violations: NDArray = field(default_factory=_nothing)
    invalid: int = 0
    planned_ms: float = 0.0
    parts_ms: dict[str, float] = field(default_factory=dict)
    valid: bool = False
    reason: PlanReason = PlanReason.NOT_PLANNED
    tick: int = -1
    ticks_old: int = 0
    planner: str = ""

    def copy(self) -> Plan:
        """Copy the plan with arrays of its own, to keep beyond the next one."""
        return replace(
            self,
            actions=None if self.actions is None else self.actions.copy(),
            z_future=None if self.z_future is None else self.z_future.copy(),
            costs=self.costs.copy(),
            spread=self.spread.copy(),
            candidate_costs=self.candidate_costs.copy(),
            candidate_violations=self.candidate_violations.copy(),
            parts_ms=dict(self.parts_ms),
        )
