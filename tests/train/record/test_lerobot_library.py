"""Exchange of datasets with the LeRobot library in both directions, pixel by pixel.

Needs a Python with LeRobot, made by `lerobot_venv.sh` in this folder; see there.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import RECORDED
from helpers.simulators.environments import odd

from jetsight.datasets.dataset import Episode, FeatureMap
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.storage.atomic import new_directory
from jetsight_train.conversion.convert import convert
from jetsight_train.conversion.plan import plan_conversion
from jetsight_train.conversion.recipe import ConversionOptions
from jetsight_train.record.collect import describe
from jetsight_train.record.dataset import assemble
from jetsight_train.record.episode import RecordingRecipe, record

PEER = Path(__file__).with_name("lerobot_peer.py")
PYTHON = os.environ.get("JETSIGHT_LEROBOT")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None,
        reason="JETSIGHT_LEROBOT names no Python with LeRobot; lerobot_venv.sh makes one",
    ),
]


def ask_lerobot(verb: str, dataset: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """Return the items that LeRobot reads from `dataset`, in recorded order."""
    out = tmp_path / "seen.npz"
    subprocess.run([str(PYTHON), str(PEER), verb, str(dataset), str(out)], check=True, timeout=600)
    with np.load(out, allow_pickle=False) as archive:
        return dict(archive)


def everything(dataset: LeRobotDataset) -> Episode:
    """Join all episodes of a dataset."""
    episodes = [dataset.episode(i) for i in range(len(dataset))]
    return Episode(
        *(
            np.concatenate([getattr(episode, field) for episode in episodes])
            for field in ("actions", "states", "timestamps_s", "frames")
        )
    )


def test_lerobot_reads_what_we_record(tmp_path):
    theirs = ask_lerobot("read", RECORDED, tmp_path)
    ours = everything(LeRobotDataset.open(RECORDED))
    frames = theirs["frames observation.images.top"]
    assert np.array_equal(frames, ours.frames)
    assert not np.array_equal(frames[1:], ours.frames[:-1])  # control: a frame off is seen
    assert np.array_equal(theirs["actions"], ours.actions)
    assert np.array_equal(theirs["states"], ours.states)
    assert np.allclose(theirs["timestamps"], ours.timestamps_s)
    assert np.array_equal(theirs["episode_index"], np.repeat(np.arange(16), 200))
    assert theirs["tasks"].tolist() == ["gym_pusht/PushT-v0, scripted policy"]
    assert theirs["fps"] == 10
    # Statistics are of what was encoded, so they differ from the decoded by what the codec did.
    assert np.allclose(theirs["image_mean"], ours.frames.mean(axis=(0, 1, 2)) / 255, atol=2e-3)
    assert np.allclose(theirs["state_std"], ours.states.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("lossless", [False, True])
def test_lerobot_reads_what_we_convert(tmp_path, lossless):
    options = ConversionOptions(
        FeatureMap(), hz=5.0, size_hw=(64, 48), episodes="0:3", lossless=lossless
    )
    made = convert(plan_conversion(RECORDED, options), tmp_path / "made")[0].path
    theirs = ask_lerobot("read", made, tmp_path)
    ours = everything(LeRobotDataset.open(made))
    frames = theirs["frames observation.images.top"]
    assert np.array_equal(frames, ours.frames)
    assert not np.array_equal(frames[1:], ours.frames[:-1])  # control: a frame off is seen
    assert np.array_equal(theirs["actions"], ours.actions)
    assert np.array_equal(theirs["states"], ours.states)
    assert np.allclose(theirs["timestamps"], ours.timestamps_s)
    assert np.array_equal(theirs["episode_index"], np.repeat(np.arange(3), 100))
    assert theirs["tasks"].tolist() == ["gym_pusht/PushT-v0, scripted policy"]
    assert theirs["fps"] == 5
    assert np.allclose(theirs["image_mean"], ours.frames.mean(axis=(0, 1, 2)) / 255, atol=2e-3)


def test_we_read_what_lerobot_records(tmp_path):
    theirs = ask_lerobot("write", tmp_path / "made", tmp_path)
    for camera in ("observation.images.video", "observation.images.still"):
        dataset = LeRobotDataset.open(tmp_path / "made", camera)
        ours, frames = everything(dataset), theirs[f"frames {camera}"]
        assert dataset.episode_lengths == [17] * 3
        assert (dataset.action_names, dataset.state_names) == (["u", "v"], ["x", "y", "z"])
        assert np.array_equal(ours.actions, theirs["actions"])
        assert np.array_equal(ours.states, theirs["states"])
        # Two builds of swscale may round a pixel differently; a frame off differs by far more.
        assert np.abs(ours.frames.astype(int) - frames).max() <= 2
        assert np.abs(ours.frames[1:].astype(int) - frames[:-1]).max() > 20


def test_lerobot_reads_two_cameras_at_a_rate_that_is_not_whole(tmp_path):
    names, sizes = ("top", "wrist"), {"height_px": 64, "width_px": 96}
    recipe = RecordingRecipe(odd("TwoViews"), 2, 9, 3, "random", cameras=names, **sizes)
    about = replace(describe(recipe), fps=12.5)
    staging = tmp_path / "staging"
    staging.mkdir()
    for index in range(2):
        record(recipe, index, staging, about)
    with new_directory(tmp_path / "two") as folder:
        assemble(folder, staging, range(2), about)
    theirs = ask_lerobot("read", tmp_path / "two", tmp_path)
    assert theirs["fps"] == 12.5
    found = {}
    for name in names:
        ours = everything(LeRobotDataset.open(tmp_path / "two", f"observation.images.{name}"))
        found[name] = theirs[f"frames observation.images.{name}"]
        assert np.abs(found[name].astype(int) - ours.frames).max() <= 2
        assert np.array_equal(theirs["actions"], ours.actions)
        assert np.allclose(theirs["timestamps"], ours.timestamps_s, atol=1e-6)
    assert np.abs(found["top"].astype(int) - found["wrist"]).max() > 100  # control
