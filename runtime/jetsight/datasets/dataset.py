"""The interface of recorded robot data: whole episodes of frames, actions and states.

Every format is read through `RecordedDataset`; `jetsight.datasets.open.open_dataset` finds the
reader. Row t of an episode holds observation t and the action taken *at* t, which leads to
observation t+1.

Shapes: T ticks of an episode, C cameras in use, h, w frame size, s state size, a action size of one
tick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.fit import RecordingSpec
from jetsight.errors import UsageError

_ROLES = ("action", "state", "camera", "rate")


@dataclass(frozen=True)
class Rows:
    """Actions, states and times of one episode; the arrays belong to the caller."""

    actions: NDArray[np.float32]  # [T,a]; a = 0 where the dataset records none
    states: NDArray[np.float32]  # [T,s]; s = 0 where the dataset records none
    timestamps_s: NDArray[np.float64]  # [T], from the start of the episode


@dataclass(frozen=True)
class Episode(Rows):
    """One whole episode; `frames` are RGB."""

    frames: NDArray[np.uint8]  # [T,h,w,3], or [T,C,h,w,3] with several cameras


@dataclass(frozen=True)
class CameraFeature:
    """One camera of a dataset.

    Args:
        key: name of the feature, e.g. `"observation.images.top"`.
        height: frame height in px.
        width: frame width in px.
        kind: colour, or depth, which is never used as a frame.
    """

    key: str
    height: int
    width: int
    kind: Literal["colour", "depth"] = "colour"


@dataclass(frozen=True)
class FeatureMap:
    """Features to read a dataset by, where its own names and shapes do not decide.

    Args:
        action: feature with the actions; None to find it by name and shape.
        state: feature with the state; None to find it.
        cameras: features with the frames, in order; empty for the only colour camera.
        rate_hz: frames per second, where the dataset declares none or a wrong one.
    """

    action: str | None = None
    state: str | None = None
    cameras: tuple[str, ...] = ()
    rate_hz: float | None = None

    @classmethod
    def parse(cls, pairs: Sequence[str], cameras: Sequence[str] = ()) -> FeatureMap:
        """Parse `--map` options such as `action=actions` or `camera=front,wrist`.

        Args:
            pairs: `ROLE=FEATURE`, each role at most once.
            cameras: of `--camera`; exclude a `camera=` among the pairs.

        Raises:
            UsageError: another form, an unknown or repeated role, or a rate that is no number.
        """
        found: dict[str, str] = {}
        for pair in pairs:
            role, mark, value = pair.partition("=")
            if not mark or role not in _ROLES or not value or role in found:
                raise UsageError(
                    f"--map {pair!r} is not usable; expected each of "
                    "action=FEATURE, state=FEATURE, camera=FEATURE[,FEATURE] or rate=HZ once"
                )
            found[role] = value
        if cameras and "camera" in found:
            raise UsageError("--camera and --map camera=... exclude each other; give one of them")
        keys = tuple(cameras) or tuple(filter(None, found.get("camera", "").split(",")))
        return cls(found.get("action"), found.get("state"), keys, _rate(found.get("rate")))


class RecordedDataset(ABC):
    """A dataset opened for reading; made by the `open` of its reader.

    Attributes:
        path: folder or file of the dataset.
        format: name of the format, e.g. `"lerobot-v3"`.
        robot: robot it was recorded with; empty if it does not say.
        fps: frames per second.
        cameras: all cameras found, those for depth included.
        camera_keys: features that frames are read from, in order.
        height: height of these frames in px.
        width: width of these frames in px.
        action_names: one name per action dimension; empty without actions.
        state_names: one name per state dimension; empty without states.
        episode_lengths: frames of each episode.
        notes: one line per fact that a user must know, e.g. episodes that are missing.
    """

    path: Path
    format: str
    robot: str
    fps: float
    cameras: tuple[CameraFeature, ...]
    camera_keys: tuple[str, ...]
    height: int
    width: int
    action_names: list[str]
    state_names: list[str]
    episode_lengths: list[int]
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> RecordingSpec:
        """Frame size, rate and actions, to compare with those of a model."""
        return RecordingSpec(self.height, self.width, self.fps, self.action_names)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: `(h, w, 3)`, or `(C, h, w, 3)` with several cameras."""
        count = len(self.camera_keys)
        return (*((count,) if count > 1 else ()), self.height, self.width, 3)

    def __len__(self) -> int:
        """Count the episodes."""
        return len(self.episode_lengths)

    def episode(self, index: int) -> Episode:
        """Read all of episode `index`, decoded into memory.

        Raises:
            UsageError: there is no such episode.
            DataError: rows or frames are missing, truncated, damaged or of another size.
            MissingDependency: a library that the format needs is not installed.
        """
        rows = self.rows(index)
        frames = np.empty((len(rows.actions), *self.frame_shape), dtype=np.uint8)
        for tick, frame_u8 in enumerate(self.frames(index)):
            frames[tick] = frame_u8
        return Episode(rows.actions, rows.states, rows.timestamps_s, frames)

    @abstractmethod
    def rows(self, index: int) -> Rows:
        """Read actions, states and timestamps of episode `index`, without decoding a frame.

        Raises:
            UsageError: there is no such episode.
            DataError: the rows are missing, of another number or shape, or not finite.
        """

    @abstractmethod
    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Iterate over the frames of episode `index`, of shape `frame_shape`.

        Exactly `episode_lengths[index]` frames are yielded, or an error is raised; each is a new
        array that belongs to the caller.

        Raises:
            UsageError: there is no such episode.
            DataError: frames are missing, truncated, damaged or of another size.
        """

    @abstractmethod
    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Read recorded columns of one number per tick of episode `index`: `[T]` each.

        Raises:
            UsageError: there is no such episode.
            DataError: there is no such column; the nearest name is given.
        """

    @abstractmethod
    def digest(self) -> str:
        """Compute the SHA-256 in hex over name, size and content of every recorded file.

        Raises:
            DataError: a file cannot be read.
        """

    def check_index(self, index: int) -> None:
        """Refuse the number of an episode that does not exist.

        Raises:
            UsageError: it does not.
        """
        if not 0 <= index < len(self):
            raise UsageError(
                f"{self.path} has no episode {index}; choose one of 0..{len(self) - 1}"
            )


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 1000:
        raise UsageError(f"--map rate={text} is no rate; expected 0.01 to 1000 frames per second")
    return rate
