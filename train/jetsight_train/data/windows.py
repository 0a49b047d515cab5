"""Recordings, and training windows: K + H frames at block spacing with the actions between.

Shapes: N windows, T = K + H frames per window, B action block, A = B * action size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.datasets.dataset import Episode, FeatureMap, RecordedDataset
from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.datasets.open import open_dataset, open_for, say_notes
from jetsight.errors import DataError
from jetsight.progress import progress
from jetsight_train.data.columns import FloatArray

FramesU8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """Whole episodes, decoded and concatenated; `starts[i]:starts[i+1]` is episode i."""

    frames_u8: FramesU8  # [F, h, w, 3], or [F, C, h, w, 3] of several cameras
    actions: FloatArray  # [F, action size]
    states: FloatArray  # [F, state size]
    starts: npt.NDArray[np.int64]  # [episodes + 1]
    fps: float
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    digest: str
    name: str
    cameras: tuple[str, ...] = ()  # that the frames are of, in order

    @property
    def spec(self) -> RecordingSpec:
        """Cameras, rate, actions and states, for comparison with a model."""
        height, width = self.frames_u8.shape[-3:-1]
        size = self.actions.shape[1]
        named = len(self.action_names) == size
        return RecordingSpec(
            height,
            width,
            self.fps,
            self.action_names if named else unnamed(ACTION_KEY, size),
            cameras=self.cameras,
            state_names=self.state_names,
        )

    def states_of(self, names: Sequence[str]) -> FloatArray | None:
        """Select the states a model reads, in its order: `[F, s]`; None for a model without."""
        if not names:
            return None
        return self.states[:, [self.state_names.index(name) for name in names]]

    @property
    def columns(self) -> dict[str, FloatArray]:
        """State columns by name, `[F]` each."""
        return dict(zip(self.state_names, self.states.T, strict=True))

    def only(self, episodes: Sequence[int]) -> tuple[Recording, npt.NDArray[np.int64]]:
        """Select episodes, in the given order; returns their rows as well."""
        spans = [np.arange(*self.starts[i : i + 2]) for i in episodes]
        rows = np.concatenate(spans)
        selected = replace(
            self,
            frames_u8=self.frames_u8[rows] if len(self.frames_u8) else self.frames_u8,
            actions=self.actions[rows],
            states=self.states[rows],
            starts=np.concatenate([[0], np.cumsum([len(span) for span in spans])]),
        )
        return selected, rows


def check_metadata(
    path: Path, spec: RecordingSpec, features: FeatureMap | None = None
) -> RecordedDataset:
    """Open a dataset, and refuse one that does not fit `spec` before anything is decoded.

    Facts that a user must know, such as missing episodes, are logged as warnings.

    Args:
        path: folder or file of the dataset.
        spec: of the model.
        features: which features are actions, states and frames, where that is not clear.

    Raises:
        DataError: unreadable, contradicting itself, or of other cameras, another rate or robot.
        UsageError: a feature of `features` does not exist, or several could be meant.
    """
    dataset = open_for(path, spec, features)
    check_dataset_fits(path, dataset.spec, spec)
    dataset.verify()
    say_notes(dataset)
    return dataset


def load_recording(
    path: Path,
    most: int | None = None,
    spec: RecordingSpec | None = None,
    features: FeatureMap | None = None,
) -> Recording:
    """Decode a recorded dataset into memory, episode by episode.

    Args:
        path: folder of the dataset.
        most: number of leading episodes to read; None for all.
        spec: of the model that takes it, which names the cameras; None for the only camera.
        features: see `check_metadata`.

    Raises:
        DataError: the dataset is unreadable, or holds no episode.
    """
    opened = open_dataset(path, features) if spec is None else open_for(path, spec, features)
    return read_recording(opened, most)


def read_recording(dataset: RecordedDataset, most: int | None = None) -> Recording:
    """Decode an open dataset into memory, see `load_recording`.

    Raises:
        DataError: a file is damaged, or the dataset holds no episode.
    """
    path = dataset.path
    chosen = range(len(dataset))[:most]
    if not chosen:
        raise DataError(f"{path}: the dataset holds no episode; expected at least one")
    # One array made in advance: joining the episodes afterwards would need their memory twice.
    total = sum(dataset.episode_lengths[i] for i in chosen)
    frames = np.empty((total, *dataset.frame_shape), dtype=np.uint8)

    def keep(row: int, episode: Episode) -> None:
        frames[row : row + len(episode.frames)] = episode.frames

    return replace(read_episodes(dataset, path.name, chosen, keep, "decode"), frames_u8=frames)


def read_episodes(
    dataset: RecordedDataset,
    name: str,
    episodes: Sequence[int],
    use: Callable[[int, Episode], None],
    verb: str,
) -> Recording:
    """Decode episodes one by one into a recording without frames.

    Args:
        dataset: the opened dataset.
        name: name of the recording.
        episodes: indices of the episodes.
        use: called for each episode with its first row and itself.
        verb: first word of the progress bar.
    """
    lengths = [dataset.episode_lengths[i] for i in episodes]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    actions, states = [], []
    for row, index in enumerate(progress(episodes, f"{verb} {name}", "episode")):
        episode = dataset.episode(index)
        use(int(starts[row]), episode)
        actions.append(episode.actions)
        states.append(episode.states)
    return Recording(
        frames_u8=np.empty((0, *dataset.frame_shape), dtype=np.uint8),
        actions=np.concatenate(actions),
        states=np.concatenate(states),
        starts=starts,
        fps=float(dataset.fps),
        action_names=tuple(dataset.action_names),
        state_names=tuple(dataset.state_names),
        digest=dataset.digest(),
        name=name,
        cameras=dataset.camera_keys,
    )


def split(recording: Recording) -> tuple[Recording, Recording]:
    """Split a recording into its even and its odd episodes.

    Raises:
        DataError: there is only one episode.
    """
    episodes = len(recording.starts) - 1
    if episodes < 2:
        raise DataError(
            f"{recording.name}: one episode cannot be split; expected at least 2, record more"
        )
    even, odd = (recording.only(range(first, episodes, 2))[0] for first in (0, 1))
    return even, odd


def check_lengths(lengths: Sequence[int], window: int, block: int, where: object) -> None:
    """Refuse a recording whose episodes are all shorter than one window.

    Args:
        lengths: frames of each episode.
        window: frames of a window.
        block: spacing of these frames, in camera frames.
        where: name of the recording for the message.

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
    """Random windows that never cross an episode border.

    A batch is a pure function of the seed and the step, so that resuming is exact.
    """

    def __init__(self, recording: Recording, length: int, block: int, seed: int = 0) -> None:
        self.recording, self.length, self.block, self.seed = recording, length, block, seed
        span = (length - 1) * block
        borders = zip(recording.starts[:-1], recording.starts[1:], strict=True)
        # Rows from which a whole window fits into the episode.
        self.firsts = np.concatenate([np.arange(a, b - span) for a, b in borders])
        if not len(self.firsts):
            check_lengths(np.diff(recording.starts).tolist(), length, block, recording.name)

    def draw(self, step: int, size: int) -> npt.NDArray[np.int64]:
        """Draw the first rows of the windows of a training step: `[size]`."""
        # The pair seeds each step on its own, so no generator has to be saved for a resumed run.
        rng = np.random.default_rng((self.seed, step))
        # A recording shorter than a batch repeats windows, so that the batch keeps its size.
        return rng.choice(self.firsts, size=size, replace=size > len(self.firsts))

    def rows(self, firsts: npt.NDArray[Any] | Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows of the recording that each window reads: `[N, T]`."""
        return np.asarray(firsts)[:, None] + self.block * np.arange(self.length)

    def blocks(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Cut the action blocks executed between the frames of each window: `[N, T-1, A]`."""
        steps = rows[:, :-1, None] + np.arange(self.block)
        actions = self.recording.actions[steps]
        return torch.from_numpy(actions.reshape(len(rows), self.length - 1, -1))
