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

from jetsight.datasets import lerobot_meta
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import DataError, DivergenceError
from jetsight_train.data.columns import FloatArray, check_known
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


def read_tracks(model: WorldModel, path: Path, columns: Sequence[str]) -> Tracks:
    """Decode and encode a LeRobot dataset, one episode in memory at a time.

    Args:
        model: the frozen model.
        path: folder of the dataset.
        columns: names of the states or other recorded columns to read.

    Raises:
        DataError: unreadable, of another robot or camera, or without one of `columns`.
    """
    dataset = check_metadata(path, model.recording_spec)
    extra = read_recorded(path, columns)  # before the long work, so that a typo costs no time
    latents: list[Tensor] = []
    model.eval()  # in training mode BatchNorm would take its statistics from these frames

    @torch.no_grad()
    def encode(_: int, frames_u8: FramesU8) -> None:
        parts = torch.from_numpy(frames_u8).split(BATCH)
        latents.append(finite(torch.cat([model.encode(part) for part in parts]), "encoded", path))

    recording = read_episodes(dataset, path.name, range(len(dataset)), encode, "encode")
    return Tracks(recording, torch.cat(latents), recording.columns | extra)


def read_recorded(
    path: Path, names: Sequence[str], episodes: Sequence[int] | None = None
) -> dict[str, FloatArray]:
    """Read those of `names` that are columns of their own and not states: `[F]` each.

    Args:
        path: folder of the dataset.
        names: names of states or columns.
        episodes: episodes to read; None for all.

    Raises:
        DataError: a name is neither a state nor a column of one number; the nearest is named.
    """
    info = lerobot_meta.read_info(path)
    dataset = LeRobotDataset.open(path)
    single = [
        key
        for key, feature in info.features.items()
        if isinstance(feature, dict) and feature.get("shape") == [1]
    ]
    for name in names:
        check_known(name, [*dataset.state_names, *single], str(path))
    names = [name for name in names if name not in dataset.state_names]
    if not names:
        return {}
    video = info.features[dataset.camera_key]["dtype"] == "video"
    places = lerobot_meta.places(path, info, dataset.camera_key, video=video)
    chosen = range(len(places)) if episodes is None else episodes
    parts = [_episode_columns(places[index], index, names) for index in chosen]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    _check_finite(str(path), columns)
    return columns


def _episode_columns(
    place: lerobot_meta.EpisodeLocation, index: int, names: Sequence[str]
) -> dict[str, FloatArray]:
    keys = ["episode_index", "frame_index", *names]
    # Each column once: a recipe may name one of the two indices as well.
    table = lerobot_meta.read_parquet(place.data_file, list(dict.fromkeys(keys)), index)
    # A data file may hold several episodes, with their rows in any order.
    rows = np.flatnonzero(table["episode_index"].to_numpy() == index)
    order = rows[np.argsort(table["frame_index"].to_numpy()[rows])]
    if len(order) != place.length:
        raise DataError(
            f"{place.data_file} has {len(order)} rows of episode {index}, expected "
            f"{place.length}; copy the dataset again"
        )
    return {name: np.asarray(table[name].to_numpy()[order], np.float32) for name in names}


def _check_finite(where: str, columns: Mapping[str, FloatArray]) -> None:
    for name, values in columns.items():
        broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
        if len(broken):
            raise DataError(
                f"{where}: column {name!r} has NaN or infinity at tick {broken[0]}, expected a "
                "number everywhere; record it again"
            )


@torch.no_grad()
def encode_recording(model: WorldModel, recording: Recording, batch: int = BATCH) -> Tensor:
    """Encode every frame of a recording, in order: `[F, D]`; sets the model to evaluation mode."""
    model.eval()
    parts = torch.from_numpy(recording.frames_u8).split(batch)
    return finite(torch.cat([model.encode(part) for part in parts]), "encoded", recording.name)


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
