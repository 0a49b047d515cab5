"""The differential drive: motion against values by hand, contact, pictures, Gymnasium's rules."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from jetsight.errors import MissingDependency, UsageError
from jetsight.simulators import differential_drive as drive
from jetsight.simulators.differential_drive import ARENA_M, PILLARS, ROBOT_M, WALL_M, Pose

OPEN = Pose(1.0, 1.0, 0.0)  # the middle of the square, far from everything
NEAREST_WALL = WALL_M + ROBOT_M


@pytest.mark.parametrize(
    ("v", "w", "expected"),
    [
        (0.5, 0.0, (1.05, 1.0, 0.0)),
        (-0.3, 0.0, (0.97, 1.0, 0.0)),
        (0.0, 2.0, (1.0, 1.0, 0.2)),
        # A circle of radius v / w = 0.25 m, of which the robot drives 0.2 rad.
        (0.5, 2.0, (1 + 0.25 * math.sin(0.2), 1 + 0.25 * (1 - math.cos(0.2)), 0.2)),
        (0.5, -2.0, (1 + 0.25 * math.sin(0.2), 1 - 0.25 * (1 - math.cos(0.2)), -0.2)),
    ],
)
def test_a_tick_is_an_arc(v: float, w: float, expected: tuple[float, float, float]) -> None:
    there, hit = drive.moved(OPEN, v, w)
    assert (there.x, there.y, there.heading) == pytest.approx(expected, abs=1e-12)
    assert not hit


def test_a_full_circle_returns_and_steps_without_the_arc_would_not() -> None:
    here, w, ticks = OPEN, 2 * math.pi / 3.2, 32
    straight = np.array([OPEN.x, OPEN.y])
    for _ in range(ticks):
        # Negative control: the way of a tick laid along the heading that it ends with.
        here, hit = drive.moved(here, 0.1, w)
        assert not hit
        straight = straight + 0.01 * np.array(
            [math.cos(here.heading / 2), math.sin(here.heading / 2)]
        )
    assert math.hypot(here.x - OPEN.x, here.y - OPEN.y) < 1e-9
    assert here.heading == pytest.approx(2 * math.pi)
    assert np.linalg.norm(straight - (OPEN.x, OPEN.y)) > 0.1


def test_many_small_ticks_are_one_long_one() -> None:
    fine = OPEN
    for _ in range(100):
        fine = fine.advanced(0.4, 1.5, 0.001)
    coarse = OPEN.advanced(0.4, 1.5, 0.1)
    assert (fine.x, fine.y) == pytest.approx((coarse.x, coarse.y), abs=1e-9)


def test_headings_stay_in_one_turn() -> None:
    for turns in (-7.0, -math.pi, 0.0, 3.0, math.pi, 9.5):
        heading = float(Pose(1, 1, turns).as_state()[2])
        assert -math.pi - 1e-6 <= heading <= math.pi
        assert math.cos(heading - turns) == pytest.approx(1.0)


def test_a_wall_stops_and_lets_slide() -> None:
    pose, hit = Pose(ARENA_M - NEAREST_WALL - 0.01, 1.0, math.pi / 4), False
    pose, hit = drive.moved(pose, 0.6, 0.0)
    assert hit
    assert pose.x == ARENA_M - NEAREST_WALL
    assert pose.y == pytest.approx(1.0 + 0.06 * math.sin(math.pi / 4))


def test_a_pillar_pushes_out_along_the_shortest_way() -> None:
    x, y, radius = PILLARS[0]
    pose, hit = drive.moved(Pose(x - radius - ROBOT_M - 0.01, y, 0.0), 0.6, 0.0)
    assert hit
    assert (pose.x, pose.y) == pytest.approx((x - radius - ROBOT_M, y))
    glancing = Pose(x - radius - ROBOT_M - 0.01, y + 0.08, 0.0)
    pose, hit = drive.moved(glancing, 0.6, 0.0)
    assert hit
    assert pose.y > glancing.y, "it slides to the side that it leans to"
    assert math.hypot(pose.x - x, pose.y - y) == pytest.approx(radius + ROBOT_M)


def test_nothing_is_ever_inside_a_pillar_or_a_wall() -> None:
    rng = np.random.default_rng(0)
    pose, hits = drive.random_pose(rng), 0
    for _ in range(4000):
        v, w = rng.uniform(drive.ACTION_LOW, drive.ACTION_HIGH)
        before = pose
        pose, hit = drive.moved(pose, float(v), float(w))
        hits += hit
        assert drive.is_free(pose.x, pose.y, -1e-9)
        assert math.hypot(pose.x - before.x, pose.y - before.y) < 0.13
    assert hits > 100, "the walk has to touch something, else this shows nothing"


def test_without_collision_the_same_walk_ends_inside() -> None:
    """Negative control of the test above."""
    rng = np.random.default_rng(0)
    pose = drive.random_pose(rng)
    free = []
    for _ in range(400):
        v, w = rng.uniform(drive.ACTION_LOW, drive.ACTION_HIGH)
        pose = pose.advanced(float(v), float(w), 0.1)
        free.append(drive.is_free(pose.x, pose.y, -1e-9))
    assert not all(free)


def test_random_poses_are_free_and_everywhere() -> None:
    rng = np.random.default_rng(1)
    poses = [drive.random_pose(rng) for _ in range(300)]
    assert all(drive.is_free(pose.x, pose.y) for pose in poses)
    corners = {(pose.x > 1, pose.y > 1, pose.heading > 0) for pose in poses}
    assert len(corners) == 8


def centre(weight: np.ndarray) -> np.ndarray:
    """Column and row of the weight's centre, from the middle of the picture."""
    offsets = np.arange(drive.SIZE_PX) - drive.SIZE_PX / 2 + 0.5
    return np.array([weight.sum(0) @ offsets, weight.sum(1) @ offsets]) / weight.sum()


def robot_of(pose: Pose) -> np.ndarray:
    return centre(drive._scene(drive.SIZE_PX).sum(-1) - drive.draw(pose).astype(float).sum(-1))


def front_of(pose: Pose) -> np.ndarray:
    picture = drive.draw(pose).astype(float)
    return centre(np.clip(picture[..., 0] - picture[..., 2] - 60.0, 0.0, None))


def test_the_picture_shows_place_and_heading_to_a_fraction_of_a_pixel() -> None:
    pixel_m = ARENA_M / drive.SIZE_PX
    right = robot_of(Pose(1.0 + pixel_m / 2, 1.0, 0.0)) - robot_of(OPEN)
    up = robot_of(Pose(1.0, 1.0 + pixel_m / 2, 0.0)) - robot_of(OPEN)
    assert right == pytest.approx([0.5, 0.0], abs=0.05)
    assert up == pytest.approx([0.0, -0.5], abs=0.05), "y points up in the world"
    for heading in (0.0, 1.0, 2.5, -2.0):
        column, row = front_of(Pose(1.0, 1.0, heading))
        assert math.atan2(-row, column) == pytest.approx(heading, abs=0.03)


def test_another_pose_is_another_picture() -> None:
    np.testing.assert_array_equal(drive.draw(OPEN), drive.draw(Pose(1.0, 1.0, 0.0)))
    for other in (Pose(1.0, 1.0, 0.05), Pose(1.003, 1.0, 0.0), Pose(1.0, 1.0, math.pi)):
        assert not np.array_equal(drive.draw(OPEN), drive.draw(other))


def _distance(pose: Pose) -> np.ndarray:
    centres = (np.arange(drive.SIZE_PX) + 0.5) * ARENA_M / drive.SIZE_PX
    return np.hypot(centres[None, :] - pose.x, ARENA_M - centres[:, None] - pose.y)


@pytest.mark.parametrize(
    "pose", [Pose(0.17, 0.17, 1.0), Pose(1.83, 1.83, -2.0), Pose(1.0, 1.83, 3)]
)
def test_the_patch_that_is_drawn_again_covers_the_robot(pose: Pose) -> None:
    """The same picture as one drawn in coordinates shifted to the middle would be too slow."""
    picture, empty = drive.draw(pose), np.rint(drive._scene(drive.SIZE_PX)).astype(np.uint8)
    changed = (picture != empty).any(-1)
    assert changed.sum() == pytest.approx(
        math.pi * (ROBOT_M * drive.SIZE_PX / ARENA_M) ** 2, rel=0.2
    )
    assert (_distance(pose)[changed] < ROBOT_M + ARENA_M / drive.SIZE_PX).all()


def test_other_sizes_show_the_same_scene() -> None:
    small, large = (drive.draw(OPEN, size).astype(float) for size in (48, 96))
    halved = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(small - halved).mean() < 2.0


gymnasium = pytest.importorskip("gymnasium")


@pytest.fixture
def env() -> Any:
    drive.register()
    drive.register()  # the second time does nothing, and does not warn
    return gymnasium.make(drive.ENV_ID, max_episode_steps=50).unwrapped


def test_it_keeps_gymnasiums_rules(env: Any) -> None:
    from gymnasium.utils.env_checker import check_env

    with pytest.warns(UserWarning, match="symmetric and normalized"):
        check_env(env)


def test_an_episode_is_a_function_of_its_seed(env: Any) -> None:
    def played(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        seen, _ = env.reset(seed=seed)
        frames = [seen["pixels"], seen["state"]]
        for _ in range(20):
            seen, *_ = env.step(rng.uniform(drive.ACTION_LOW, drive.ACTION_HIGH))
            frames += [seen["pixels"], seen["state"]]
        return frames

    one, again, other = played(3), played(3), played(4)
    assert all(map(np.array_equal, one, again))
    assert not np.array_equal(one[1], other[1])


def test_it_starts_where_it_is_put(env: Any) -> None:
    seen, info = env.reset(seed=0, options={"state": [1.0, 1.0, 0.5]})
    assert seen["state"].tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert info == {"hit": False}
    assert env.exact_state() == np.array([1.0, 1.0, 0.5]).tobytes()
    for state in ([0.0, 1.0, 0.0], [*PILLARS[0][:2], 0.0], [1.0, math.nan, 0.0], [1.0, 1.0]):
        with pytest.raises(UsageError, match="cannot start at"):
            env.reset(options={"state": state})


def test_actions_are_clipped_and_broken_ones_refused(env: Any) -> None:
    env.reset(seed=0, options={"state": [1.0, 1.0, 0.0]})
    seen, reward, *_, info = env.step(np.array([9.0, 0.0]))
    assert seen["state"][0] == pytest.approx(1.06)
    assert (reward, info) == (0.0, {"hit": False})
    for action in ([math.nan, 0.0], [math.inf, 0.0], [0.1], [0.1, 0.2, 0.3]):
        with pytest.raises(UsageError, match="takes two finite numbers"):
            env.step(action)


def test_a_hit_is_told_and_costs(env: Any) -> None:
    env.reset(seed=0, options={"state": [ARENA_M - NEAREST_WALL - 0.01, 1.0, 0.0]})
    *_, info = env.step([0.0, 1.0])
    assert not info["hit"]
    env.reset(seed=0, options={"state": [ARENA_M - NEAREST_WALL - 0.01, 1.0, 0.0]})
    _, reward, terminated, _, info = env.step([0.6, 0.0])
    assert (reward, terminated, info["hit"]) == (-1.0, False, True)


def test_its_metadata_names_what_a_dataset_and_an_evaluation_need(env: Any) -> None:
    metadata, space = env.metadata, env.action_space
    assert metadata["render_fps"] == drive.HZ
    assert len(metadata["action_names"]) == len(metadata["action_units"]) == space.shape[0]
    assert len(metadata["state_names"]) == len(metadata["state_units"])
    assert env.render().shape == (96, 96, 3)


def test_what_it_cannot_do_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no render_mode 'human'"):
        drive.make(render_mode="human")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingDependency, match=r"jetsight\[sim\]"):
        drive.register()
