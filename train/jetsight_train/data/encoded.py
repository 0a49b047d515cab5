"""Recorded episodes encoded by a frozen model: latents, actions, and columns of numbers.

Frames are dropped as soon as they are encoded, so that a long recording fits into memory.

Shapes: F ticks, D latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jetsight.datasets.dataset import Episode, FeatureMap
from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
from jetsight.datasets.open import open_dataset, open_for
from jetsight.errors import DataError, DivergenceError
from jetsight_train.data.columns import FloatArray
from jetsight_train.data.windows import FramesU8, Recording, check_metadata, read_episodes
from jetsight_train.model.world_model import WorldModel

BATCH = 256  # frames encoded at once


@dataclass(frozen=True)
class Tracks:
    """Whole episodes with latents in place of frames.

    Attributes:
        recording: the recording, with no frames.
        latents: `[F, D]` latents of its frames.
        columns: recorded numbers by name, `[F]` each.
    """

    recording: Recording
    latents: Tensor
    columns: Mapping[str, FloatArray]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.recording.starts) - 1

    def only(self, episodes: Sequence[int]) -> Tracks:
        """Select episodes, in the given order."""
        recording, rows = self.recording.only(episodes)
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Tracks(recording, self.latents[torch.from_numpy(rows)], columns)


def tracks_of(
    model: WorldModel,
    recording: Recording,
    recorded: Mapping[str, FloatArray] | None = None,
    latents: Tensor | None = None,
) -> Tracks:
    """Encode a recording that is in memory.

    Args:
        model: the frozen model.
        recording: whole episodes.
        recorded: columns of numbers beside its states, `[F]` each.
        latents: `[F, D]` of its frames; None encodes them here.

    Raises:
        DataError: the recording is not of this model's robot and camera, or has gaps.
    """
    check_dataset_fits(recording.name, recording.spec, model.recording_spec)
    columns = {**recording.columns, **(recorded or {})}
    _check_finite(recording.name, {**columns, "action": recording.actions})
    if latents is None:
        latents = encode_recording(model, recording)
    # A slice would keep the whole array alive.
    no_frames = np.empty((0, *recording.frames_u8.shape[1:]), np.uint8)
    return Tracks(replace(recording, frames_u8=no_frames), latents, columns)


def read_tracks(
    model: WorldModel, path: Path, columns: Sequence[str], features: FeatureMap | None = None
) -> Tracks:
    """Decode and encode a recorded dataset, one episode in memory at a time.

    Args:
        model: the frozen model.
        path: folder of the dataset.
        columns: names of the states or other recorded columns to read.
        features: see `check_metadata`.

    Raises:
        DataError: unreadable, of another robot or camera, or without one of `columns`.
    """
    dataset = check_metadata(path, model.recording_spec, features)
    # Before the long work, so that a typo costs no time.
    extra = read_recorded(path, columns, None, model.recording_spec, features)
    latents: list[Tensor] = []
    wanted, columns_of = model.recording_spec.state_names, list(dataset.state_names)
    places = [columns_of.index(name) for name in wanted]

    def encode(_: int, episode: Episode) -> None:
        states = episode.states[:, places] if places else None
        latents.append(finite(encode_frames(model, episode.frames, states), "encoded", path))

    recording = read_episodes(dataset, path.name, range(len(dataset)), encode, "encode")
    return Tracks(recording, torch.cat(latents), recording.columns | extra)


def read_recorded(
    path: Path,
    names: Sequence[str],
    episodes: Sequence[int] | None = None,
    spec: RecordingSpec | None = None,
    features: FeatureMap | None = None,
) -> dict[str, FloatArray]:
    """Read those of `names` that are columns of their own and not states: `[F]` each.

    Args:
        path: folder of the dataset.
        names: names of states or columns.
        episodes: episodes to read; None for all.
        spec: of the model, which names the cameras; None for a dataset of one camera.
        features: see `check_metadata`.

    Raises:
        DataError: a name is neither a state nor a column of one number; the nearest is named.
    """
    if not names:
        return {}
    dataset = open_dataset(path, features) if spec is None else open_for(path, spec, features)
    # A state is checked and read with the recording.
    names = list(dict.fromkeys(name for name in names if name not in dataset.state_names))
    if not names:
        return {}
    chosen = range(len(dataset)) if episodes is None else episodes
    parts = [dataset.columns(index, names) for index in chosen]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    _check_finite(str(path), columns)
    return columns


def _check_finite(where: str, columns: Mapping[str, FloatArray]) -> None:
    for name, values in columns.items():
        broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
        if len(broken):
            raise DataError(
                f"{where}: column {name!r} has NaN or infinity at tick {broken[0]}, expected a "
                "number everywhere; record it again"
            )


def encode_recording(model: WorldModel, recording: Recording, batch: int = BATCH) -> Tensor:
    """Encode every frame of a recording, in order: `[F, D]`; sets the model to evaluation mode."""
    states = recording.states_of(model.recording_spec.state_names)
    z = encode_frames(model, recording.frames_u8, states, batch)
    return finite(z, "encoded", recording.name)


@torch.no_grad()
def encode_frames(
    model: WorldModel, frames_u8: FramesU8, states: FloatArray | None, batch: int = BATCH
) -> Tensor:
    """Encode frames `[F, *frame]` and the states `[F, s]` the model reads: `[F, D]`.

    Sets the model to evaluation mode: in training mode BatchNorm would take its statistics from
    these frames.
    """
    model.eval()
    parts = torch.from_numpy(frames_u8).split(batch)
    if states is None:
        return torch.cat([model.encode(part) for part in parts])
    beside = torch.from_numpy(np.ascontiguousarray(states, np.float32)).split(batch)
    return torch.cat([model.encode(*pair) for pair in zip(parts, beside, strict=True)])


def finite(latents: Tensor, how: str, where: object) -> Tensor:
    """Return the latents `[..., D]` of a recording if they are finite.

    Args:
        latents: to check.
        how: "encoded" or "imagined".
        where: the recording, first words of the message.

    Raises:
        DivergenceError: one of them is not, so that nothing can be learned or measured.
    """
    broken = (~torch.isfinite(latents)).any(-1)
    if broken.any():
        raise DivergenceError(
            f"{where}: {int(broken.sum())} of {broken.numel()} {how} latents are not finite; the "
            "model diverged, use an earlier state or train with a lower optimiser.learning_rate"
        )
    return latents
