"""The planner on fakes: what it finds, what decides it, and where it starts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.runtime.planner_factory import HERE, KINDS, SPEC, NDArray, Rig, bare_planner, latent

from jetsight.planning.limits import Limits
from jetsight.planning.plan import Plan, PlanReason
from jetsight.testing import FakeEngine, FakeImagine, Shot, shots, tiny_plan_spec, tiny_planner

LIMITED = tiny_planner(rate_limited=True)


def actions_of(plan: Plan) -> NDArray:
    assert plan.valid, plan.reason
    assert plan.actions is not None
    return plan.actions


@pytest.mark.parametrize("kind", KINDS)
def test_plan_leads_where_it_shall(kind: str) -> None:
    """The sum of what the first action number does is the way from here to the goal."""
    plan = Rig(KINDS[kind]).session.imagine(latent(HERE + 10))
    assert (plan.reason, plan.planner, plan.tick) == (PlanReason.OK, KINDS[kind].graph, 19)
    actions = actions_of(plan)
    assert plan.z_future is not None
    assert actions.shape == (10, 2)
    assert actions[:, 0].sum() == pytest.approx(10, abs=1.5)
    np.testing.assert_allclose(plan.z_future[-1], HERE + actions[:, 0].sum(), rtol=1e-5)
    assert plan.costs.tolist() == sorted(plan.costs, reverse=True)
    assert len(plan.costs) == len(plan.spread) == plan.iterations
    assert plan.cost == plan.costs[-1] < plan.costs[0]


def test_another_goal_gives_another_plan() -> None:
    """Negative control of the test above."""
    plan = Rig().session.imagine(latent(HERE - 10))
    assert actions_of(plan)[:, 0].sum() == pytest.approx(-10, abs=1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_plan_whatever_was_prepared(kind: str) -> None:
    facts = KINDS[kind]
    spec = tiny_plan_spec(SPEC, facts)

    def planned(prepare: int, seed: int | None) -> NDArray:
        world = FakeImagine(spec, facts)
        planner = bare_planner(FakeEngine(*world.arrays(), world), facts, spec)
        planner.plan(0, iterations=1)
        for _ in range(prepare):
            planner.prepare()
        return actions_of(planner.plan(0, seed=seed, warm=False)).copy()

    for seed in (None, 0, 7):
        np.testing.assert_array_equal(planned(0, seed), planned(5, seed))
        np.testing.assert_array_equal(planned(0, seed), planned(99, seed))
    for one, other in itertools.combinations((None, 0, 7), 2):  # negative control
        assert not np.array_equal(planned(0, one), planned(0, other))


def test_a_second_stream_is_planned_like_the_first() -> None:
    rig = Rig()
    first = rig.session.imagine(latent(HERE + 10)).copy()
    again = rig.session.imagine(latent(HERE + 10)).copy()  # goes on from the first
    rig.watch(shots(20))
    second = rig.session.imagine(latent(HERE + 10)).copy()
    np.testing.assert_array_equal(actions_of(first), actions_of(second))
    assert again.costs[0] <= first.costs[-1] < first.costs[0] == second.costs[0]


def test_iterations_are_exactly_as_many_as_asked_for() -> None:
    rig = Rig()
    rig.session.load_planner()
    for wanted in (1, 2, 12, 30):
        before = rig.runs
        plan = rig.session.imagine(latent(HERE + 10), iterations=wanted)
        assert (plan.iterations, rig.runs - before) == (wanted, wanted)
        assert len(plan.costs) == len(plan.spread) == wanted


def test_a_search_that_has_converged_ends_early() -> None:
    rig = Rig(tiny_planner(iterations=200))
    plan = rig.session.imagine(latent(HERE + 10))
    assert plan.iterations < 60
    assert plan.spread[-1] < 0.3
    assert all(plan.spread[:-1] >= 0.05)


def test_bounds_and_rate_hold_from_the_last_action_on() -> None:
    last = np.array([3.0, 0.0], np.float32)
    limits = Limits(low=[-1, -2], high=[3, 2], rate_per_s=[5, 5])
    rate = np.full(2, 2.0, np.float32)
    rig = Rig(LIMITED, frames=shots(20, action=last), rate_per_tick=rate)
    actions = actions_of(rig.session.imagine(latent(HERE + 500), limits=limits))
    assert (actions >= [-1, -2]).all()
    assert (actions <= [3, 2]).all()
    steps = np.abs(np.diff(np.concatenate([last[None], actions]), axis=0))
    assert steps.max() <= 0.5001  # 5 per second at 10 Hz
    free = actions_of(rig.session.imagine(latent(HERE + 500), warm=False))  # negative control
    assert free.max() > 3
    assert np.abs(np.diff(free, axis=0)).max() > 0.5001


@pytest.mark.parametrize("start", ["hold", "neutral"])
def test_a_plan_starts_from_the_last_action_or_from_rest(start: str) -> None:
    """With one candidate that is not the mean and no spread, the plan is the start."""
    still = tiny_planner(start=start, std_start=(1e-6, 1e-6))
    frames = shots(20, action=np.array([2.0, 1.0], np.float32))
    actions = actions_of(Rig(still, frames=frames).session.imagine(latent(HERE), iterations=1))
    expected = [2.0, 1.0] if start == "hold" else [0.0, 0.0]
    np.testing.assert_allclose(actions, np.tile(expected, (10, 1)), atol=1e-4)


def test_a_plan_goes_on_where_the_one_before_would_be_by_now() -> None:
    still = tiny_planner(std_start=(1e-6, 1e-6))
    rig = Rig(still)
    rig.session.imagine(latent(HERE))
    planner = rig.session._pool.planner()
    first = np.arange(20, dtype=np.float32).reshape(10, 2) / 4
    planner._memory.keep(19, first, np.zeros((0, 10, 2), np.float32), 1.0, 0.0)
    for ticks in (0, 1, 3, 5, 9):
        found = actions_of(planner.plan(19 + ticks, iterations=1))
        expected = np.concatenate([first[ticks:], np.tile(first[-1], (ticks, 1))])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        planner._memory.keep(19, first, np.zeros((0, 10, 2), np.float32), 1.0, 0.0)
    for gone in (10, -1):  # over, or from another time
        assert abs(actions_of(planner.plan(19 + gone, iterations=1))).max() < 1e-4
        planner._memory.keep(19, first, np.zeros((0, 10, 2), np.float32), 1.0, 0.0)


def test_a_warm_start_is_no_worse_than_the_plan_before() -> None:
    rig = Rig(tiny_planner(kind="icem", kept=3))
    before = rig.session.imagine(latent(HERE + 30), iterations=12).cost
    assert rig.session.imagine(latent(HERE + 30), iterations=1).cost <= before
    cold = rig.session.imagine(latent(HERE + 30), iterations=1, warm=False)
    assert cold.cost > before  # negative control


def test_image_goals_are_encoded_once() -> None:
    rig = Rig()
    image = np.full((8, 8, 3), 110, np.uint8)
    runs = rig.backend.engines["encode"].runs
    plans = [rig.session.imagine(image).copy() for _ in range(3)]
    assert rig.backend.engines["encode"].runs == runs + 1
    assert actions_of(plans[-1])[:, 0].sum() == pytest.approx(110 - HERE, abs=1)
    image[:] = 90  # the same array with other content is another goal
    assert actions_of(rig.session.imagine(image))[:, 0].sum() == pytest.approx(90 - HERE, abs=1)
    assert rig.backend.engines["encode"].runs == runs + 2


def test_plans_can_be_kept_beyond_the_next() -> None:
    rig = Rig()
    plan = rig.session.imagine(latent(HERE + 10))
    kept, actions = plan.copy(), actions_of(plan)
    with pytest.raises(ValueError, match="read-only"):
        actions[0] = 1
    before = actions.copy()
    rig.session.imagine(latent(HERE - 10))
    np.testing.assert_array_equal(actions_of(kept), before)
    assert not np.array_equal(actions, before)


def test_noise_is_drawn_while_the_stream_waits() -> None:
    rig = Rig()
    rig.session.imagine(latent(HERE + 10))
    assert rig.session.prepare()
    while rig.session.prepare():
        pass
    planner = rig.session._pool.planner()
    assert (planner._noise._held == range(12)).all()
    rig.watch([Shot(action=np.zeros(2, np.float32))] * 30)
    assert (planner._noise._held == range(12)).all()  # `forget` drops them, the stream draws them
    assert Rig().session.prepare() is False  # without a planner nothing is drawn


def test_history_decides_whether_there_is_a_plan() -> None:
    short = Rig(frames=shots(9)).session.imagine(latent(HERE))
    assert (short.valid, short.actions, short.reason) == (False, None, PlanReason.WARMING_UP)
    gap = Rig(frames=[*shots(14), Shot(lost=True, action=np.zeros(2, np.float32)), *shots(5)])
    assert gap.session.imagine(latent(HERE)).reason is PlanReason.HISTORY_GAP
    brief = tiny_planner(context=1)
    assert Rig(brief, frames=shots(2)).session.imagine(latent(HERE)).valid
    silent = Rig(frames=shots(20, action=None))
    assert silent.session.imagine(latent(HERE)).reason is PlanReason.ACTIONS_UNKNOWN
    calm = tiny_planner(context=1, start="neutral")  # needs to know of none
    assert Rig(calm, frames=shots(20, action=None)).session.imagine(latent(HERE)).valid
    held = Rig(tiny_planner(context=1), frames=shots(20, action=None))
    assert held.session.imagine(latent(HERE)).reason is PlanReason.ACTIONS_UNKNOWN


def test_a_frame_that_is_too_old_is_not_planned_from() -> None:
    rig = Rig()
    rig.clock.advance(3 * 10**8)
    assert rig.session.imagine(latent(HERE)).reason is PlanReason.FRAME_STALE
