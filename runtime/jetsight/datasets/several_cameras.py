"""Several cameras of one dataset as one frame, whatever its format.

Shapes: T ticks of an episode, C cameras, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import RecordedDataset, Rows
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
        self.episode_lengths = first.episode_lengths
        self.notes = tuple(dict.fromkeys(note for view in views for note in view.notes))
        if len(set(self.camera_keys)) != len(views):
            raise UsageError(
                f"{self.path}: cameras {list(self.camera_keys)} repeat themselves; name each once"
            )
        for view in views[1:]:
            self._check_alike(view)

    def rows(self, index: int) -> Rows:
        """Read the rows of episode `index`."""
        return self._views[0].rows(index)

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode all cameras of episode `index` side by side in time: `[C, h, w, 3]` each."""
        each = [view.frames(index) for view in self._views]
        # A reader yields as many frames as the episode is long, or raises.
        for pictures in zip(*each, strict=True):
            yield np.stack(pictures)

    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Read recorded columns of episode `index`."""
        return self._views[0].columns(index, names)

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file, those of all cameras included."""
        return self._views[0].digest()

    def _check_alike(self, view: RecordedDataset) -> None:
        key, first = view.camera_keys[0], self.camera_keys[0]
        if (view.height, view.width) != (self.height, self.width):
            raise DataError(
                f"{self.path}: camera {first!r} has frames of {self.width}x{self.height} px, and "
                f"{key!r} of {view.width}x{view.height}; the cameras of one model have one size, "
                "so convert the dataset to it, or choose others"
            )
        if list(view.episode_lengths) != list(self.episode_lengths):
            raise DataError(
                f"{self.path}: cameras {first!r} and {key!r} have episodes of different lengths; "
                "copy the dataset again, or choose other cameras"
            )
