"""Limits, rates and the neutral action of a new recipe; a question instead of a guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.train.surveys import EPISODES, LENGTH, survey

from jetsight.errors import UsageError
from jetsight_train.authoring.action_choice import ActionOptions, choose_action, rests_at_zero


def options(neutral: str | None = None, *units: str) -> ActionOptions:
    return ActionOptions(units, neutral)


@pytest.mark.parametrize(
    ("names", "unit", "at_zero"),
    [
        (["v", "w"], "", True),
        (["base.linear_vel", "yawRate"], "", True),
        (["user/angle", "user/throttle"], "", True),
        (["joint_1"], "rad/s", True),
        (["delta_x"], "", True),
        (["joint_1.pos"], "", False),
        (["target_x"], "px", False),
        (["angle"], "", False),
        (["angle"], "rad", False),
        (["v"], "m", False),  # a unit says more than a name
        (["gripper"], "", False),
        (["view"], "", False),
    ],
)
def test_rest_is_known_by_unit_or_by_name(names: list[str], unit: str, at_zero: bool) -> None:
    assert all(rests_at_zero(name, unit, names) is at_zero for name in names)


def test_a_velocity_robot_rests_at_zero_without_a_question() -> None:
    chosen = choose_action(survey(), options())
    assert chosen.recipe.neutral == (0.0, 0.0)
    assert "rest" in chosen.reasons["neutral"]


def test_a_position_robot_is_a_question_with_the_line_to_type() -> None:
    with pytest.raises(UsageError) as caught:
        choose_action(survey(("joint_1.pos", "v")), options())
    text = str(caught.value)
    assert "'joint_1.pos' is unclear" in text
    assert "'v'" not in text
    for line in ("--neutral zero", "--neutral mean (here ", "--neutral 0,0"):
        assert line in text


@pytest.mark.parametrize(
    ("given", "neutral"), [("zero", (0.0, 0.0)), ("0.5,-1e-1", (0.5, -0.1)), ("mean", None)]
)
def test_an_answer_is_taken(given: str, neutral: tuple[float, ...] | None) -> None:
    found = survey(("a.pos", "b.pos"))
    chosen = choose_action(found, options(given)).recipe
    expected = found.actions.mean(0) if neutral is None else neutral
    assert chosen.neutral == pytest.approx(tuple(expected), abs=1e-4)


@pytest.mark.parametrize("given", ["0", "0,0,0", "0,x", "nan,0", "inf,0", "median"])
def test_an_answer_that_cannot_be_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="expected zero, mean, or 2 finite numbers"):
        choose_action(survey(("a.pos", "b.pos")), options(given))


def test_limits_hold_the_data_with_a_margin_and_the_neutral_action() -> None:
    found = survey(actions=np.abs(survey().actions) + 0.2)
    chosen = choose_action(found, options()).recipe
    low, high = np.array(chosen.low), np.array(chosen.high)
    assert (low <= 0).all()  # zero is rest, though it never was recorded
    assert (high > found.actions.max(0) + 0.03).all()
    assert (high < found.actions.max(0) + 0.1).all()


def test_limits_of_the_robot_come_before_those_of_the_data() -> None:
    declared = (np.full(2, -5, np.float32), np.full(2, 7, np.float32))
    chosen = choose_action(survey(declared=declared), options())
    assert (chosen.recipe.low, chosen.recipe.high) == ((-5.0, -5.0), (7.0, 7.0))
    declared = (np.full(2, -0.3, np.float32), np.array([0.6, 0.7], np.float32))
    chosen = choose_action(survey(declared=declared), options())
    assert chosen.recipe.low == (-0.3, -0.3)  # in float32 that is -0.300000012
    assert chosen.recipe.high[0] == 0.6
    assert chosen.recipe.high[1] <= float(np.float32(0.7)) < 0.7


def test_what_never_varies_is_held_where_it_was() -> None:
    actions = survey().actions.copy()
    actions[:, 1] = 3.0
    for given in (None, "zero", "mean"):
        chosen = choose_action(survey(("v", "grip"), actions=actions), options(given)).recipe
        assert chosen.neutral is not None
        assert chosen.neutral[1] == 3.0
        assert chosen.low[1] < 3.0 < chosen.high[1]


def test_rates_are_what_nearly_all_steps_keep() -> None:
    signs = np.repeat([1, -1] * (EPISODES // 2), LENGTH)[:, None].astype(np.float32)
    found = survey(actions=survey().actions * signs)
    rate = choose_action(found, options()).recipe.rate_limit_per_s
    assert rate is not None
    slower = (np.abs(found.steps) * found.hz <= np.array(rate) * 1.05).mean(0)
    assert (slower > 0.99).all()
    assert (np.array(rate) < 1.0).all()  # the sine has 0.7 per second
    # The jump from one episode to the next is no change of the action.
    steps = np.abs(np.diff(found.actions, axis=0)).max()
    assert np.abs(found.steps).max() < 0.1 < steps


def test_random_jumps_give_no_rate() -> None:
    bang = np.random.default_rng(0).choice([-1.0, 1.0], survey().actions.shape)
    found = survey(actions=bang.astype(np.float32))
    assert choose_action(found, options()).recipe.rate_limit_per_s is None


@pytest.mark.parametrize(
    ("given", "units"),
    [((), ("px", "")), (("m/s", "rad/s"), ("m/s", "rad/s"))],
)
def test_units_come_from_the_user_or_the_names(given: tuple[str, ...], units: object) -> None:
    found = survey(("v_px", "w"))
    assert choose_action(found, options("zero", *given)).recipe.units == units
    declared = replace(found, action_units=("px/s", "rad/s"))
    assert choose_action(declared, options("zero")).recipe.units == ("px/s", "rad/s")
    with pytest.raises(UsageError, match="--units has 1 units, but an action has 2"):
        choose_action(found, options("zero", "m/s"))


def test_an_environment_without_recordings_has_no_mean() -> None:
    declared = (np.full(2, -1, np.float32), np.full(2, 1, np.float32))
    empty = survey(("x", "y"), actions=np.zeros((0, 2), np.float32), lengths=(), declared=declared)
    with pytest.raises(UsageError, match="--neutral mean needs recorded actions"):
        choose_action(empty, options("mean"))
    with pytest.raises(UsageError, match="is unclear"):
        choose_action(empty, options())
    assert choose_action(empty, options("zero")).recipe.rate_limit_per_s is None
