"""Report of one plan: its data, the values derived from them, and their texts and JSON.

Shapes: H horizon, B ticks per block, a size of one robot action, N samples, D latent size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jetsight.bundle.model_spec import ActionSpec
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.plan_report.nearest_frames import Neighbour
from jetsight.plan_report.start import Resized, Start, StartKind
from jetsight.planning.goal import PlanRequest
from jetsight.planning.inputs import arrival
from jetsight.planning.plan import BROKEN_COST, Plan

_KINDS = {
    StartKind.RECORDED: "recorded: its history, and the actions that were executed",
    StartKind.HISTORY: "images one block apart; assumed: the {held} action was held",
    StartKind.AT_REST: "a scene at rest: one image repeated; assumed: the {held} action was held",
}


class RanOn(NamedTuple):
    """Names of everything that a plan was computed with.

    Args:
        bundle: its name.
        backend: its name.
        family: its name.
        precision: of the planner's graph.
    """

    bundle: str
    backend: str
    family: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """A plan with everything needed to explain it.

    Args:
        plan: a copy of the planner's result.
        request: that it answers.
        start: that it begins from.
        frame_source: name of the newest frame, as it was typed.
        goal_source: name of the goal's image; None for a goal of targets alone.
        resized: frames that had another size than the model's.
        facts: of the planner that ran.
        spec: of the model and the robot.
        action: of the robot, with units.
        ran_on: names of bundle, backend, family and precision.
        z_now: `[D]` newest latent; None when it is not finite.
        z_goal: `[D]` latent of the goal's image; None for a goal of targets alone.
        neighbours: the recorded frame nearest to each imagined latent.
        library: dataset of the neighbours; empty without one.
    """

    plan: Plan
    request: PlanRequest
    start: Start
    frame_source: str
    goal_source: str | None = None
    resized: Sequence[Resized] = ()
    facts: PlannerSpec
    spec: PlanSpec
    action: ActionSpec
    ran_on: RanOn
    z_now: NDArray | None = None
    z_goal: NDArray | None = None
    neighbours: Sequence[Neighbour] = ()
    library: str = ""

    @property
    def told(self) -> tuple[str, str]:
        """Readable start and goal of the plan."""
        held = "neutral" if self.start.neutral_held else "last"
        start = f"{self.frame_source} ({_KINDS[self.start.kind].format(held=held)})"
        sizes = [f"{each.label} from {each.width_px}x{each.height_px}" for each in self.resized]
        if sizes:
            start += f"; resized: {', '.join(dict.fromkeys(sizes))}"
        goals = [self.goal_source] if self.goal_source else []
        goals += [f"{name} = {value:g}" for name, value in self.targets.items()]
        return start, ", ".join(goals)

    @property
    def targets(self) -> Mapping[str, float]:
        """Target value by quantity."""
        return self.request.goal.targets

    @property
    def past(self) -> NDArray:
        """`[n, a]` actions before the first of the plan."""
        return self.start.actions

    @property
    def block(self) -> int:
        """B."""
        return self.spec.stream.action_block

    @property
    def hz(self) -> float:
        """Ticks per second."""
        return self.spec.stream.camera_hz

    @property
    def bounds(self) -> tuple[NDArray, NDArray]:
        """`[a]` smallest and largest action of the plan."""
        low, high = self.request.limits.low, self.request.limits.high
        return (
            self.spec.low if low is None else np.asarray(low, np.float32),
            self.spec.high if high is None else np.asarray(high, np.float32),
        )

    @property
    def constrained(self) -> bool:
        """The plan had hazards to obey."""
        return self.request.constrain and bool(self.spec.heads.hazards)

    @property
    def distances(self) -> NDArray | None:
        """`[H]` squared distance to the goal after each block; None without both ends."""
        if self.z_goal is None or self.plan.z_future is None:
            return None
        return distance(self.plan.z_future, self.z_goal)

    @property
    def distance_now(self) -> float | None:
        """Squared distance to the goal before the first action."""
        if self.z_goal is None or self.z_now is None:
            return None
        return float(distance(self.z_now, self.z_goal))

    @property
    def cost_parts(self) -> dict[str, float]:
        """The plan's cost: once the goal is due, along the way, and the rest (probe, support)."""
        far = self.distances
        if far is None:
            return {}
        weights = self.facts.weights
        when = arrival(len(far), self.block, self.request.arrive_ticks)
        terminal = weights.terminal * float(far @ when)
        running = weights.running * float(far.mean())
        rest = self.plan.cost - terminal - running
        # A remainder this small is the rounding of a quantized graph.
        visible = abs(rest) > 0.01 * abs(self.plan.cost)
        parts = {"end": terminal, "way": running, "probe and support": rest if visible else 0.0}
        return {name: value for name, value in parts.items() if value}

    @property
    def refused(self) -> NDArray:
        """`[N]` candidates of the last iteration that violate a constraint."""
        violations = self.plan.candidate_violations
        if not self.constrained or not len(violations):
            return np.zeros(len(self.plan.candidate_costs), bool)
        # A candidate that is not finite is counted as invalid, not as refused.
        return np.asarray((violations > 0) & (violations < BROKEN_COST))

    @property
    def ranking(self) -> NDArray:
        """`[N]` places of the candidates, best first: feasible, infeasible, invalid ones."""
        costs, violations = self.plan.candidate_costs, self.plan.candidate_violations
        return ranked(costs, violations if self.refused.any() else np.zeros_like(costs))


def ranked(costs: NDArray, violations: NDArray) -> NDArray:
    """Rank candidates `[N]` as planners do; returns their places, best first.

    Feasible ones by cost, then infeasible ones by violation, then those that are no numbers.
    """
    worse = violations > 0.0
    # Invalid first: 3e38 also stands in their violations and would make them infeasible.
    kind = np.where(costs >= BROKEN_COST, 2, worse.astype(int))
    return np.lexsort((np.where(worse, violations, costs), kind))


def distance(z: NDArray, z_goal: NDArray) -> NDArray:
    """Compute the squared distance of latents `[..., D]` as planners do."""
    # In float64: near the goal the difference of float32 latents is small.
    return np.asarray(np.square(np.asarray(z, np.float64) - z_goal).sum(axis=-1))


def as_json(report: PlanReport) -> dict[str, Any]:
    """Convert a report to what `json.dumps` takes; numbers that are not finite are null."""
    plan, far, (start, goal) = report.plan, report.distances, report.told
    costs, violations = (
        [_finite(value) for value in values]
        for values in (plan.candidate_costs, plan.candidate_violations)
    )
    return {
        "bundle": report.ran_on.bundle,
        "planner": report.facts.graph,
        "backend": report.ran_on.backend,
        "family": report.ran_on.family,
        "precision": report.ran_on.precision,
        "start": start,
        "goal": goal,
        "targets": dict(report.targets),
        "arrive": report.request.arrive_ticks,
        "valid": plan.valid,
        "reason": str(plan.reason),
        "tick": plan.tick,
        "actions": _list(plan.actions),
        "names": list(report.action.names),
        "units": list(report.action.units),
        "camera_hz": report.hz,
        "action_block": report.block,
        "cost": _finite(plan.cost),
        "cost_parts": report.cost_parts,
        "violation": _finite(plan.violation),
        "constrained": report.constrained,
        "iterations": plan.iterations,
        "costs": [_finite(c) for c in plan.costs],
        "spread": [_finite(s) for s in plan.spread],
        "candidate_costs": costs,
        "candidate_violations": violations,
        "invalid": plan.invalid,
        "planned_ms": plan.planned_ms,
        "parts_ms": plan.parts_ms,
        "distance_now": report.distance_now,
        "distances": _list(far),
        "z_future": _list(plan.z_future),
        "library": report.library or None,
        "nearest": [
            {"episode": n.episode, "tick": n.tick, "distance": n.distance}
            for n in report.neighbours
        ],
    }


def _list(values: NDArray | None) -> list[Any] | None:
    return None if values is None else values.tolist()


def _finite(value: float) -> float | None:
    # JSON has no NaN, and 3e38 only stands for a cost that is not finite.
    return float(value) if math.isfinite(value) and value < BROKEN_COST else None
