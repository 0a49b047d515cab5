"""The planner against the clock: stops in time, always with something, never with an exception."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.runtime.planner_factory import HERE, SPEC, Rig, bare_planner, latent

from jetsight.bundle.planner_spec import HazardSpec, HeadSpec
from jetsight.errors import UsageError
from jetsight.planning.limits import Limits
from jetsight.planning.plan import PlanReason
from jetsight.planning.time_budget import IterationTimer
from jetsight.testing import (
    FakeClock,
    FakeEngine,
    FakeImagine,
    shots,
    tiny_plan_spec,
    tiny_planner,
)

MS = 1_000_000
GOAL = latent(HERE + 10)


@pytest.mark.parametrize("deadline_ms", [10, 19, 20, 55, 1000])
def test_no_iteration_is_begun_that_would_end_late(deadline_ms: float) -> None:
    rig = Rig(latency_ns=10 * MS)
    rig.session.load_planner()
    begun = rig.clock.now_ns()
    plan = rig.session.imagine(GOAL, deadline_ms)
    assert plan.valid
    assert plan.iterations == min(12, deadline_ms // 10)
    assert plan.planned_ms == (rig.clock.now_ns() - begun) / MS == 10.0 * plan.iterations
    assert plan.parts_ms["iterations"] == plan.planned_ms


def test_more_time_gives_no_worse_plans() -> None:
    costs = []
    for deadline_ms in (10, 20, 40, 80, 160):
        rig = Rig(latency_ns=10 * MS)
        costs.append(rig.session.imagine(GOAL, deadline_ms).cost)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_loading_is_not_held_against_the_deadline() -> None:
    rig = Rig(latency_ns=10 * MS)
    plan = rig.session.imagine(GOAL, 30)
    assert (plan.iterations, plan.planned_ms, plan.parts_ms["load"]) == (3, 50.0, 20.0)


@pytest.mark.parametrize("deadline_ms", [0, 0.001, 9.99])
def test_no_time_for_an_iteration_is_no_plan(deadline_ms: float) -> None:
    rig = Rig(latency_ns=10 * MS)
    rig.session.load_planner()
    runs = rig.runs
    plan = rig.session.imagine(GOAL, deadline_ms)
    assert (plan.valid, plan.actions, plan.reason) == (False, None, PlanReason.DEADLINE)
    assert (plan.iterations, len(plan.costs), rig.runs) == (0, 0, runs)
    assert math.isnan(plan.cost)


def test_the_plan_before_is_handed_on_shifted() -> None:
    rig = Rig(latency_ns=10 * MS)
    first = rig.session.imagine(GOAL, 1000).copy()
    planner = rig.session._pool.planner()
    for ticks in (0, 1, 3, 9):
        plan = planner.plan(19 + ticks, rig.clock.now_ns() + MS)
        assert (plan.valid, plan.reason, plan.ticks_old) == (True, PlanReason.HANDED_ON, ticks)
        assert (plan.iterations, plan.cost, plan.tick) == (0, first.cost, 19 + ticks)
        assert first.actions is not None
        expected = np.concatenate([first.actions[ticks:], np.tile(first.actions[-1], (ticks, 1))])
        np.testing.assert_array_equal(plan.actions, expected)
    over = planner.plan(29, rig.clock.now_ns() + MS)
    assert over.reason is PlanReason.DEADLINE


def test_a_plan_for_something_else_is_not_handed_on() -> None:
    heads = HeadSpec(hazards=(HazardSpec("wall", 1000.0, 0.05),))
    rig = Rig(latency_ns=2 * MS, heads=heads)
    rig.session.imagine(GOAL, 1000)
    again = rig.session.imagine(GOAL, 1)
    assert again.reason is PlanReason.HANDED_ON  # negative control of all that follow
    tight = Limits(low=[-0.1, -0.1], high=[0.1, 0.1])
    for changed in (
        {"goal": GOAL + 1},
        {"weights": {"running": 1.0}},
        {"constrain": False},
        {"warm": False},
        {"limits": tight},
    ):
        plan = rig.session.imagine(**{"goal": GOAL, "deadline_ms": 1, **changed})
        assert (plan.valid, plan.reason) == (False, PlanReason.DEADLINE), changed
    rig.watch(shots(20))  # another stream
    assert rig.session.imagine(GOAL, 1).reason is PlanReason.DEADLINE


def test_a_handed_on_plan_obeys_the_rate_from_the_action_that_was_done() -> None:
    planner = tiny_planner(rate_limited=True)
    rig = Rig(planner, latency_ns=10 * MS, rate_per_tick=np.full(2, 1.0, np.float32))
    first = rig.session.imagine(GOAL, 1000)
    used = rig.session._pool.planner()
    assert first.actions is not None
    used.inputs["a_last"][:] = first.actions[0]
    assert used.plan(20, 0).reason is PlanReason.HANDED_ON
    used.inputs["a_last"][:] = 7.0  # another program moved the robot
    assert used.plan(20, 0).reason is PlanReason.DEADLINE


@pytest.mark.parametrize("deadline_ms", [-1, math.nan, math.inf])
def test_a_deadline_that_is_none_is_a_wrong_call(deadline_ms: float) -> None:
    with pytest.raises(UsageError, match=r"deadline_ms is .*, expected milliseconds from 0"):
        Rig().session.imagine(GOAL, deadline_ms)


def test_a_machine_that_was_busy_for_a_moment_plans_again() -> None:
    facts, clock = tiny_planner(), FakeClock()
    spec = tiny_plan_spec(SPEC, facts)
    slow = dict.fromkeys(range(2, 10), 50 * MS)
    world = FakeImagine(spec, facts)
    late = {"clock": clock, "latency_ns": lambda run: slow.get(run, 10 * MS)}
    planner = bare_planner(FakeEngine(*world.arrays(), world, **late), facts, spec, clock)
    reasons = [
        planner.plan(tick, clock.now_ns() + 35 * MS, warm=False).reason for tick in range(200)
    ]
    assert 0 < reasons.count(PlanReason.DEADLINE) < 150
    assert reasons[-1] is PlanReason.OK


def test_pace_begins_with_the_fastest_and_goes_on_with_the_slowest() -> None:
    pace = IterationTimer()
    assert pace.affordable(1, started=False) == 1  # nothing is known yet
    assert pace.affordable(0, started=False) == 0
    for elapsed in (10, 40, 20, 20):
        pace.add(elapsed, 1)
    assert pace.affordable(10, started=False) == 1
    assert pace.affordable(39, started=True) == 0
    assert pace.affordable(80, started=True) == 2
    pace.add(80, 8)  # the oldest is forgotten
    assert pace.affordable(9, started=False) == 0
    refused = next(n for n in range(1000) if pace.affordable(9, started=False))
    assert 5 < refused < 20
