"""PushT: success, and what does not count as it; regions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jetsight.errors import UsageError
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.tasks.pusht import MOVES, RESTS, PushingTask, Tolerance
from jetsight_compile.closed_loop.tasks.region import Region

NAMES = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
TASK = PushingTask(NAMES, "toy")
GOAL = np.array([100.0, 100.0, 300.0, 300.0, 0.1], np.float32)


def near(**off: float) -> np.ndarray:
    return GOAL + np.array([off.get(name, 0.0) for name in NAMES], np.float32)


@pytest.mark.parametrize(
    ("off", "success", "joint"),
    [
        ({}, True, True),
        ({"agent_x": 19.0}, True, True),
        ({"agent_x": 15.0, "block_y": 15.0}, True, False),  # 21.2 px over both together
        ({"agent_x": 21.0}, False, False),
        ({"block_y": -21.0}, False, False),
        ({"block_angle": math.pi / 9 + 0.01}, False, False),
        ({"block_angle": 2 * math.pi - 0.2}, True, True),
        ({"agent_x": math.nan}, False, False),
    ],
)
def test_success_is_agent_and_block_and_angle(
    off: dict[str, float], success: bool, joint: bool
) -> None:
    miss = TASK.miss(near(**off), GOAL)
    assert miss.within(Tolerance()) is success
    assert miss.jointly_within(Tolerance()) is joint
    frame = np.zeros((1, 1, 3), np.uint8)
    found = TASK.judge(Observation(frame, near(**off)), Observation(frame, GOAL))
    assert (found.success, found.also, found.final) == (success, {"joint": joint}, joint)


def test_both_corners_count_and_the_angle_wraps() -> None:
    assert TASK.miss(near(agent_x=3.0, agent_y=4.0), GOAL).agent_px == pytest.approx(5.0)
    assert TASK.miss(near(block_angle=-0.2 + 2 * math.pi), GOAL).angle_rad == pytest.approx(
        0.2, 1e-5
    )


def test_an_episode_moves_the_block_by_20_px_or_20_degrees() -> None:
    assert TASK.kind(near(block_x=20.5), GOAL) == MOVES
    assert TASK.kind(near(block_angle=math.radians(21)), GOAL) == MOVES
    assert TASK.kind(near(block_x=19.0, agent_x=200.0), GOAL) == RESTS


def test_the_state_is_found_by_name_wherever_it_stands() -> None:
    turned = PushingTask(NAMES[::-1], "toy")
    assert turned.miss(near(agent_x=7.0)[::-1], GOAL[::-1]).agent_px == pytest.approx(7.0)
    assert turned.region is not None
    assert turned.region.positions(GOAL[::-1]).tolist() == [100.0, 100.0]


def test_a_state_without_a_block_is_no_pushing_task() -> None:
    with pytest.raises(UsageError, match="'arm-v0' has no block_x, block_y, block_angle"):
        PushingTask(["agent_x", "agent_y"], "arm-v0")


def test_region_contains_and_crosses() -> None:
    region = Region.parse("100, 50,10")
    assert region == Region(100.0, 50.0, 10.0)
    assert region.contains(np.array([[100.0, 59.9], [100.0, 60.1]])).tolist() == [True, False]
    left, right = np.array([80.0, 50.0]), np.array([120.0, 50.0])
    assert region.crosses(left, right)
    assert not region.crosses(left, np.array([80.0, 90.0]))
    assert not region.crosses(left, np.array([85.0, 50.0]))  # the way ends before it
    assert not region.crosses(left, left)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1,2,0", "1,2,-3", "nan,2,3"])
def test_a_region_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="region"):
        Region.parse(text)
