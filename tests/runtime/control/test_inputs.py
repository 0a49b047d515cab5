"""Inputs of a tick: frames, states, goals and options, what is copied and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.runtime.scripted_world import START, BrightnessRobot, latent

from jetsight import ControlOptions, Frame, Goal, UsageError
from jetsight.control.goal_clock import GoalClock
from jetsight.control.ticks import TickTrack
from jetsight.testing import tiny_spec

FAR = latent(START + 40)


def test_a_state_travels_with_its_image() -> None:
    track = TickTrack(tiny_spec(state_names=("v", "w")), (8, 8, 3))
    image, state = np.full((8, 8, 3), 9, np.uint8), np.array([1.0, 2.0])
    frame = track.place(image, state, 0)
    np.testing.assert_array_equal(frame.state, [1.0, 2.0])
    own = track.place(Frame(image, tick=7, state=np.float32([3, 4])), None, 10**9)
    np.testing.assert_array_equal(own.state, [3.0, 4.0])
    with pytest.raises(
        UsageError, match=r"the state has the shape \[3\], but the model reads v, w"
    ):
        track.place(image, np.zeros(3), 2 * 10**9)
    with pytest.raises(UsageError, match="but the model reads none"):
        BrightnessRobot().tick(FAR, state=np.zeros(2))


def test_everything_of_a_goal_makes_it_another_one() -> None:
    image, state = np.full((8, 8, 3), 9, np.uint8), np.zeros(2, np.float32)
    clock = GoalClock()
    assert clock.set(Goal(image, state=state, targets={"x": 1.0}), 5, 0)
    assert not clock.set(Goal(image.copy(), state=state.copy(), targets={"x": 1.0}), 5, 1)
    assert clock.goal is not None
    np.testing.assert_array_equal(clock.goal.state, state)
    for other in (
        Goal(image, state=state + 1, targets={"x": 1.0}),
        Goal(image, state=state + 1, targets={"x": 2.0}),
        Goal(image + 1, state=state + 1, targets={"x": 2.0}),
        None,
    ):
        assert clock.set(other, 5, 2)


def test_frames_of_another_kind_are_refused() -> None:
    robot = BrightnessRobot()
    for wrong in (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(
            UsageError, match=r"the frame is .* but the model takes uint8 \[8, 8, 3\]"
        ):
            robot.session.act(wrong, FAR)
        with pytest.raises(UsageError, match="the frame is"):
            robot.session.act(Frame(wrong), FAR)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_up": "wait"}, "warm_up is 'wait', expected 'hold', 'neutral' or a policy"),
        ({"rest": "stop"}, "rest is 'stop'"),
        ({"replan_every": 0}, "replan_every is 0"),
        ({"continue_ticks": -1}, "continue_ticks is -1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ControlOptions(**options)
