"""Opening of recorded data of any known format.

A reader registers by a `DatasetFormat` in `FORMATS`; the first whose `detect` accepts opens.
"""

from __future__ import annotations

import os
from pathlib import Path

from jetsight.datasets import lerobot
from jetsight.datasets.dataset import DatasetFormat, FeatureMap, RecordedDataset
from jetsight.datasets.formats import donkeycar, droid, hdf5, rlds, rosbag, video_table
from jetsight.errors import DataError

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
    path = Path(path)
    found = detect_format(path)
    if found is None:
        raise DataError(f"{path} {_unlike(path)}")
    dataset = found.open(path, features or FeatureMap())
    if not describe:
        dataset.check_cameras()
    return dataset


def detect_format(path: Path) -> DatasetFormat | None:
    """Return the first format that a folder or file looks like; None for another thing."""
    return next((known for known in FORMATS if known.detect(path)), None)


def _unlike(path: Path) -> str:
    layouts = ", or ".join(known.layout for known in FORMATS)
    if not path.exists():
        return f"does not exist; expected {layouts}"
    if not path.is_dir():
        return f"is no recorded dataset; expected {layouts}"
    # A few entries show the user which folder was really given.
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"is no recorded dataset (it holds {shown or 'nothing'}); expected {layouts}"
