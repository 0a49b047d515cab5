"""Goals, limits and weights: what each call means, and one line for every wrong one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers.runtime.planner_factory import HERE, SPEC, Rig, latent

from jetsight.bundle.planner_spec import CostWeights, HazardSpec, HeadSpec
from jetsight.errors import UsageError
from jetsight.planning.goal import Goal
from jetsight.planning.inputs import arrival
from jetsight.planning.limits import Limits
from jetsight.planning.planner import Planner
from jetsight.session import Session
from jetsight.testing import FakeBackend, FakeClock, tiny_planner

HEADS = HeadSpec(
    ("x", "cos angle", "sin angle"), ("px", "", ""), (2.0, 0.5, 0.5), (HazardSpec("w", 3.5, 0.1),)
)
WEIGHED = tiny_planner(
    weights=CostWeights(2.0, 0.5, 0.25), probe_weight={"x": 3.0, "cos angle": 0.5}
)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig(WEIGHED, heads=HEADS)


def asked(rig: Rig, goal: Any, **options: Any) -> Planner:
    """The planner after a call, to look at what it was asked."""
    rig.session.imagine(goal, iterations=1, **options)
    return rig.session._pool.planner()


def values(planner: Planner, *names: str) -> list[list[float]]:
    return [planner.inputs[name].tolist() for name in names]


PROBE = ("probe_target", "probe_given", "probe_weight", "weights")


def test_a_latent_is_compared_with_the_planners_own_weights(rig: Rig) -> None:
    found = values(asked(rig, latent(5.0)), *PROBE)
    assert found == [[0, 0, 0], [0, 0, 0], [3, 0.5, 0], [2, 0.5, 0.25]]


def test_target_values_alone_are_all_that_counts(rig: Rig) -> None:
    found = values(asked(rig, {"x": 300.0}), *PROBE)
    assert found == [[300, 0, 0], [1, 0, 0], [3, 0, 0], [0, 0, 0.25]]


@pytest.mark.parametrize(
    ("ticks", "first"), [(None, 4), (99, 4), (25, 4), (24, 3), (10, 1), (9, 0), (5, 0), (1, 0)]
)
def test_a_goal_counts_from_the_last_step_that_ends_in_time(ticks: int | None, first: int) -> None:
    when = arrival(5, 5, ticks)
    assert when.tolist() == [0.0] * first + [pytest.approx(1 / (5 - first))] * (5 - first)


def test_a_call_says_when_the_goal_is_due(rig: Rig) -> None:
    for ticks, when in ((None, [0, 1]), (SPEC.action_block, [0.5, 0.5])):
        assert values(asked(rig, latent(5.0), arrive_ticks=ticks), "when") == [when]
    for wrong in (0, -5, 2.5, "soon"):
        with pytest.raises(UsageError, match="expected an integer from 1"):
            rig.session.imagine(latent(5.0), arrive_ticks=wrong)  # type: ignore[arg-type]


def test_an_angle_is_its_cosine_and_sine(rig: Rig) -> None:
    target, given, weight, _ = values(asked(rig, Goal.probe(angle=math.pi / 3)), *PROBE)
    assert target == pytest.approx([0, 0.5, math.sqrt(3) / 2])
    assert given == [0, 1, 1]
    assert weight == [0, 0.5, 1.0]  # what the planner does not weigh counts 1 when it is requested
    exact = values(asked(rig, {"cos angle": 1.0}), *PROBE)
    assert exact[:2] == [[0, 1, 0], [0, 1, 0]]


def test_a_latent_with_targets_has_both(rig: Rig) -> None:
    found = values(asked(rig, Goal.latent(latent(1.0), x=7.0)), *PROBE)
    assert found == [[7, 0, 0], [1, 0, 0], [3, 0.5, 0], [2, 0.5, 0.25]]


def test_weights_of_the_call_replace_the_planners(rig: Rig) -> None:
    planner = asked(rig, latent(1.0), weights={"running": 9.0, "x": 0.0})
    assert values(planner, "weights", "probe_weight") == [[2, 9, 0.25], [0, 0.5, 0]]
    assert values(asked(rig, latent(1.0)), "weights") == [[2, 0.5, 0.25]]


def test_constraints_are_on_unless_they_are_put_off(rig: Rig) -> None:
    assert values(asked(rig, latent(1.0)), "hazard_limit") == [[3.5]]
    assert values(asked(rig, latent(1.0), constrain=False), "hazard_limit") == [[1e9]]


def test_a_target_is_reached(rig: Rig) -> None:
    plan = rig.session.imagine({"x": HERE + 6.0}, constrain=False)
    assert plan.z_future is not None
    assert plan.z_future[-1, 0] == pytest.approx(HERE + 6.0, abs=1.0)


def test_limits_are_the_robots_where_none_are_given() -> None:
    rig = Rig(tiny_planner(rate_limited=True), rate_per_tick=np.full(2, 0.5, np.float32))
    planner = asked(rig, latent(1.0), limits=Limits(low=[-1, -8]))
    assert values(planner, "low", "high", "rate") == [[-1, -8], [8, 8], [0.5, 0.5]]
    planner = asked(rig, latent(1.0), limits=Limits(rate_per_s=[1, 5]))
    assert planner.inputs["rate"].tolist() == pytest.approx([0.1, 0.5])
    free = Rig(tiny_planner(rate_limited=True))
    assert values(asked(free, latent(1.0)), "rate") == [[1e9, 1e9]]


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"goal": np.zeros((9, 8, 3), np.uint8)},
        r"goal image is uint8 \[9, 8, 3\], but the model takes uint8 \[8, 8, 3\]",
    ),
    ({"goal": np.zeros((8, 8, 3), np.float32)}, r"goal image is float32 \[8, 8, 3\]"),
    ({"goal": np.zeros(5, np.float32)}, r"goal latent has the shape \[5\], .* have \[4\]"),
    ({"goal": np.zeros((2, 4), np.float32)}, r"the goal is an array \[2, 4\]; expected an image"),
    ({"goal": "there"}, "the goal is <class 'str'>; expected an image"),
    ({"goal": {}}, "the goal is empty"),
    ({"goal": Goal(np.zeros((8, 8, 3), np.uint8), np.zeros(4))}, "both an image and a latent"),
    ({"goal": {"angel": 1.0}}, "there is no quantity 'angel'; did you mean 'angle'?"),
    ({"goal": {"angle": 0.0, "sin angle": 0.0}}, "gives 'sin angle' twice"),
    ({"goal": {"zzz": 1.0}}, "known: x, cos angle, sin angle, angle"),
    ({"weights": {"runing": 1.0}}, "no weight 'runing'; did you mean 'running'?"),
    ({"goal": {"x": 1.0}, "weights": {"terminal": 1.0}}, "the goal has no latent to be near to"),
    ({"goal": {"x": 1.0}, "weights": {"running": 0.5}}, "weight of 'running' is 0.5, but the goal"),
    ({"weights": {"x": -1.0}}, "weight of 'x' is -1.0, expected a number from 0"),
    ({"weights": {"x": math.nan}}, "weight of 'x' is nan"),
    ({"limits": Limits(low=[0])}, r"low has the shape \[1\], expected \[2\]"),
    ({"limits": Limits(low=[2, 0], high=[1, 1])}, "low of 'x' is 2, which is above high"),
    ({"limits": Limits(low=[0, -9])}, "low of 'y' is -9, which is below the robot's own"),
    ({"limits": Limits(high=[9, 0])}, "high of 'x' is 9, which is above the robot's own"),
    ({"limits": Limits(rate_per_s=[1, 1])}, "takes no rate limit; compile the bundle again"),
    ({"planner": "imagine_cem_33x2"}, "did you mean 'imagine_cem_32x2'?"),
    ({"iterations": 0}, "iterations is 0, expected 1 to 1000"),
    ({"iterations": 2000}, "iterations is 2000"),
    ({"iterations": 2.5}, "iterations is 2.5"),
    ({"seed": -1}, "seed is -1, expected an integer from 0"),
    ({"seed": "x"}, "seed is 'x'"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_a_wrong_call_is_one_line(rig: Rig, call: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        rig.session.imagine(**{"goal": latent(1.0), **call})
    assert "\n" not in str(caught.value)
    assert rig.session.imagine(latent(HERE), constrain=False).valid  # nothing was broken by it


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["low", "high", "rate_per_s"])
def test_limits_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    with pytest.raises(UsageError, match=f"limits: {name} is .* expected finite numbers"):
        Limits(**{name: [0.0, bad]})


@pytest.mark.parametrize(("rate", "message"), [([0, 1], "must be above 0"), ([1, 6], "above the")])
def test_rates_the_robot_does_not_have_are_refused(rate: list[float], message: str) -> None:
    rig = Rig(tiny_planner(rate_limited=True), rate_per_tick=np.full(2, 0.5, np.float32))
    with pytest.raises(UsageError, match=message):
        rig.session.imagine(latent(1.0), limits=Limits(rate_per_s=rate))


def test_a_wrong_call_is_wrong_before_there_is_any_history() -> None:
    rig = Rig(frames=[])
    with pytest.raises(UsageError, match="goal latent"):
        rig.session.imagine(np.zeros(5, np.float32))
    with pytest.raises(UsageError, match="iterations"):
        rig.session.imagine(latent(1.0), iterations=-1)


def test_a_bundle_without_planners_says_how_to_get_them() -> None:
    backend = FakeBackend(SPEC)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    session = Session(SPEC, *engines, clock=FakeClock())
    assert session.planners == ()
    with pytest.raises(UsageError, match="compile the bundle again with --planner"):
        session.imagine(latent(1.0))
