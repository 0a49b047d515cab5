"""Recordings of real robots, where they are present: set JETSIGHT_REAL_DATA to their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError, UsageError

pytestmark = pytest.mark.slow
VARIABLE = "JETSIGHT_REAL_DATA"


@pytest.fixture
def real() -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs recordings of real robots; set {VARIABLE} to their folder")
    return Path(folder)


def test_widowx_rlds(real: Path) -> None:
    path = real / "widowx_rlds"
    with pytest.raises(UsageError, match="several cameras"):
        open_dataset(path, FeatureMap(rate_hz=5))
    with pytest.raises(DataError, match="declares no rate"):
        open_dataset(path, FeatureMap(cameras=("image_0",)))
    dataset = open_dataset(path, FeatureMap(cameras=("image_0", "image_1"), rate_hz=5))
    assert dataset.episode_lengths == [10] * 25
    episode = dataset.episode(24)
    assert episode.frames.shape == (10, 2, 64, 64, 3)
    assert episode.actions.shape == episode.states.shape == (10, 7)
    # Two views of one scene: both change, and they differ.
    assert np.abs(np.diff(episode.frames.astype(int), axis=0)).mean() > 0.5
    assert not np.array_equal(episode.frames[:, 0], episode.frames[:, 1])


def test_donkeycar_tub(real: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(real / "donkeycar" / "tub.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    with pytest.raises(DataError, match="3 ms apart"):
        open_dataset(tmp_path / "tub")
    dataset = open_dataset(tmp_path / "tub", FeatureMap(rate_hz=20))
    assert (dataset.episode_lengths, dataset.action_names) == ([1000], ["angle", "throttle"])
    actions = dataset.rows(0).actions
    assert np.abs(actions).max() <= 1.0
    assert next(dataset.frames(0)).shape == (120, 160, 3)
