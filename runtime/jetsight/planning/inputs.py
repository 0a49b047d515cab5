"""Fill a planner's input arrays from one request and the newest history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError, unknown
from jetsight.planning.goal import Goal, GoalLike
from jetsight.planning.limits import NO_LIMIT, Limits
from jetsight.planning.plan import OF_HISTORY, PlanReason
from jetsight.planning.planner import Planner
from jetsight.stream.frames import Reason
from jetsight.stream.loop import StreamState

_LATENT_WEIGHTS = ("terminal", "running", "support")


def arrival(horizon: int, block: int, ticks: int | None = None) -> NDArray:
    """How much each step of a plan counts for the goal, `[H]`: those at its end, equally.

    The first that counts is the last one that ends in time. One that ends later would put off the
    goal by what is missing to a whole step, and again with the next plan.

    Args:
        horizon: H.
        block: ticks of a step.
        ticks: until the goal is due, and kept from then on; None, or more, for the last step alone.

    Raises:
        UsageError: `ticks` is no whole number from 1.
    """
    if ticks is None:
        ticks = horizon * block
    if not isinstance(ticks, (int, np.integer)) or ticks < 1:
        raise UsageError(f"arrive_ticks is {ticks!r}, expected an integer from 1")
    first = min(max(int(ticks) // block, 1), horizon) - 1
    when: NDArray = np.zeros(horizon, np.float32)
    when[first:] = 1.0 / (horizon - first)
    return when


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One call of `Session.imagine`; see there."""

    goal: GoalLike
    deadline_ms: float | None = None
    planner: str | None = None
    iterations: int | None = None
    limits: Limits | None = None
    weights: Mapping[str, float] | None = None
    constrain: bool = True
    seed: int | None = None
    warm: bool = True
    arrive_ticks: int | None = None


def _fill_world(planner: Planner, newest: StreamState) -> PlanReason | None:
    """Where the robot is, and what it did last; the reason if nobody knows."""
    if newest.tick < 0:
        return PlanReason.WARMING_UP
    facts, inputs = planner.facts, planner.inputs
    last = inputs["a_last"].reshape(1, -1)
    reason, known = newest.forecaster.context(
        newest.tick, inputs["z_hist"], planner.past_actions, last
    )
    if reason is None and not known and (facts.rate_limited or facts.start == "hold"):
        reason = Reason.ACTIONS_UNKNOWN
    if reason is not None:
        return OF_HISTORY[reason]
    if not (np.isfinite(planner.past_actions).all() and np.isfinite(last).all()):
        return PlanReason.ACTIONS_UNKNOWN
    return PlanReason.FRAME_STALE if newest.stale else None


def _deadline(deadline_ms: float | None, start_ns: int) -> int | None:
    if deadline_ms is None:
        return None
    if not (math.isfinite(deadline_ms) and deadline_ms >= 0):
        raise UsageError(f"deadline_ms is {deadline_ms}, expected milliseconds from 0")
    return start_ns + round(deadline_ms * 1e6)


def _fill_wishes(
    spec: PlanSpec, planner: Planner, goal: Goal, limits: Limits, wish: PlanRequest
) -> None:
    """Everything that is said in the call, and nothing that is measured."""
    inputs, facts, heads = planner.inputs, planner.facts, spec.heads
    if limits.rate_per_s is not None and not facts.rate_limited:
        raise UsageError(
            f"planner {facts.graph} takes no rate limit; compile the bundle again with one that "
            "does, or give none"
        )
    rate = inputs.get("rate", np.zeros_like(spec.low))
    limits.fill(spec, inputs["low"], inputs["high"], rate)
    nothing = np.zeros(0, np.float32)  # what there is no probe for has no array
    given = inputs.get("probe_given", nothing)
    goal.fill_targets(heads, inputs.get("probe_target", nothing), given)
    _fill_weights(spec, planner, goal, given, wish.weights or {})
    inputs["when"][:] = arrival(facts.horizon, spec.stream.action_block, wish.arrive_ticks)
    if "hazard_limit" in inputs:
        thresholds = [hazard.threshold for hazard in heads.hazards]
        inputs["hazard_limit"][:] = thresholds if wish.constrain else NO_LIMIT
    if "temperature" in inputs:
        inputs["temperature"][:] = facts.temperature


def _fill_weights(
    spec: PlanSpec, planner: Planner, goal: Goal, given: NDArray, wanted: Mapping[str, float]
) -> None:
    """Weights of the call, else the planner's; without a latent to reach, only targets count."""
    facts, quantities = planner.facts, spec.heads.quantities
    for name, weight in wanted.items():
        if name not in (*_LATENT_WEIGHTS, *quantities):
            raise unknown("weight", name, [*_LATENT_WEIGHTS, *quantities])
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"the weight of {name!r} is {weight}, expected a number from 0")
    only_targets = goal.image_hwc_u8 is None and goal.z is None
    for i, name in enumerate(_LATENT_WEIGHTS):
        default = 0.0 if only_targets and name != "support" else getattr(facts.weights, name)
        planner.inputs["weights"][i] = wanted.get(name, default)
    for i, name in enumerate(quantities):
        default = facts.probe_weight.get(name, 0.0)
        if given[i]:
            default = default or 1.0
        elif only_targets:
            default = 0.0
        planner.inputs["probe_weight"][i] = wanted.get(name, default)
