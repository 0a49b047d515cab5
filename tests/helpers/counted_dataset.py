"""A dataset in memory whose frames, states and actions all say their row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jetsight.datasets.dataset import CameraFeature, RecordedDataset, Rows


class CountedDataset(RecordedDataset):
    """Episodes of 2x2 px frames; row t is t everywhere."""

    def __init__(self, lengths: Sequence[int], fps: float) -> None:
        self.path, self.format, self.robot, self.fps = Path("counted"), "counted", "", fps
        self.cameras, self.camera_keys = (CameraFeature("top", 2, 2),), ("top",)
        self.height = self.width = 2
        self.action_names, self.state_names = ["v"], ["row_state"]
        self.episode_lengths = list(lengths)

    def rows(self, index: int) -> Rows:
        self.check_index(index)
        count = np.arange(self.episode_lengths[index], dtype=np.float32)
        return Rows(count[:, None], count[:, None].copy(), count / self.fps)

    def frames(self, index: int) -> Iterator[np.ndarray]:
        self.check_index(index)
        for row in range(self.episode_lengths[index]):
            yield np.full((2, 2, 3), row, np.uint8)

    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {name: self.rows(index).actions[:, 0] for name in names}

    def digest(self) -> str:
        return "counted"
