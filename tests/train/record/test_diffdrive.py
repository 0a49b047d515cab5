"""The driver of the differential drive: it goes everywhere in every way, and repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jetsight.datasets.open import open_dataset
from jetsight.simulators import differential_drive as drive
from jetsight_train.record.collect import collect
from jetsight_train.record.diffdrive import DiffDriveDriver
from jetsight_train.record.episode import RecordingRecipe

Trip = tuple[np.ndarray, np.ndarray, np.ndarray]


def trip(seed: int, ticks: int = 120) -> Trip:
    """Poses [T,3], actions [T,2] and hits [T] of one episode."""
    rng = np.random.default_rng(seed)
    driver, pose = DiffDriveDriver(rng), drive.random_pose(rng)
    poses, actions, hits = [], [], []
    for _ in range(ticks):
        actions.append(driver.act(pose))
        poses.append([pose.x, pose.y, pose.heading])
        pose, hit = drive.moved(pose, *map(float, actions[-1]))
        hits.append(hit)
    return np.array(poses), np.array(actions), np.array(hits)


def visits(places: np.ndarray) -> np.ndarray:
    """Ticks in each of the 25 cells of the arena whose middle no pillar covers."""
    edges = np.linspace(0.17, 1.83, 6)
    found, *_ = np.histogram2d(*places.T, bins=(edges, edges))
    middles = (edges[1:] + edges[:-1]) / 2
    free = [[drive.is_free(x, y) for y in middles] for x in middles]
    return found[np.array(free)]


@pytest.fixture(scope="module")
def trips() -> list[Trip]:
    return [trip(seed) for seed in range(60)]


def test_a_trip_is_a_function_of_its_seed() -> None:
    one, again, other = trip(3), trip(3), trip(4)
    assert all(map(np.array_equal, one, again))
    assert not np.array_equal(one[1], other[1])


def test_actions_fill_their_box_and_never_leave_it(trips: list[Trip]) -> None:
    actions = np.concatenate([each[1] for each in trips])
    low, high = np.array(drive.ACTION_LOW), np.array(drive.ACTION_HIGH)
    assert (low <= actions).all()
    assert (actions <= high).all()
    shares, *_ = np.histogram2d(*actions.T, bins=4, range=list(zip(low, high, strict=True)))
    assert shares.min() > 0.005 * len(actions), "a corner of the box is hardly recorded"


def test_trips_lead_everywhere_and_touch_something_now_and_then(trips: list[Trip]) -> None:
    poses, hits = (np.concatenate([each[i] for each in trips]) for i in (0, 2))
    assert visits(poses[:, :2]).min() > 20
    assert 0.03 < hits.mean() < 0.3
    headings = np.histogram(np.mod(poses[:, 2], 2 * np.pi), bins=8)[0]
    assert headings.min() > 0.05 * len(poses)


def test_a_driver_that_only_drives_ahead_would_be_seen() -> None:
    """Negative control of the coverage: one action, one row of the box, few places."""
    pose, places = drive.Pose(1.0, 1.0, 0.0), []
    for _ in range(600):
        pose, _ = drive.moved(pose, 0.6, 0.0)
        places.append([pose.x, pose.y])
    assert visits(np.array(places)).min() == 0


def test_it_is_recorded_with_its_names_and_its_contacts(tmp_path: Path) -> None:
    recipe = RecordingRecipe(drive.ENV_ID, 2, 30, 5, "scripted", 96, 96)
    assert collect(recipe, tmp_path / "ds").frames == 60
    data = open_dataset(tmp_path / "ds")
    assert list(data.action_names) == ["v", "w"]
    assert list(data.state_names) == ["x", "y", "heading"]
    assert data.columns(0, ["info.hit"])["info.hit"].shape == (30,)
    assert data.fps == drive.HZ
