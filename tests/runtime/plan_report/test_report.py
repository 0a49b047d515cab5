"""What a report makes of a plan: distances, parts of the cost, and whom constraints refuse."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from helpers.runtime.plan_reports import START, report

from jetsight.bundle.planner_spec import CostWeights
from jetsight.plan_report.report import as_json, distance
from jetsight.plan_report.start import Resized, StartKind
from jetsight.planning.goal import Goal
from jetsight.testing import tiny_planner

RNG = np.random.default_rng(1)


def test_candidates_are_ranked_as_planners_rank_them() -> None:
    """The control is the order of the costs alone, which is another one."""
    costs = RNG.uniform(1, 4, 16).astype(np.float32)
    violations = np.where(RNG.uniform(size=16) < 0.4, RNG.uniform(1, 2, 16), 0).astype(np.float32)
    costs[3] = violations[3] = 3e38
    plan = {"candidate_costs": costs, "candidate_violations": violations}
    ranked = report(plan).ranking
    good = int((violations <= 0).sum())
    assert (np.diff(costs[ranked[:good]]) > 0).all()
    assert (np.diff(violations[ranked[good:]]) > 0).all()
    assert (violations[ranked[:good]] == 0).all()
    assert ranked[-1] == 3
    assert (ranked != np.argsort(costs)).any()
    free = report(plan, request={"constrain": False}).ranking
    assert free.tolist() == np.argsort(costs, kind="stable").tolist()


def test_without_a_constraint_nobody_is_refused() -> None:
    costs = np.array([1, 2, 3e38], np.float32)
    plan = {"candidate_costs": costs, "candidate_violations": np.array([0.1, 0, 3e38])}
    assert report(plan).refused.tolist() == [True, False, False]
    assert not report(plan, request={"constrain": False}).refused.any()
    assert not report({"candidate_costs": costs}).refused.any()


def test_distances_are_squared_and_summed() -> None:
    found = report()
    assert found.distance_now == 16.0
    assert found.distances is not None
    assert found.distances.tolist() == [4.0, 4.0]
    assert distance(np.zeros((2, 3)), np.ones(3)).tolist() == [3.0, 3.0]
    for nothing in (report(z_goal=None), report({"z_future": None})):
        assert nothing.distances is None
        assert nothing.cost_parts == {}


def test_a_cost_is_taken_apart() -> None:
    facts = tiny_planner(weights=CostWeights(terminal=0.5, running=0.25))
    found = report({"cost": 3.5}, facts=facts)
    assert found.cost_parts == {"end": 2.0, "way": 1.0, "probe and support": pytest.approx(0.5)}
    rounded = report({"cost": 3.001}, facts=facts)  # what INT8 rounds off is no part
    assert rounded.cost_parts.keys() == {"end", "way"}


def test_a_goal_that_is_due_early_counts_every_step_from_then_on() -> None:
    facts = tiny_planner(weights=CostWeights(terminal=0.5, running=0.25))
    approaching = {"cost": 9.0, "z_future": np.array([[0.0] * 4, [1.0] * 4], np.float32)}
    for ticks, end in (
        (1, 5.0),
        (9, 5.0),
        (10, 2.0),
        (None, 2.0),
    ):  # blocks of 5 ticks, 16 and 4 off
        parts = report(approaching, facts=facts, request={"arrive_ticks": ticks}).cost_parts
        assert (parts["end"], parts["way"]) == (end, 2.5)


def test_what_is_not_finite_is_null_in_json() -> None:
    costs = np.array([1, 3e38, np.nan], np.float32)
    found = as_json(report({"cost": float("nan"), "costs": costs, "candidate_costs": costs[:2]}))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["costs"] == [1.0, None, None]
    assert (found["cost"], found["candidate_costs"]) == (None, [1.0, None])


def test_a_start_names_its_origin_and_what_was_assumed() -> None:
    def text(kind: StartKind, neutral_held: bool = False, **changes: Any) -> str:
        start = dataclasses.replace(START, kind=kind, neutral_held=neutral_held)
        return report(start=start, **changes).told[0]

    at_rest = text(StartKind.AT_REST, True)
    assert at_rest.startswith("now.png (a scene at rest: one image repeated; assumed: the ")
    assert "the neutral action was held" in at_rest
    assert "the last action was held" in text(StartKind.HISTORY)
    assert "assumed" not in text(StartKind.RECORDED)
    sizes = [Resized("a.png", 24, 16)] * 2 + [Resized("b.png", 6, 4)]
    assert text(StartKind.RECORDED, resized=sizes).endswith(
        "; resized: a.png from 24x16, b.png from 6x4"
    )


def test_a_goal_names_its_image_and_its_targets() -> None:
    goal = {"goal": Goal.probe(block_x=300.0)}
    assert report(request=goal).told[1] == "goal.png, block_x = 300"
    assert report(request=goal, goal_source=None).told[1] == "block_x = 300"
