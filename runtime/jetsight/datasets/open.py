"""Opening of recorded data of any known format."""

from __future__ import annotations

import os
from pathlib import Path

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.lerobot import LeRobotDataset


def open_dataset(
    path: str | os.PathLike[str], features: FeatureMap | None = None
) -> RecordedDataset:
    """Open a dataset in the format that its files show.

    Args:
        path: folder or file of the dataset.
        features: which features are actions, states and frames, where that is not clear.

    Raises:
        DataError: the format is unknown, a file is damaged, or no frames or actions can be found.
        UsageError: a feature of `features` does not exist, or several could be meant.
        MissingDependency: a library that the format needs is not installed.

    Example:
        >>> open_dataset("calib_data/pusht").action_names
        ['target_x', 'target_y']
    """
    return LeRobotDataset.open(Path(path), features=features)
