from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.paths import RECORDED
from helpers.train.toy_heads import WORLD_RECIPE

from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError
from jetsight_train.data.encoded import read_recorded, read_tracks
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.model.world_model import WorldModel

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def model() -> WorldModel:
    action = ActionSpec(
        names=("target_x", "target_y"),
        units=("px", "px"),
        low=(0.0,) * 2,
        high=(512.0,) * 2,
        rate_limit_per_s=None,
        neutral=(256.0,) * 2,
        mean=(256.0,) * 2,
        std=(100.0,) * 2,
    )
    frame = whole_frame((96, 96), (8, 8))
    return WorldModel(WORLD_RECIPE.model, frame, TimingSpec(10.0, 5), action).eval()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the first two episodes of the recorded dataset."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "pusht"))
    info = json.loads((folder / "meta/info.json").read_text())
    info["total_episodes"] = 2
    (folder / "meta/info.json").write_text(json.dumps(info))
    edit(folder / EPISODES, lambda table: table.slice(0, 2))
    return folder


def edit(path: Path, change: object) -> None:
    pq.write_table(change(pq.read_table(path)), path)  # type: ignore[operator]


def test_a_dataset_becomes_latents_and_columns(copy: Path, model: WorldModel) -> None:
    tracks = read_tracks(model, copy, ["agent_x", "next.done"])
    first = LeRobotDataset.open(copy).episode(0)
    assert (tracks.episodes, tracks.latents.shape) == (2, (400, 8))
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(first.frames[:9]))
    torch.testing.assert_close(tracks.latents[:9], latents, atol=1e-5, rtol=1e-5)
    assert np.array_equal(tracks.columns["agent_x"][:200], first.states[:, 0])
    assert np.flatnonzero(tracks.columns["next.done"]).tolist() == [199, 399]
    assert tracks.recording.frames_u8.size == 0
    assert not tracks.latents.requires_grad


def test_columns_of_some_episodes(copy: Path) -> None:
    both = read_recorded(copy, ["frame_index", "agent_y", "next.reward"])
    assert set(both) == {"frame_index", "next.reward"}
    second = read_recorded(copy, ["next.reward"], [1])["next.reward"]
    assert np.array_equal(second, both["next.reward"][200:])
    assert read_recorded(copy, ["agent_x"]) == {}


def test_a_column_that_is_not_there_is_told_before_decoding(
    copy: Path, model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(VideoIndex, "frames")
    with pytest.raises(DataError, match=r"no column 'agent_z' .* did you mean 'agent_"):
        read_tracks(model, copy, ["agent_z"])


def test_gaps_in_a_recorded_column_are_refused(copy: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = table["next.reward"].to_numpy().copy()
        values[3] = np.nan
        place = table.column_names.index("next.reward")
        return table.set_column(place, "next.reward", pa.array(values))

    edit(copy / DATA, spoil)
    with pytest.raises(DataError, match=r"column 'next\.reward' has NaN or infinity at tick 3"):
        read_recorded(copy, ["next.reward"])


def test_another_camera_robot_or_rate_is_told_before_decoding(
    copy: Path, model: WorldModel
) -> None:
    shutil.rmtree(copy / "videos")
    frame, timing, action = model.frame, model.timing, model.action
    model.frame = replace(frame, height_px=48, crop=(0, 0, 48, 96))
    with pytest.raises(DataError, match="frames are 96x96, but the model takes 96x48"):
        read_tracks(model, copy, [])
    model.frame, model.timing = frame, replace(timing, camera_hz=20.0)
    with pytest.raises(DataError, match="recorded at 10 Hz, but the model steps at 20 Hz"):
        read_tracks(model, copy, [])
    vectors = ("names", "units", "low", "high", "neutral", "mean", "std")
    one = {name: getattr(action, name)[:1] for name in vectors}
    model.timing, model.action = timing, ActionSpec(**one, rate_limit_per_s=None)
    with pytest.raises(
        DataError,
        match=r"but the model takes \['target_x'\] in this order",
    ):
        read_tracks(model, copy, [])
