"""A recorded dataset opened once per camera, so that its cameras may differ in size.

Shapes: T rows of an episode, C cameras, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import FeatureMap, RecordedDataset, Rows
from jetsight.datasets.labels import RecordingLabels
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError

ALL_CAMERAS = "all"


@dataclass(frozen=True)
class RecordedSource:
    """The chosen cameras of one dataset, and the episodes that all of them have.

    Args:
        views: the dataset once per camera; rows are read from the first.
        places: for each view, its number of each episode.
        missing: why there are no actions, states or frames, by role; a camera is missing too where
            none of several was chosen.
        has_cameras: false where the dataset has no camera to read.
    """

    views: tuple[RecordedDataset, ...]
    places: tuple[tuple[int, ...], ...]
    missing: Mapping[str, str]
    has_cameras: bool = True

    @property
    def first(self) -> RecordedDataset:
        """The view that rows and facts are read from."""
        return self.views[0]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Feature of each camera, in order."""
        if not self.has_cameras:
            return ()
        return tuple(view.camera_keys[0] for view in self.views)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each episode."""
        return tuple(self.first.episode_lengths[place] for place in self.places[0])

    @property
    def numbers(self) -> tuple[int, ...]:
        """The dataset's own number of each episode."""
        return tuple(self.first.episode_numbers[place] for place in self.places[0])

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that the readers mention."""
        return tuple(dict.fromkeys(note for view in self.views for note in view.notes))

    def __len__(self) -> int:
        """Count the episodes."""
        return len(self.places[0])

    def rows(self, episode: int) -> Rows:
        """Read the rows of one episode; see `RecordedDataset.rows`."""
        return self.first.rows(self.places[0][episode])

    def columns(self, episode: int, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Read further columns of one episode; see `RecordedDataset.columns`."""
        return self.first.columns(self.places[0][episode], names)

    def frames(self, episode: int, camera: int) -> Iterator[NDArray[np.uint8]]:
        """Decode the frames of one camera; see `RecordedDataset.frames`."""
        return self.views[camera].frames(self.places[camera][episode])

    def labels(self) -> RecordingLabels:
        """Read the labels, with the tasks of these episodes."""
        labels = self.first.labels()
        tasks = tuple(labels.tasks[place] for place in self.places[0]) if labels.tasks else ()
        return replace(labels, tasks=tasks)


def open_source(path: Path, features: FeatureMap, *, describe: bool = False) -> RecordedSource:
    """Open a dataset once for each chosen camera.

    Args:
        path: folder or file of the dataset.
        features: its cameras may be `("all",)`, for all that show colours.
        describe: take all cameras where none of several is chosen, and open a dataset that has
            none.

    Raises:
        DataError: it cannot be opened, has no camera, or no episode has all of its cameras.
        UsageError: there are several cameras and none is chosen, or there is no such feature.
    """
    every = features.cameras == (ALL_CAMERAS,)
    one = features if len(features.cameras) == 1 and not every else replace(features, cameras=())
    described = open_dataset(path, one, describe=True)
    keys = features.cameras
    if every or (describe and not keys and "camera" in described.missing):
        keys = tuple(camera.key for camera in described.cameras if camera.kind == "colour")
    if not keys and not described.camera_keys:
        if not describe:
            described.check_cameras()
        places = (tuple(range(len(described))),)
        return RecordedSource((described,), places, described.missing, has_cameras=False)
    if len(keys) < 2 and described.camera_keys:
        views: tuple[RecordedDataset, ...] = (described,)
    else:
        views = tuple(open_dataset(path, replace(features, cameras=(key,))) for key in keys)
    return RecordedSource(views, _places(path, views), described.missing)


def _places(path: Path, views: Sequence[RecordedDataset]) -> tuple[tuple[int, ...], ...]:
    """Find the episodes that all views have; the video of a camera may be missing."""
    numbers = [list(view.episode_numbers) for view in views]
    common = [n for n in numbers[0] if all(n in other for other in numbers[1:])]
    if not common:
        keys = ", ".join(view.camera_keys[0] for view in views)
        raise DataError(
            f"{path}: no episode has all of {keys}; copy the dataset again, or choose other cameras"
        )
    return tuple(tuple(each.index(n) for n in common) for each in numbers)
