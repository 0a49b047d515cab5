"""Several cameras of one dataset as one frame, whatever its format.

Shapes: T ticks of an episode, C cameras, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import RecordedDataset, Rows
from jetsight.datasets.labels import RecordingLabels
from jetsight.errors import DataError, UsageError


class SeveralCameras(RecordedDataset):
    """The same dataset opened once per camera; its frames are `[C, h, w, 3]`.

    Args:
        views: one per camera, in order; everything but the frames is read from the first.

    Raises:
        UsageError: a camera is named twice.
        DataError: the cameras have frames of different sizes, or episodes of different lengths.
    """

    def __init__(self, views: Sequence[RecordedDataset]) -> None:
        first = views[0]
        self._views = views
        self.path, self.format, self.robot = first.path, first.format, first.robot
        self.fps, self.cameras = first.fps, first.cameras
        self.camera_keys = tuple(key for view in views for key in view.camera_keys)
        self.height, self.width = first.height, first.width
        self.action_names, self.state_names = first.action_names, first.state_names
        self.missing = first.missing
        if len(set(self.camera_keys)) != len(views):
            raise UsageError(
                f"{self.path}: cameras {list(self.camera_keys)} repeat themselves; name each once"
            )
        self._numbers = self._common_episodes()
        # Places of the common episodes in each view.
        self._places = [[view.episode_numbers.index(n) for n in self._numbers] for view in views]
        self.episode_lengths = [first.episode_lengths[i] for i in self._places[0]]
        for view, places in zip(views[1:], self._places[1:], strict=True):
            self._check_alike(view, places)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # those of the views may grow
        """Facts that a user must know, of all cameras."""
        return tuple(dict.fromkeys(note for view in self._views for note in view.notes))

    @property
    def episode_numbers(self) -> list[int]:
        """The dataset's own numbers of the episodes that all cameras have."""
        return self._numbers

    def rows(self, index: int) -> Rows:
        """Read the rows of episode `index`."""
        self.check_index(index)
        return self._views[0].rows(self._places[0][index])

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode all cameras of episode `index` side by side in time: `[C, h, w, 3]` each."""
        self.check_index(index)
        return self._stacked(index)

    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Read recorded columns of episode `index`."""
        self.check_index(index)
        return self._views[0].columns(self._places[0][index], names)

    def labels(self) -> RecordingLabels:
        """Read what the dataset declares beside its names."""
        return self._views[0].labels()

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file, those of all cameras included."""
        return self._views[0].digest()

    def verify(self, episodes: Sequence[int] | None = None) -> None:
        """Check the files of all cameras, without decoding a frame."""
        chosen = range(len(self)) if episodes is None else episodes
        for view, places in zip(self._views, self._places, strict=True):
            view.verify([places[index] for index in chosen])

    def _stacked(self, index: int) -> Iterator[NDArray[np.uint8]]:
        pairs = zip(self._views, self._places, strict=True)
        each = [view.frames(places[index]) for view, places in pairs]
        # A reader yields as many frames as the episode is long, or raises.
        for pictures in zip(*each, strict=True):
            yield np.stack(pictures)

    def _common_episodes(self) -> list[int]:
        """List the episodes that all cameras have; a video of one of them may be missing."""
        others = [set(view.episode_numbers) for view in self._views[1:]]
        numbers = self._views[0].episode_numbers
        common = [n for n in numbers if all(n in other for other in others)]
        if not common:
            raise DataError(
                f"{self.path}: no episode has all of {', '.join(self.camera_keys)}; copy the "
                "dataset again, or choose other cameras"
            )
        return common

    def _check_alike(self, view: RecordedDataset, places: Sequence[int]) -> None:
        key, first = view.camera_keys[0], self.camera_keys[0]
        if (view.height, view.width) != (self.height, self.width):
            raise DataError(
                f"{self.path}: camera {first!r} has frames of {self.width}x{self.height} px, and "
                f"{key!r} of {view.width}x{view.height}; the cameras of one model have one size, "
                "so convert the dataset to it, or choose others"
            )
        if [view.episode_lengths[i] for i in places] != self.episode_lengths:
            raise DataError(
                f"{self.path}: cameras {first!r} and {key!r} have episodes of different lengths; "
                "copy the dataset again, or choose other cameras"
            )
