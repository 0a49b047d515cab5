"""Plan reports made from nothing: a valid plan of two blocks, to be changed by each test."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.runtime.imagine_factory import heads
from helpers.runtime.planner_factory import KINDS, SPEC
from jetsight.bundle.model_spec import ActionSpec
from jetsight.plan_report.report import PlanReport, RanOn
from jetsight.plan_report.start import Start, StartKind
from jetsight.planning.goal import Goal, PlanRequest
from jetsight.planning.plan import Plan, PlanReason
from jetsight.testing import tiny_plan_spec

RNG = np.random.default_rng(0)
COSTS = np.sort(RNG.uniform(1, 4, 32)).astype(np.float32)
ACTION = ActionSpec(
    names=("x", "y"),
    units=("px", "px"),
    low=(-8.0, -8.0),
    high=(8.0, 8.0),
    rate_limit_per_s=None,
    neutral=(0.0, 0.0),
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
)
START = Start(
    frames_u8=(np.full((8, 8, 3), 100, np.uint8),) * 3,
    actions=np.zeros((15, 2), np.float32),
    tick=10,
    kind=StartKind.AT_REST,
    neutral_held=True,
)


def report(
    plan: dict[str, Any] | None = None, request: dict[str, Any] | None = None, **changes: Any
) -> PlanReport:
    """A valid plan of two blocks of five ticks; with changes of it, its request, and the rest."""
    facts: dict[str, Any] = {
        "actions": RNG.uniform(-8, 8, (10, 2)),
        "z_future": np.ones((2, 4), np.float32),
        "cost": float(COSTS[0]),
        "violation": 0.0,
        "iterations": 3,
        "spread": np.ones(3) / 2,
        "costs": np.array([9, 4, COSTS[0]], np.float32),
        "candidate_costs": COSTS,
        "valid": True,
        "reason": PlanReason.OK,
        "planned_ms": 12.5,
    }
    fields: dict[str, Any] = {
        "plan": Plan(**{**facts, **(plan or {})}),
        "request": PlanRequest(**{"goal": Goal(), **(request or {})}),
        "start": START,
        "frame_source": "now.png",
        "goal_source": "goal.png",
        "facts": KINDS["cem"],
        "spec": tiny_plan_spec(SPEC, heads=heads()),
        "action": ACTION,
        "ran_on": RanOn("nano", "openvino", "cpu-int8", "int8"),
        "z_now": np.zeros(4),
        "z_goal": np.full(4, 2.0),
    }
    return PlanReport(**{**fields, **changes})
