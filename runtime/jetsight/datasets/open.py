"""Opening of recorded data of any known format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import RecordingSpec
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.datasets.several_cameras import SeveralCameras


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
    features = features or FeatureMap()
    if len(features.cameras) < 2:
        return _open(path, features)
    views = [_open(path, replace(features, cameras=(camera,))) for camera in features.cameras]
    return SeveralCameras(views)


def open_for(
    path: str | os.PathLike[str], wanted: RecordingSpec, features: FeatureMap | None = None
) -> RecordedDataset:
    """Open the cameras that a model takes, in its order; `check_dataset_fits` checks the rest.

    Args:
        path: folder or file of the dataset.
        wanted: spec of the model.
        features: see `open_dataset`; its cameras, if any, stand for those of the model.

    Raises:
        DataError: see `open_dataset`.
        UsageError: likewise.
        MissingDependency: likewise.
    """
    features = features or FeatureMap()
    return open_dataset(path, replace(features, cameras=features.cameras or tuple(wanted.cameras)))


def _open(path: str | os.PathLike[str], features: FeatureMap) -> RecordedDataset:
    """Open a dataset of one camera."""
    return LeRobotDataset.open(Path(path), features=features)
