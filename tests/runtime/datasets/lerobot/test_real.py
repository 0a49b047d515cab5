"""A real LeRobot v2.1 recording of a Unitree G1, where `JETSIGHT_REAL_DATA` names its folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.datasets.open import open_dataset

REAL = Path(os.environ.get("JETSIGHT_REAL_DATA", "."))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (REAL / "unitree_g1_v21" / "meta").is_dir(),
        reason="JETSIGHT_REAL_DATA names no folder with unitree_g1_v21",
    ),
]


def test_four_of_a_hundred_episodes_of_a_real_humanoid_are_read() -> None:
    data = open_dataset(REAL / "unitree_g1_v21")
    data.verify()
    assert isinstance(data, LeRobotDataset)
    assert (data.format, data.robot, data.fps) == ("lerobot-v2", "Unitree_G1_Inspire", 30)
    assert (data.height, data.width, len(data.action_names), len(data.state_names)) == (
        *(480, 640),
        *(26, 26),
    )
    assert data.action_names[0] == "kLeftShoulderPitch"  # its names are a list in a list
    assert data.episode_numbers == [29, 30, 31, 59]
    assert "96 of 100 episodes" in data.notes[0]
    assert "0..28, 32..58, 60..99" in data.notes[0]
    for index, length in enumerate(data.episode_lengths):
        rows = data.rows(index)
        assert rows.actions.shape == rows.states.shape == (length, 26)
        assert np.isfinite(rows.actions).all()
        first = None
        count = 0
        for frame in data.frames(index):
            assert frame.shape == (480, 640, 3)
            first = frame.astype(int) if first is None else first
            count += 1
        assert count == length
        assert first is not None
        # It moves: the last frame differs from the first one by more than its codec changes.
        assert np.abs(frame - first).mean() > 2
