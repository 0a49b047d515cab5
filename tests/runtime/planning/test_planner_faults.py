"""Whatever breaks, no broken number becomes an action, and the next plan is whole again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from helpers.runtime.planner_factory import HERE, SPEC, NDArray, Rig, bare_planner, latent
from hypothesis import given, settings
from hypothesis import strategies as st

from jetsight.bundle.planner_spec import HazardSpec, HeadSpec
from jetsight.planning.limits import LimitChecker
from jetsight.planning.plan import Plan, PlanReason
from jetsight.testing import FakeEngine, FakeImagine, shots, tiny_plan_spec, tiny_planner

GOAL = latent(HERE + 10)
PLANNER = tiny_planner()
WALL = HeadSpec(hazards=(HazardSpec("wall", HERE + 5, 0.05),))
Change = Callable[[Mapping[str, NDArray], Mapping[str, NDArray]], None]


def world(spoil: Callable[[NDArray], None] | None = None, after: Change | None = None) -> Any:
    """The fake graph, spoiled inside or after it is done."""
    compute = FakeImagine(tiny_plan_spec(SPEC), PLANNER, spoil=spoil)

    def spoiled(given: Mapping[str, NDArray], out: Mapping[str, NDArray]) -> None:
        compute(given, out)
        if after is not None:
            after(given, out)

    return {PLANNER.graph: {"compute": spoiled}}


def check_is_none(plan: Plan, reason: PlanReason) -> None:
    assert (plan.valid, plan.actions, plan.z_future, plan.reason) == (False, None, None, reason)


@settings(max_examples=30)
@given(st.sets(st.integers(0, 32)), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 3))
def test_candidates_that_are_not_finite_never_win(
    broken: set[int], value: float, where: int
) -> None:
    def spoil(z: NDArray) -> None:
        z[sorted(broken), -1, where] = value

    spec = tiny_plan_spec(SPEC)
    compute = FakeImagine(spec, PLANNER, spoil=spoil)
    planner = bare_planner(FakeEngine(*compute.arrays(), compute), PLANNER, spec)
    plan = planner.plan(0, iterations=3)
    assert plan.invalid == 3 * len(broken - {32})
    assert (plan.candidate_costs >= 1e38).sum() == len(broken - {32})
    if len(broken) == 33:
        check_is_none(plan, PlanReason.ALL_INVALID)
    else:
        assert plan.valid
        assert plan.actions is not None
        assert np.isfinite(plan.actions).all()
        assert np.isfinite(plan.cost)


def test_only_the_first_iterations_are_broken_and_the_rest_makes_a_plan() -> None:
    calls = []

    def spoil(z: NDArray) -> None:
        calls.append(1)
        if len(calls) < 6:
            z[:] = np.nan

    plan = Rig(script=world(spoil)).session.imagine(GOAL)
    assert plan.valid
    assert plan.invalid == 3 * 32  # two broken runs warmed the engine up
    assert plan.costs[2] >= 1e38 > plan.costs[3]


@pytest.mark.parametrize("name", ["actions", "cost", "violation", "z_future"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_comes_out_broken_is_refused(name: str, value: float) -> None:
    def after(given: Mapping[str, NDArray], out: Mapping[str, NDArray]) -> None:
        out[name].reshape(-1)[-1] = value

    plan = Rig(script=world(after=after)).session.imagine(GOAL)
    assert not plan.valid
    assert plan.actions is None
    assert plan.reason in (PlanReason.PLAN_REFUSED, PlanReason.ALL_INVALID, PlanReason.INFEASIBLE)


@pytest.mark.parametrize(("off", "valid"), [(0.01, True), (0.02, False), (-0.5, True)])
def test_rounding_is_put_back_inside_and_more_is_refused(off: float, valid: bool) -> None:
    def after(given: Mapping[str, NDArray], out: Mapping[str, NDArray]) -> None:
        out["actions"].reshape(-1)[3] = given["high"][1] + np.float32(off)

    plan = Rig(script=world(after=after)).session.imagine(GOAL)
    assert plan.valid == valid
    if valid:
        assert plan.actions is not None
        assert plan.actions.max() <= 8.0
    else:
        check_is_none(plan, PlanReason.PLAN_REFUSED)


def test_every_candidate_against_the_wall_is_no_plan() -> None:
    heads = HeadSpec(hazards=(HazardSpec("wall", HERE - 500, 0.05),))
    rig = Rig(heads=heads)
    plan = rig.session.imagine(GOAL)
    check_is_none(plan, PlanReason.INFEASIBLE)
    assert plan.violation > 0
    assert rig.session.imagine(GOAL, constrain=False).valid  # negative control


def test_a_constraint_is_obeyed_and_without_it_is_not() -> None:
    for constrain in (True, False):
        plan = Rig(heads=WALL).session.imagine(GOAL, constrain=constrain)
        assert plan.valid
        assert plan.z_future is not None
        assert (plan.z_future[:, 0].max() <= HERE + 5) == constrain
        assert plan.violation == 0.0


def test_a_broken_latent_is_no_plan_until_it_is_whole_again() -> None:
    rig = Rig(script={"encode": {"nan_at": [19]}})
    check_is_none(rig.session.imagine(GOAL), PlanReason.LATENT_NOT_FINITE)
    rig.watch(shots(20))
    assert rig.session.imagine(GOAL).valid


def test_a_broken_goal_is_no_plan() -> None:
    heads = HeadSpec(("x",), ("px",), (1.0,))
    rig = Rig(heads=heads, script={"encode": {"nan_at": [20]}})
    spoiled = GOAL.copy()
    for value in (np.nan, np.inf):
        spoiled[2] = value
        check_is_none(rig.session.imagine(spoiled), PlanReason.GOAL_NOT_FINITE)
        check_is_none(rig.session.imagine({"x": value}), PlanReason.GOAL_NOT_FINITE)
    image = np.full((8, 8, 3), 110, np.uint8)
    check_is_none(rig.session.imagine(image), PlanReason.GOAL_NOT_FINITE)
    check_is_none(rig.session.imagine(image), PlanReason.GOAL_NOT_FINITE)
    assert rig.session.imagine(GOAL).valid


def test_an_engine_that_fails_is_no_plan_and_the_loop_goes_on() -> None:
    rig = Rig(script={PLANNER.graph: {"fail_at": [2, 17]}, "encode": {"fail_at": [20]}})
    image = np.full((8, 8, 3), 110, np.uint8)
    check_is_none(rig.session.imagine(image), PlanReason.ENGINE_FAILED)  # the encoder
    check_is_none(rig.session.imagine(GOAL), PlanReason.ENGINE_FAILED)
    assert rig.session.imagine(GOAL).valid
    check_is_none(rig.session.imagine(GOAL, iterations=8), PlanReason.ENGINE_FAILED)
    assert rig.session.imagine(image).valid


@pytest.mark.parametrize("planner", [PLANNER, tiny_planner(context=1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_was_reported_broken_is_unknown(planner: Any, value: float) -> None:
    broken = np.array([0.0, value], np.float32)
    rig = Rig(planner, frames=[*shots(19), *shots(1, action=broken)])
    check_is_none(rig.session.imagine(GOAL), PlanReason.ACTIONS_UNKNOWN)


@pytest.mark.parametrize("name", ["a_last", "low", "high", "rate"])
def test_limits_that_are_broken_admit_nothing(name: str) -> None:
    facts = tiny_planner(rate_limited=True)
    spec = tiny_plan_spec(SPEC, facts)
    given = {key: np.full(2, value, np.float32) for key, value in LIMITS.items()}
    admission, actions = LimitChecker(spec, given, 4), np.ones((4, 2), np.float32)
    assert admission.admits(actions)  # negative control
    given[name][1] = np.nan
    assert not admission.admits(actions)


LIMITS = {"a_last": 0.0, "low": -2.0, "high": 2.0, "rate": 1.0}


@settings(max_examples=60)
@given(
    st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4),
    st.floats(-9, 9, width=32),
    st.floats(0.125, 9, width=32),
)
def test_what_is_admitted_is_inside_and_no_faster_than_allowed(
    path: list[float], last: float, rate: float
) -> None:
    spec = tiny_plan_spec(SPEC, tiny_planner())
    limits = {**LIMITS, "a_last": last, "rate": rate}
    given = {key: np.full(2, value, np.float32) for key, value in limits.items()}
    actions = np.repeat(np.float32(path)[:, None], 2, axis=1)
    if not LimitChecker(spec, given, 4).admits(actions):
        return
    assert (actions >= -2).all()
    assert (actions <= 2).all()
    steps = np.abs(np.diff(np.concatenate([[last], actions[:, 0]])))
    allowed = np.full(4, rate + 0.04)
    allowed[0] = max(rate, abs(last) - 2) + 0.04  # the way back into bounds may be long
    assert (steps <= allowed).all()
