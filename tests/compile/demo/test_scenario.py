"""The camera of the demo. Shapes: T rows, h, w frame size, a action size."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.paths import RECORDED
from hypothesis import given
from hypothesis import strategies as st

from jetsight.cameras.source import Reading, StreamRequest
from jetsight.datasets.dataset import Episode
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import DataError, UsageError
from jetsight.testing import tiny_spec
from jetsight_compile.demo.scenario import (
    Piece,
    Replay,
    ReplaySource,
    Scenario,
    held_out_episodes,
    plan_scenario,
)

REQUEST = StreamRequest(4, 6, 10.0, action_block=2, plan_ticks=4, step_size=1)
HISTORY, BLOCK = 3, 2


def episode(number: int, length: int = 40) -> Episode:
    """Pixels say (episode, row); the action of row t is 100 * episode + t."""
    frames = np.zeros((length, 4, 6, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = number, np.arange(length)
    actions = (100 * number + np.arange(length, dtype=np.float32))[:, None]
    return Episode(actions, np.zeros((length, 0), np.float32), np.arange(length) / 10, frames)


def play(scenario: Scenario) -> list[Reading]:
    footage = {number: episode(number) for number in scenario.episodes}
    source = ReplaySource(Replay(scenario, footage, 10.0, (), "test"))
    source.start(REQUEST)
    return list(iter(source.read, None))


def shown(reading: Reading) -> tuple[int, int]:
    assert reading.image_hwc_u8 is not None
    return int(reading.image_hwc_u8[0, 0, 0]), int(reading.image_hwc_u8[0, 0, 1])


@pytest.fixture
def scenario() -> Scenario:
    return plan_scenario({1: 40, 3: 40, 5: 40}, 60, HISTORY, BLOCK)


def test_the_plan_ends_in_one_change_that_nothing_announces(scenario: Scenario) -> None:
    assert scenario.frames == 60
    assert [piece.announced for piece in scenario.pieces] == [True, True, False]
    assert scenario.change == 50
    assert scenario.place(49) == (3, 9)
    assert scenario.place(50) == (5, 10)


@given(
    st.lists(st.integers(1, 90), max_size=8),
    st.integers(1, 400),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_every_plan_is_whole_or_refused(
    lengths: list[int], frames: int, history: int, block: int
) -> None:
    available = dict(enumerate(lengths))
    try:
        plan = plan_scenario(available, frames, history, block)
    except (DataError, UsageError):
        return
    assert plan.frames == frames
    assert len(set(plan.episodes)) == len(plan.pieces) >= 2
    assert plan.change == plan.starts[-1]
    least = (history + 1) * block
    for piece in (*plan.pieces, *plan.unchanged().pieces):
        assert 0 <= piece.first < piece.last <= available[piece.episode]
    assert all(len(piece) >= least for piece in plan.pieces[-2:])  # or nothing could surprise


def test_frames_and_actions_go_on_across_the_change(scenario: Scenario) -> None:
    readings = play(scenario)
    assert [shown(reading) for reading in readings] == [scenario.place(i) for i in range(60)]
    before, at, after = readings[49:52]
    assert before.plan is not None
    assert before.plan[:, 0].tolist() == [309, 310, 311, 312]  # the robot does not know
    assert at.actions is not None
    assert at.actions.tolist() == [[309]]  # what it did just before the scene changed
    assert after.actions is not None
    assert after.actions.tolist() == [[510]]
    assert [reading.media_ns for reading in (before, at)] == [4_900_000_000, 5_000_000_000]


def test_only_announced_scenes_are_cuts(scenario: Scenario) -> None:
    readings = play(scenario)
    assert [i for i, reading in enumerate(readings) if reading.cut] == [40]
    assert [i for i, reading in enumerate(readings) if reading.actions is None] == [0, 40]


def test_the_control_is_the_same_scene_without_the_change(scenario: Scenario) -> None:
    control = scenario.unchanged()
    assert control.change is None
    assert control.pieces == (Piece(3, 0, 20),)
    before, after = play(control)[9:11]
    assert (shown(before), shown(after)) == ((3, 9), (3, 10))
    with pytest.raises(UsageError, match="no planted change"):
        control.unchanged()


def test_too_little_to_show_is_refused() -> None:
    with pytest.raises(UsageError, match=r"15 frames are too few.*needs 16 or more"):
        plan_scenario({0: 100, 1: 100}, 15, HISTORY, BLOCK)
    with pytest.raises(DataError, match="1 held-out episodes are too few"):
        plan_scenario({0: 100}, 30, HISTORY, BLOCK)


def test_another_camera_rate_is_refused_before_decoding() -> None:
    data = LeRobotDataset.open(RECORDED)
    spec = tiny_spec(height_px=96, width_px=96, camera_hz=30.0)
    with pytest.raises(DataError, match="recorded at 10 Hz, but the model steps at 30 Hz"):
        Replay.load(data, (), 60, spec)


def test_held_out_means_not_used() -> None:
    assert held_out_episodes(6, [0, 2], [5]) == [1, 3, 4]
    with pytest.raises(DataError, match="all 2 episodes"):
        held_out_episodes(2, [0, 1])
