"""The interface of recorded robot data: whole episodes of frames, actions and states.

Every format is read through `RecordedDataset`; `jetsight.datasets.open.open_dataset` finds the
reader. Row t of an episode holds observation t and the action taken *at* t, which leads to
observation t+1.

Shapes: T ticks of an episode, C cameras in use, h, w frame size, s state size, a action size of one
tick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.fit import RecordingSpec
from jetsight.datasets.labels import RecordingLabels
from jetsight.datasets.names import ranges
from jetsight.errors import DataError, UsageError

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
        action: feature with the actions, or several to join, separated by commas; None to find it
            by name and shape.
        state: feature with the state, likewise.
        cameras: features with the frames, in order; empty for the only colour camera. The end of a
            name will do: `wrist` for `observation.images.wrist`.
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
                    "action=FEATURE, state=FEATURE (several: FEATURE,FEATURE), "
                    "camera=FEATURE[,FEATURE] or rate=HZ once"
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
        missing: why there are no actions, states or frames, by role (`action`, `state`, `camera`),
            with the option that chooses among several.
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
    missing: Mapping[str, str] = MappingProxyType({})

    @property
    def spec(self) -> RecordingSpec:
        """Cameras, rate, actions and states, to compare with those of a model."""
        return RecordingSpec(
            self.height,
            self.width,
            self.fps,
            self.action_names,
            cameras=self.camera_keys,
            state_names=self.state_names,
            no_actions=self.missing.get("action", ""),
        )

    @property
    def episode_numbers(self) -> list[int]:
        """The dataset's own number of each episode; gaps where some are missing."""
        return list(range(len(self)))

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

    def labels(self) -> RecordingLabels:
        """Read what the dataset declares beside its names; a format may have no such facts.

        Raises:
            DataError: the facts cannot be read.
        """
        return RecordingLabels()

    def verify(self, episodes: Sequence[int] | None = None) -> None:
        """Check files, rows and times of episodes against each other, without decoding a frame.

        Readers check what they read, but an error after minutes of work is too late. Notes on what
        is odd and harmless are added to `notes`.

        Args:
            episodes: indices of the episodes; None for all.

        Raises:
            UsageError: there is no such episode.
            DataError: see `rows` and `frames`.
        """
        for index in range(len(self)) if episodes is None else episodes:
            self.rows(index)

    def check_cameras(self) -> None:
        """Refuse a dataset without a chosen camera.

        Raises:
            UsageError: there are several, and none was chosen.
            DataError: there is none.
        """
        reason = self.missing.get("camera")
        if reason is not None:
            several = any(camera.kind == "colour" for camera in self.cameras)
            raise (UsageError if several else DataError)(f"{self.path} {reason}")

    def check_index(self, index: int) -> None:
        """Refuse the number of an episode that does not exist.

        Raises:
            UsageError: it does not.
        """
        if 0 <= index < len(self):
            return
        numbers = self.episode_numbers
        own = "" if numbers == list(range(len(self))) else f", which it numbers {ranges(numbers)}"
        raise UsageError(
            f"{self.path} has no episode {index}; choose one of 0..{len(self) - 1}{own}"
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


@dataclass(frozen=True)
class DatasetFormat:
    """A format that `jetsight.datasets.open` reads.

    Args:
        layout: what a dataset of this format looks like, for messages.
        detect: return whether a folder or file has this layout; must not raise.
        open: open it, also where none of several cameras is chosen.
        aligns: `open` takes several cameras at once; others are opened once per camera.
    """

    layout: str
    detect: Callable[[Path], bool]
    open: Callable[[Path, FeatureMap], RecordedDataset]
    aligns: bool = False
