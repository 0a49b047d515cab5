"""One plan with everything needed to tell about it, in words, as JSON or as a picture.

Shapes: H horizon, B ticks per block, a size of one robot action, N samples, D latent size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jetsight.bundle.model_spec import ActionSpec
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.plan_report.nearest_frames import Neighbour
from jetsight.planning.inputs import arrival
from jetsight.planning.plan import BROKEN_COST, Plan


@dataclass(frozen=True)
class PlanReport:
    """A plan, and everything needed to tell about it.

    Args:
        plan: what the planner said, a copy.
        facts: of the planner that ran.
        spec: of the model and the robot.
        action: of the robot, with units.
        ran_on: name of the bundle, backend, family, precision of the planner's graph.
        told: what was planned from, and what was known about it; what was planned towards.
        past: `[n, a]` actions before the first of the plan.
        low: `[a]` smallest action that was asked for; None for the robot's own.
        high: `[a]` largest.
        z_now: `[D]` newest latent; None when it is not finite.
        z_goal: `[D]` latent of the goal's image; None for a goal of targets alone.
        targets: value by quantity.
        arrive: ticks until the goal is due; None for the end of the horizon.
        heeds_hazards: the plan was asked to obey those there are.
        neighbours: the recorded frame nearest to each imagined latent.
        library: of which dataset.
    """

    plan: Plan
    facts: PlannerSpec
    spec: PlanSpec
    action: ActionSpec
    ran_on: tuple[str, str, str, str]
    told: tuple[str, str]
    past: NDArray
    low: NDArray | None = None
    high: NDArray | None = None
    z_now: NDArray | None = None
    z_goal: NDArray | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    arrive: int | None = None
    heeds_hazards: bool = True
    neighbours: Sequence[Neighbour] = ()
    library: str = ""

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
        low, high = self.low, self.high
        return self.spec.low if low is None else low, self.spec.high if high is None else high

    @property
    def constrained(self) -> bool:
        """There were hazards to obey."""
        return self.heeds_hazards and bool(self.spec.heads.hazards)

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
        weights, when = self.facts.weights, arrival(len(far), self.block, self.arrive)
        terminal, running = (
            weights.terminal * float(far @ when),
            weights.running * float(far.mean()),
        )
        rest = self.plan.cost - terminal - running
        # What a quantized graph rounds off is no part of the cost.
        visible = abs(rest) > 0.01 * abs(self.plan.cost)
        parts = {"end": terminal, "way": running, "probe and support": rest if visible else 0.0}
        return {name: value for name, value in parts.items() if value}

    @property
    def refused(self) -> NDArray:
        """`[N]` candidates of the last iteration that violate a constraint."""
        violations = self.plan.candidate_violations
        if not self.constrained or not len(violations):
            return np.zeros(len(self.plan.candidate_costs), bool)
        return np.asarray((violations > 0) & (violations < BROKEN_COST))

    @property
    def ranking(self) -> NDArray:
        """`[N]` places of the candidates, best first: feasible, infeasible, invalid ones."""
        costs, violations = self.plan.candidate_costs, self.plan.candidate_violations
        return ranked(costs, violations if self.refused.any() else np.zeros_like(costs))


def ranked(costs: NDArray, violations: NDArray) -> NDArray:
    """Places of candidates `[N]` as planners rank them, best first.

    Feasible ones by cost, then infeasible ones by violation, then those that are no numbers.
    """
    worse = violations > 0.0
    kind = np.where(costs >= BROKEN_COST, 2, worse.astype(int))
    return np.lexsort((np.where(worse, violations, costs), kind))


def distance(z: NDArray, z_goal: NDArray) -> NDArray:
    """Squared distance of latents `[..., D]`, as planners count it."""
    return np.asarray(np.square(np.asarray(z, np.float64) - z_goal).sum(axis=-1))


def as_json(report: PlanReport) -> dict[str, Any]:
    """All of it, as `json.dumps` takes it; numbers that are not finite are null."""
    plan, far = report.plan, report.distances
    name, backend, family, precision = report.ran_on
    costs, violations = (
        [_finite(value) for value in values]
        for values in (plan.candidate_costs, plan.candidate_violations)
    )
    return {
        "bundle": name,
        "planner": report.facts.graph,
        "backend": backend,
        "family": family,
        "precision": precision,
        "start": report.told[0],
        "goal": report.told[1],
        "targets": dict(report.targets),
        "arrive": report.arrive,
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
    return float(value) if math.isfinite(value) and value < BROKEN_COST else None


def _cost(value: float) -> str:
    return "invalid" if _finite(value) is None else f"{value:.4g}"
