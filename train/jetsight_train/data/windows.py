"""Recorded episodes as training windows: K + H frames at block spacing and the actions between.

Shapes: N windows, T = K + H frames per window, B action block, A = B * action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.datasets.lerobot_meta import ACTION_KEY, unnamed
from jetsight.errors import DataError
from jetsight_train.progress import progress

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """Whole episodes, decoded and concatenated; `starts[i]:starts[i+1]` is episode i."""

    frames_u8: npt.NDArray[np.uint8]  # [F, h, w, 3]
    actions: FloatArray  # [F, action size]
    states: FloatArray  # [F, state size]
    starts: npt.NDArray[np.int64]  # [episodes + 1]
    fps: float
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    digest: str
    name: str

    @property
    def spec(self) -> RecordingSpec:
        """Frame size, rate and actions, to compare with what a model takes."""
        height, width = self.frames_u8.shape[1:3]
        size = self.actions.shape[1]
        named = len(self.action_names) == size
        names = self.action_names if named else unnamed(ACTION_KEY, size)
        return RecordingSpec(height, width, self.fps, names)


def check_metadata(path: Path, wanted: RecordingSpec) -> LeRobotDataset:
    """Open a dataset and refuse it, before anything is decoded, unless it fits.

    Raises:
        DataError: unreadable, or of another camera, rate or robot.
    """
    dataset = LeRobotDataset.open(path)
    check_dataset_fits(path, dataset.spec, wanted)
    return dataset


def load_recording(path: Path, most: int | None = None) -> Recording:
    """Decode a LeRobot dataset into memory, episode by episode.

    Args:
        path: folder of the dataset.
        most: read no more than this many episodes, the first ones.

    Raises:
        DataError: the dataset is unreadable, or holds no episode.
    """
    dataset = LeRobotDataset.open(path)
    chosen = range(len(dataset))[:most]
    if not chosen:
        raise DataError(f"{path}: the dataset holds no episode; expected at least one")
    lengths = [dataset.episode_lengths[i] for i in chosen]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    frames = np.empty((starts[-1], dataset.height, dataset.width, 3), dtype=np.uint8)
    actions: list[FloatArray] = []
    states: list[FloatArray] = []
    for row, index in enumerate(progress(chosen, f"decode {path.name}", unit="episode")):
        episode = dataset.episode(index)
        frames[starts[row] : starts[row + 1]] = episode.frames
        actions.append(episode.actions)
        states.append(episode.states)
    return Recording(
        frames,
        np.concatenate(actions),
        np.concatenate(states),
        starts,
        float(dataset.fps),
        tuple(dataset.action_names),
        tuple(dataset.state_names),
        dataset.digest(),
        path.name,
    )


def split(recording: Recording) -> tuple[Recording, Recording]:
    """Every other episode in one half, the rest in the other.

    Raises:
        DataError: there is only one episode.
    """
    episodes = len(recording.starts) - 1
    if episodes < 2:
        raise DataError(
            f"{recording.name}: one episode cannot be split; expected at least 2, record more"
        )
    return _only(recording, range(0, episodes, 2)), _only(recording, range(1, episodes, 2))


def _only(recording: Recording, episodes: Sequence[int]) -> Recording:
    spans = [np.arange(*recording.starts[i : i + 2]) for i in episodes]
    rows = np.concatenate(spans)
    return replace(
        recording,
        frames_u8=recording.frames_u8[rows],
        actions=recording.actions[rows],
        states=recording.states[rows],
        starts=np.concatenate([[0], np.cumsum([len(span) for span in spans])]),
    )


@dataclass(frozen=True)
class Windows:
    """A batch: `frames_u8 [N, T, h, w, 3]` and the `blocks [N, T-1, A]` executed between them."""

    frames_u8: Tensor
    blocks: Tensor


def check_lengths(lengths: Sequence[int], window: int, block: int, where: object) -> None:
    """Refuse a recording whose episodes are all shorter than one window.

    Args:
        lengths: frames of each episode.
        window: frames of a window.
        block: camera frames from one of them to the next.
        where: the recording, first words of the message.

    Raises:
        DataError: no window fits, or there is no episode.
    """
    longest, needed = max(lengths, default=0), (window - 1) * block + 1
    if not lengths:
        raise DataError(f"{where}: the dataset holds no episode; expected at least one")
    if longest < needed:
        raise DataError(
            f"{where}: no episode is long enough: the longest has {longest} frames, and a window "
            f"of {window} frames every {block} needs {needed}; record longer episodes"
        )


class WindowSampler:
    """Draws windows that never cross an episode border.

    A batch is a pure function of the seed and the step, which is what makes resuming exact.
    """

    def __init__(self, recording: Recording, length: int, block: int, seed: int = 0) -> None:
        self.recording, self.length, self.block, self.seed = recording, length, block, seed
        span = (length - 1) * block
        borders = zip(recording.starts[:-1], recording.starts[1:], strict=True)
        self.firsts = np.concatenate([np.arange(a, b - span) for a, b in borders])
        if not len(self.firsts):
            check_lengths(np.diff(recording.starts).tolist(), length, block, recording.name)

    def batch(self, step: int, size: int) -> Windows:
        """The random batch of a training step."""
        return self.at(self.draw(step, size))

    def draw(self, step: int, size: int) -> npt.NDArray[np.int64]:
        """Rows at which the windows of a training step begin: `[size]`."""
        rng = np.random.default_rng((self.seed, step))
        return rng.choice(self.firsts, size=size, replace=size > len(self.firsts))

    def at(self, firsts: npt.NDArray[Any] | Sequence[int]) -> Windows:
        """The windows that begin at the given rows of the recording."""
        rows = self.rows(firsts)
        return Windows(torch.from_numpy(self.recording.frames_u8[rows]), self.blocks(rows))

    def rows(self, firsts: npt.NDArray[Any] | Sequence[int]) -> npt.NDArray[np.int64]:
        """Rows of the recording that each window reads: `[N, T]`."""
        return np.asarray(firsts)[:, None] + self.block * np.arange(self.length)

    def blocks(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Action blocks executed between the frames of each window: `[N, T-1, A]`."""
        steps = rows[:, :-1, None] + np.arange(self.block)
        return torch.from_numpy(
            self.recording.actions[steps].reshape(len(rows), self.length - 1, -1)
        )

    def every(self, stride: int) -> npt.NDArray[np.int64]:
        """Every `stride`-th window start, for evaluation."""
        return self.firsts[::stride]
