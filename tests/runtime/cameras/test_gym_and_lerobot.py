"""Recorded and simulated robots as cameras that know what was done and what comes next."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import RECORDED
from helpers.runtime.camera_factory import readings
from helpers.simulators.base import scene
from helpers.simulators.environments import odd
from helpers.train import gym_factory

from jetsight.cameras import StreamRequest
from jetsight.cameras.gym import GymSource, HeldRandom
from jetsight.cameras.lerobot import EpisodeSource
from jetsight.cameras.source import check_start
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import CameraError, DataError, UsageError

PUSHT = StreamRequest(96, 96, 10.0, action_block=5, plan_ticks=25, step_size=2)


def test_episode_knows_what_was_done_and_what_comes_next() -> None:
    rows = LeRobotDataset.open(RECORDED).rows(1)
    found = readings(EpisodeSource(RECORDED, 1), PUSHT)
    assert len(found) == len(rows.actions)
    assert found[0].actions is None
    for t in (1, 57, len(found) - 1):
        reading = found[t]
        assert reading.actions is not None
        assert reading.plan is not None
        np.testing.assert_array_equal(reading.actions, rows.actions[t - 1 : t])
        np.testing.assert_array_equal(reading.plan, rows.actions[t : t + 25])
        assert reading.media_ns == t * 100_000_000
    assert not any(reading.cut for reading in found)


def test_all_episodes_follow_each_other_with_a_cut() -> None:
    lengths = LeRobotDataset.open(RECORDED).episode_lengths
    source = EpisodeSource(RECORDED, None)
    found = readings(source, PUSHT, limit=lengths[0] + 3)
    assert [i for i, reading in enumerate(found) if reading.cut] == [lengths[0]]
    assert found[lengths[0]].actions is None
    assert found[lengths[0]].media_ns == lengths[0] * 100_000_000


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (StreamRequest(96, 96, 30.0, 5, 25, 2), ["recorded at 10 Hz", "steps at 30 Hz"]),
        (
            StreamRequest(96, 96, 10.0, 5, 25, 7),
            ["'target_x', 'target_y'", "takes ['action_0'", "'action_6']"],
        ),
        (StreamRequest(96, 96, 10.0, 5, 25, 2, ("x", "y")), ["['target_x'", "takes ['x', 'y']"]),
        (StreamRequest(96, 48, 10.0, 5, 25, 2), ["frames are 96x96", "takes 48x96"]),
    ],
)
def test_episode_of_another_robot_is_refused(request_: StreamRequest, words: list[str]) -> None:
    with pytest.raises(CameraError) as caught:
        EpisodeSource(RECORDED, 0).start(request_)
    assert all(word in str(caught.value) for word in words)


def test_missing_episode_and_broken_dataset_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no episode 99"):
        EpisodeSource(RECORDED, 99).start(PUSHT)
    broken = Path(shutil.copytree(RECORDED, tmp_path / "copy"))
    for path in broken.glob("videos/**/*.mp4"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError):
        readings(EpisodeSource(broken, 0), PUSHT)


def _fade() -> GymSource:
    return GymSource(gym_factory.FADE, seed=3)


FADE = StreamRequest(32, 48, 5.0, action_block=2, plan_ticks=6, step_size=2)


def test_environment_executes_the_first_action_of_each_plan() -> None:
    found = readings(_fade(), FADE, limit=10)
    for before, reading in itertools.pairwise(found):
        assert before.plan is not None
        assert reading.actions is not None
        np.testing.assert_array_equal(reading.actions, before.plan[:1])
    assert found[0].actions is None
    assert [reading.media_ns for reading in found] == [i * 200_000_000 for i in range(10)]


def test_environment_is_a_function_of_its_seed() -> None:
    films = [
        np.stack([r.image_hwc_u8 for r in readings(source, FADE, limit=10)])  # type: ignore[misc]
        for source in (_fade(), _fade(), GymSource(gym_factory.FADE, seed=4))
    ]
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])


def test_environment_that_ends_starts_again_with_a_cut() -> None:
    found = readings(_fade(), FADE, limit=30)
    cuts = [i for i, reading in enumerate(found) if reading.cut]
    assert cuts == [gym_factory.LAST_TICK, 2 * gym_factory.LAST_TICK]
    assert all(found[i].actions is None for i in cuts)


def test_held_random_plans_what_it_does() -> None:
    policy = HeldRandom(np.array([-np.inf, 0.0]), np.array([np.inf, 5.0]), hold=4, seed=0)
    plans = [policy(None, 12) for _ in range(40)]
    for before, after in itertools.pairwise(plans):
        np.testing.assert_array_equal(before[1:], after[:-1])
    done = np.stack([plan[0] for plan in plans])
    changes = np.flatnonzero(np.abs(np.diff(done, axis=0)).sum(axis=1)) + 1
    assert {int(i) % 4 for i in changes} == {0}
    assert np.abs(done[:, 0]).max() <= 1.0
    assert done[:, 1].min() >= 0.0
    assert done[:, 1].max() <= 5.0


def test_own_policy_sees_the_environment_and_decides() -> None:
    seen: list[Any] = []

    def policy(environment: Any, n: int) -> np.ndarray:
        seen.append((environment.unwrapped.tick, n))
        return np.array([[0.25, -0.5]], np.float32)

    found = readings(GymSource(gym_factory.FADE, policy=policy), FADE, limit=4)
    assert seen == [(0, 6), (1, 6), (2, 6), (3, 6)]
    assert found[3].actions is not None
    assert found[3].actions.tolist() == [[0.25, -0.5]]


def test_pusht_shows_pixels_of_the_size_that_was_asked_for() -> None:
    request = StreamRequest(64, 80, 10.0, 5, 25, 2)
    found = readings(GymSource("gym_pusht/PushT-v0"), request, limit=3)
    assert {reading.image_hwc_u8.shape for reading in found} == {(64, 80, 3)}  # type: ignore[union-attr]
    assert found[1].actions is not None
    assert 0 <= found[1].actions.min() <= found[1].actions.max() <= 512


@pytest.mark.parametrize(
    ("env_id", "request_", "words"),
    [
        (gym_factory.FADE, StreamRequest(32, 48, 5.0, 2, 6, 3), "model's actions are 3 numbers"),
        (gym_factory.FADE, StreamRequest(32, 48, 10.0, 2, 6, 2), "runs at 5 steps per second"),
        (
            odd("Rover"),
            StreamRequest(32, 48, 10.0, 2, 6, 2, ("w", "v")),
            r"but the model \['w', 'v'",
        ),
        (odd("OneStep"), StreamRequest(32, 48, 10.0, 2, 6, 2), "ended 3 episodes of 3"),
        ("CartPole-v1", FADE, "takes actions Discrete"),
        ("NoSuch-v0", FADE, "cannot make environment 'NoSuch-v0'"),
        ("no_such_package/Robot-v0", FADE, "cannot make environment 'no_such_package/Robot-v0'"),
    ],
)
def test_environment_that_does_not_fit_is_refused(
    env_id: str, request_: StreamRequest, words: str
) -> None:
    source = GymSource(env_id)
    with pytest.raises(CameraError, match=words):
        source.start(request_)
    source.close()


ODD = StreamRequest(32, 48, 10.0, action_block=2, plan_ticks=6, step_size=2)


def test_policy_by_name_knows_its_next_action_alone() -> None:
    policy = "helpers.simulators.drivers:Remembers"
    found = readings(GymSource(odd("Odd"), policy=policy), ODD, limit=6)
    plans = [reading.plan for reading in found]
    assert [plan.shape for plan in plans if plan is not None] == 6 * [(1, 2)]
    assert [reading.actions is None for reading in found] == [True, *5 * [False]]
    for before, reading in itertools.pairwise(found):
        np.testing.assert_array_equal(reading.actions, before.plan)


def test_policy_by_name_starts_anew_with_each_episode() -> None:
    policy = "helpers.simulators.drivers:forward"
    source = GymSource(gym_factory.FADE, seed=3, policy=policy)
    found = readings(source, FADE, limit=2 * gym_factory.LAST_TICK)
    turns = [float(reading.plan[0, 1]) for reading in found if reading.plan is not None]
    again = readings(GymSource(gym_factory.FADE, seed=3, policy=policy), FADE, limit=len(found))
    assert turns == [float(reading.plan[0, 1]) for reading in again if reading.plan is not None]
    assert len(set(turns)) == len(turns)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("helpers.simulators.drivers:too_far", "expected -1 to 1"),
        ("nowhere.py:act", "there is no file nowhere.py"),
        (lambda environment, n: np.zeros(2), r"plan has shape \[2\], expected \[n, 2\]"),
    ],
)
def test_policy_that_cannot_drive_is_refused_at_the_start(policy: Any, words: str) -> None:
    source = GymSource(odd("Odd"), policy=policy)
    with pytest.raises(CameraError, match=words):
        source.start(ODD)
    source.close()


@pytest.mark.parametrize(
    ("name", "policy", "words"),
    [
        ("NanState", None, "step 3: state 'state_1' is nan"),
        ("FailsLater", None, "failed in step 4"),
        ("OneStepLater", None, "ended 10 episodes in a row after one step"),
        ("GoesBlack", None, "black or codes"),
        ("Odd", "helpers.simulators.drivers:nan_later", "action 'action_1' is nan"),
    ],
)
def test_environment_that_fails_later_ends_with_the_reason(
    name: str, policy: str | None, words: str
) -> None:
    with pytest.raises(CameraError, match=words):
        readings(GymSource(odd(name), policy=policy), ODD)


def test_several_cameras_are_one_frame() -> None:
    source = GymSource(odd("TwoViews"), cameras=("pixels.top", "pixels.wrist"))
    found = readings(source, ODD, limit=3)
    assert {reading.image_hwc_u8.shape for reading in found} == {(2, 32, 48, 3)}  # type: ignore[union-attr]


def test_a_model_names_its_cameras_and_the_numbers_it_reads() -> None:
    request = replace(ODD, cameras=("wrist", "top"), state_names=("agent_pos_1", "agent_pos_0"))
    source = GymSource(odd("TwoViews"))
    info = source.start(request)
    check_start(info, request)
    source.close()
    first, second = readings(GymSource(odd("TwoViews")), request, limit=2)
    assert first.image_hwc_u8 is not None
    assert np.array_equal(first.image_hwc_u8, np.stack([scene(0)[::-1], scene(0)]))
    assert [reading.state.tolist() for reading in (first, second) if reading.state is not None] == [
        [-1.0, 0.0],
        [-1.0, 1.0],
    ]
    with pytest.raises(CameraError, match=r"has no height in its state \(agent_pos_0, agent_pos_1"):
        GymSource(odd("TwoViews")).start(replace(request, state_names=("height",)))
    with pytest.raises(CameraError, match=r"no one observation 'left'"):
        GymSource(odd("TwoViews")).start(replace(request, cameras=("left", "top")))
