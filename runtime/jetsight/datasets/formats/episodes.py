"""A recording of raw features as a `RecordedDataset`: one adapter for every format here.

A format says which features and cameras it has and reads one of them at a time; which of them are
actions, state and frames is decided here, as for LeRobot, by `jetsight.datasets.features`.

Shapes: T ticks of an episode, n numbers of a feature, C cameras in use, h, w frame size.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, FeatureMap, RecordedDataset, Rows
from jetsight.datasets.features import (
    RecordedFeature,
    VectorChoice,
    choose_cameras,
    choose_vector,
)
from jetsight.datasets.formats.stamps import measured_rate
from jetsight.errors import DataError, UsageError, did_you_mean

_BLOCK = 1 << 20  # bytes hashed at once: a video may be larger than memory


class RawRecording(ABC):
    """The features of a recording in one format, before any of them is chosen.

    Attributes:
        path: folder or file.
        format: name of the format.
        robot: robot it was recorded with; empty if it does not say.
        fps: frames per second that it declares; None if it declares none.
        features: everything that is recorded per tick, pictures excluded.
        cameras: all cameras, those for depth included.
        lengths: ticks of each episode.
        notes: facts that a user must know, one line each.
    """

    path: Path
    format: str
    robot: str = ""
    fps: float | None = None
    features: Sequence[RecordedFeature] = ()
    cameras: Sequence[CameraFeature] = ()
    lengths: Sequence[int] = ()
    notes: Sequence[str] = ()

    def use(self, keys: Sequence[str], cameras: Sequence[str]) -> None:
        """Prepare for the chosen features; a format without common ticks aligns them here.

        Args:
            keys: features that are actions or state.
            cameras: that frames are read from.

        Raises:
            DataError: they have no time in common.
        """
        del keys, cameras  # of no use to a format whose rows are ticks already

    @abstractmethod
    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read the feature `key` of an episode: `[T]` or `[T, ...]` numbers."""

    @abstractmethod
    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode camera `key` of an episode: T frames `[h, w, 3]` RGB, each new memory."""

    @abstractmethod
    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Read the times of the ticks of an episode `[T]` in s; None where none are recorded."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """List the recorded files, for the digest."""


class RawDataset(RecordedDataset):
    """A raw recording of which actions, state and cameras are chosen.

    Args:
        raw: the recording.
        features: choices of the user.

    Raises:
        DataError: there is no episode, or no rate is known.
        UsageError: a choice does not exist, or the chosen cameras differ in size.
    """

    def __init__(self, raw: RawRecording, features: FeatureMap) -> None:
        self._raw = raw
        self.path, self.format, self.robot = raw.path, raw.format, raw.robot
        self.cameras = tuple(raw.cameras)
        self._action, self._state = (
            choose_vector(role, raw.features, wanted, self.path)
            for role, wanted in (("action", features.action), ("state", features.state))
        )
        self.action_names, self.state_names = list(self._action.names), list(self._state.names)
        self.camera_keys, no_camera = choose_cameras(self.cameras, features, self.path)
        self.height, self.width = self._frame_size()
        reasons = {
            "action": self._action.missing,
            "state": self._state.missing,
            "camera": no_camera,
        }
        self.missing = {role: reason for role, reason in reasons.items() if reason}
        raw.use([*self._action.keys, *self._state.keys], self.camera_keys)
        self.episode_lengths, self.notes = list(raw.lengths), tuple(raw.notes)
        if not self.episode_lengths:
            raise DataError(f"{self.path} holds no episode; expected at least one, copy it again")
        self._even = features.rate_hz is not None
        self.fps = features.rate_hz or raw.fps or self._rate_of_stamps()

    def rows(self, index: int) -> Rows:
        """Read actions, state and times of an episode."""
        self.check_index(index)
        actions, states = (self._vector(index, choice) for choice in (self._action, self._state))
        return Rows(actions, states, self._times(index))

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode the frames of the chosen cameras."""
        self.check_index(index)
        self.check_cameras()
        streams = [self._pictures(index, key) for key in self.camera_keys]
        if len(streams) == 1:
            return streams[0]
        return (np.stack(pictures) for pictures in zip(*streams, strict=True))

    def columns(self, index: int, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Read state columns, or features of one number per tick, of an episode."""
        self.check_index(index)
        singles = [f.key for f in self._raw.features if f.numeric and f.size == 1]
        for name in names:
            if name not in self.state_names and name not in singles:
                hint = did_you_mean(name, [*self.state_names, *singles], "it has")
                raise DataError(f"{self.path}: no column {name!r} of one number per tick; {hint}")
        states = self._vector(index, self._state)
        found = {n: states[:, i] for i, n in enumerate(self.state_names) if n in names}
        others = [name for name in names if name not in found]
        return found | {name: self._numbers(index, name, 1)[:, 0] for name in others}

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file."""
        total = hashlib.sha256()
        root = self.path if self.path.is_dir() else self.path.parent
        for file in sorted(self._raw.files()):
            content, size = hashlib.sha256(), 0
            try:
                with file.open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        content.update(block)
                        size += len(block)
            except OSError as problem:
                raise DataError(
                    f"cannot read {file} ({problem.strerror}); check the disk"
                ) from problem
            name = file.relative_to(root).as_posix()
            total.update(f"{name}\0{size}\0{content.hexdigest()}\n".encode())
        return total.hexdigest()

    def _frame_size(self) -> tuple[int, int]:
        used = [camera for key in self.camera_keys for camera in self.cameras if camera.key == key]
        sizes = {(camera.height, camera.width) for camera in used}
        if len(sizes) > 1:
            listed = ", ".join(f"{c.key} {c.width}x{c.height}" for c in used)
            raise UsageError(
                f"{self.path}: the cameras differ in size: {listed}; bring them to one with "
                f"jetsight data convert {self.path} DST --size WIDTHxHEIGHT"
            )
        return sizes.pop() if sizes else (0, 0)

    def _vector(self, index: int, choice: VectorChoice) -> NDArray[np.float32]:
        """Join the chosen features: `[T, n]`."""
        parts = [self._numbers(index, feature.key, feature.size) for feature in choice.features]
        if not parts:
            return np.zeros((self.episode_lengths[index], 0), np.float32)
        return np.concatenate(parts, axis=1)

    def _numbers(self, index: int, key: str, size: int) -> NDArray[np.float32]:
        length = self.episode_lengths[index]
        values = np.asarray(self._raw.values(index, key), np.float32)
        if values.size != length * size:
            raise DataError(
                f"{self.path}: episode {index} has {len(values)} rows of {key!r}, expected "
                f"{length} of {size} numbers; record it or copy the dataset again"
            )
        values = values.reshape(length, size)
        broken = np.flatnonzero(~np.isfinite(values).all(1))
        if len(broken):
            raise DataError(
                f"{self.path}: episode {index} has NaN or infinity in {key!r} at tick "
                f"{broken[0]}, expected numbers; cut the episode or record it again"
            )
        return values

    def _pictures(self, index: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode exactly as many frames as there are ticks, all of the declared size."""
        length, count = self.episode_lengths[index], 0
        for picture in self._raw.pictures(index, key):
            if picture.shape != (self.height, self.width, 3):
                raise DataError(
                    f"{self.path}: frame {count} of {key!r} in episode {index} is "
                    f"{list(picture.shape)}, expected {[self.height, self.width, 3]}; record it "
                    "or copy the dataset again"
                )
            yield picture
            count += 1
            if count == length:
                return
        raise DataError(
            f"{self.path}: {key!r} of episode {index} ends after {count} of {length} frames; it "
            "is truncated: record it or copy the dataset again"
        )

    def _times(self, index: int) -> NDArray[np.float64]:
        stamps = None if self._even else self._raw.stamps_s(index)
        if stamps is None:
            return np.arange(self.episode_lengths[index]) / self.fps
        return np.asarray(stamps, np.float64) - float(stamps[0])

    def _rate_of_stamps(self) -> float:
        """Measure the rate where none is declared."""
        stamps = [self._raw.stamps_s(index) for index in range(len(self))]
        return measured_rate([s for s in stamps if s is not None], self.path)
