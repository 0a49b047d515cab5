"""The writer of datasets by itself: several cameras, odd rates, further columns, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import DataError, UsageError
from jetsight.storage.atomic import new_directory
from jetsight_train.record.dataset import assemble
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.staging import EpisodeRows, rows_path, write_episode

TOP, WRIST = "observation.images.top", "observation.images.wrist"
T = 6


def described(**changes: Any) -> DatasetDescription:
    facts: dict[str, Any] = {
        "task": "reach",
        "robot_type": "arm",
        "fps": 12.5,
        "size_hw": (32, 48),
        "state_names": ["x"],
        "action_names": ["v", "w"],
        "cameras": (TOP, WRIST),
        "state_units": ["m"],
        "action_units": ["m/s", "rad/s"],
        "extra": ("info.hit", "info.gap"),
    }
    return DatasetDescription(**facts | changes)


def rows_of(**changes: Any) -> EpisodeRows:
    """Rows of `T` ticks that fit `described()`."""
    ticks = np.arange(T, dtype=np.float32)
    facts: dict[str, Any] = {
        "actions": np.stack([ticks, -ticks], axis=1),
        "states": ticks[:, None] / 10,
        "extra": {"info.hit": ticks > 3, "info.gap": ticks / 7},
        "task": None,
    }
    return EpisodeRows(**facts | changes)


def frames_of(levels: tuple[int, ...] = (40, 200)) -> np.ndarray:
    """`[T,C,32,48,3]`: one brightness per camera, a little more in every tick."""
    frames = np.zeros((T, len(levels), 32, 48, 3), np.uint8)
    for camera, level in enumerate(levels):
        frames[:, camera] = level + 2 * np.arange(T, dtype=np.uint8)[:, None, None, None]
    return frames


@pytest.fixture
def written(tmp_path: Path) -> Path:
    staging = tmp_path / "staging"
    staging.mkdir()
    write_episode(staging, 0, rows_of(), frames_of(), described())
    write_episode(staging, 1, rows_of(task="turn"), frames_of((90, 120)), described())
    with new_directory(tmp_path / "arm") as folder:
        assert assemble(folder, staging, range(2), described()) == 2 * T
    return tmp_path / "arm"


@pytest.mark.parametrize(("camera", "levels"), [(TOP, (40, 90)), (WRIST, (200, 120))])
def test_each_camera_has_its_own_video(written: Path, camera: str, levels: tuple[int, int]) -> None:
    data = LeRobotDataset.open(written, camera)
    for index, level in enumerate(levels):
        found = data.episode(index).frames.mean(axis=(1, 2, 3))
        assert np.allclose(found, level + 2 * np.arange(T), atol=2.0)
        assert not np.allclose(found, levels[1 - index] + 2 * np.arange(T), atol=2.0)


def test_a_rate_that_is_not_whole_is_kept(written: Path) -> None:
    data = LeRobotDataset.open(written, TOP)
    assert data.fps == 12.5
    assert np.allclose(data.rows(1).timestamps_s, np.arange(T) / 12.5, atol=1e-6)


def test_whole_rates_stay_whole_numbers(tmp_path: Path) -> None:
    about = described(fps=10.0, cameras=(TOP,), extra=())
    tmp_path.joinpath("s").mkdir()
    write_episode(tmp_path / "s", 0, rows_of(extra={}), frames_of((9,))[:, 0], about)
    with new_directory(tmp_path / "arm") as folder:
        assemble(folder, tmp_path / "s", range(1), about)
    assert '"fps": 10,' in (tmp_path / "arm/meta/info.json").read_text()


def test_columns_units_and_tasks_are_in_the_tables(written: Path) -> None:
    info = json.loads((written / "meta/info.json").read_text())
    assert info["features"]["action"] == {
        "dtype": "float32",
        "shape": [2],
        "names": ["v", "w"],
        "units": ["m/s", "rad/s"],
    }
    assert info["features"]["observation.state"]["units"] == ["m"]
    assert info["features"]["info.hit"]["dtype"] == "bool"
    assert info["total_tasks"] == 2
    rows = pq.read_table(written / "data/chunk-000/file-000.parquet").to_pydict()
    assert rows["info.hit"] == 2 * [False, False, False, False, True, True]
    assert np.allclose(rows["info.gap"], np.tile(np.arange(T) / 7, 2))
    assert rows["task_index"] == T * [0] + T * [1]
    tasks = pq.read_table(written / "meta/tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "task": ["reach", "turn"]}
    stats = json.loads((written / "meta/stats.json").read_text())
    assert stats[TOP]["mean"][0][0][0] < 0.4 < 0.6 < stats[WRIST]["mean"][0][0][0]


NAN = np.full((T, 1), 0.0, np.float32)
NAN[3] = np.nan


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (rows_of(states=NAN), ["episode 4", "'observation.state'", "[nan] in row 3"]),
        (rows_of(actions=np.full((T, 2), np.inf, np.float32)), ["'action'", "row 0"]),
        (rows_of(extra={"info.hit": NAN[:, 0] > 0, "info.gap": NAN[:, 0]}), ["'info.gap'"]),
        (rows_of(states=np.zeros((T, 2), np.float32)), ["[6, 2], expected [6, 1]"]),
        (rows_of(extra={"info.hit": NAN[:, 0] > 0}), ["expected ['info.gap', 'info.hit']"]),
        (rows_of(extra={"info.hit": np.array(T * ["no"]), "info.gap": NAN[:, 0]}), ["numbers"]),
    ],
)
def test_rows_that_no_command_could_read_are_never_written(
    tmp_path: Path, rows: EpisodeRows, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        write_episode(tmp_path, 4, rows, frames_of(), described())
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (frames_of()[:-1], "5 frames and 6 rows"),
        (frames_of()[:, :1], "shape [1, 32, 48, 3], expected [2, 32, 48, 3]"),
        (frames_of()[:, :, :30], "expected [2, 32, 48, 3]"),
    ],
)
def test_frames_that_do_not_fit_leave_no_finished_episode(
    tmp_path: Path, frames: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        write_episode(tmp_path, 0, rows_of(), frames, described())
    assert words in str(caught.value)
    assert not rows_path(tmp_path, 0).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": ("action",)}, "'action'"),
        ({"cameras": (TOP, TOP)}, "two features named"),
        ({"cameras": ()}, "at least one camera"),
        ({"action_units": ["m/s"]}, "1 action units"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        described(**changes)
