"""Opening of recorded data of any known format.

A reader registers by a `DatasetFormat` in `FORMATS`; the first whose `detect` accepts opens.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from jetsight.datasets import lerobot
from jetsight.datasets.dataset import DatasetFormat, FeatureMap, RecordedDataset
from jetsight.datasets.fit import RecordingSpec
from jetsight.datasets.formats import donkeycar, droid, hdf5, rlds, rosbag, video_table
from jetsight.datasets.several_cameras import SeveralCameras
from jetsight.errors import DataError

_LOGGER = logging.getLogger("jetsight")
FORMATS: tuple[DatasetFormat, ...] = (
    lerobot.FORMAT,
    rlds.FORMAT,
    donkeycar.FORMAT,
    rosbag.FORMAT,
    droid.FORMAT,
    hdf5.FORMAT,
    video_table.FORMAT,
)
_SHOWN = 5  # names of files in a message


def open_dataset(
    path: str | os.PathLike[str], features: FeatureMap | None = None, *, describe: bool = False
) -> RecordedDataset:
    """Open a dataset in the format that its files show.

    Args:
        path: folder or file of the dataset.
        features: which features are actions, states and frames, where that is not clear.
        describe: open it also where none of several cameras is chosen, to describe it; reading
            frames is then an error.

    Raises:
        DataError: the format is unknown, a file is damaged, or there is no camera.
        UsageError: a feature of `features` does not exist, or there are several cameras.
        MissingDependency: a library that the format needs is not installed.

    Example:
        >>> open_dataset("calib_data/pusht").action_names
        ['target_x', 'target_y']
    """
    path, features = Path(path), features or FeatureMap()
    found = detect_format(path)
    if found is None:
        raise DataError(f"{path} {_unlike(path)}")
    if len(features.cameras) > 1 and not found.aligns:
        one_each = (replace(features, cameras=(camera,)) for camera in features.cameras)
        return SeveralCameras([found.open(path, each) for each in one_each])
    dataset = found.open(path, features)
    if not describe:
        dataset.check_cameras()
    return dataset


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


def say_notes(dataset: RecordedDataset) -> None:
    """Log what a user must know about a dataset: episodes left out, clocks that differ."""
    for note in dataset.notes:
        _LOGGER.warning("%s: %s", dataset.path, note)


def detect_format(path: Path) -> DatasetFormat | None:
    """Return the first format that a folder or file looks like; None for another thing."""
    return next((known for known in FORMATS if known.detect(path)), None)


def _unlike(path: Path) -> str:
    layouts = ", or ".join(known.layout for known in FORMATS)
    if not path.exists():
        return f"does not exist; expected {layouts}"
    if not path.is_dir():
        return f"is no recorded dataset; expected {layouts}"
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as problem:
        return f"cannot be read ({problem.strerror}); give a folder of yours"
    # A few entries show the user which folder was really given.
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"is no recorded dataset (it holds {shown or 'nothing'}); expected {layouts}"
