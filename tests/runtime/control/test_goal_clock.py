"""The goal that a control loop keeps: whole, its own, and another one when anything of it is."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.control.goal_clock import GoalClock
from jetsight.planning.goal import Goal

IMAGE = np.full((2, 8, 8, 3), 100, np.uint8)
STATE = np.array([0.5, 1.0], np.float32)


def test_a_goal_is_kept_whole_and_as_a_copy() -> None:
    clock, state = GoalClock(), STATE.copy()
    assert clock.set(Goal.image(IMAGE, state, block_x=3.0), 10, 0)
    state[:] = 9.0
    kept = clock.goal
    assert kept is not None
    assert kept.state is not None
    assert kept.state.tolist() == [0.5, 1.0]
    assert dict(kept.targets) == {"block_x": 3.0}
    assert not clock.set(Goal.image(IMAGE.copy(), STATE, block_x=3.0), 10, 4)
    assert clock.due(4) == 6


@pytest.mark.parametrize(
    "other",
    [
        Goal.image(IMAGE, STATE + 1.0),
        Goal.image(IMAGE),
        Goal.image(IMAGE[:, ::-1] + np.uint8(1), STATE),
        Goal.image(IMAGE, STATE, block_x=1.0),
        None,
    ],
)
def test_another_state_image_or_target_is_another_goal(other: Goal | None) -> None:
    clock = GoalClock()
    clock.set(Goal.image(IMAGE, STATE), 10, 0)
    assert clock.set(other, 10, 4)
