"""Recorded episodes as a frozen model sees them: latents, actions, and columns of numbers.

Frames are dropped as soon as they are encoded, so a long recording fits into memory.

Shapes: F ticks, D latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.datasets import lerobot_meta
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import DataError
from jetsight_train.data.columns import FloatArray, check_known
from jetsight_train.data.windows import Recording, check_metadata
from jetsight_train.model.world_model import WorldModel
from jetsight_train.progress import progress


@dataclass(frozen=True)
class Tracks:
    """Whole episodes: a recording whose frames became latents.

    Attributes:
        recording: everything but the frames, which are empty.
        latents: `[F, D]`, encoded.
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
        """The chosen episodes, in that order."""
        starts = self.recording.starts
        spans = [np.arange(starts[i], starts[i + 1]) for i in episodes]
        rows = np.concatenate(spans)
        recording = replace(
            self.recording,
            actions=self.recording.actions[rows],
            states=self.recording.states[rows],
            starts=np.concatenate([[0], np.cumsum([len(span) for span in spans])]),
        )
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Tracks(recording, self.latents[torch.from_numpy(rows)], columns)


def tracks_of(
    model: WorldModel,
    recording: Recording,
    recorded: Mapping[str, FloatArray] | None = None,
    latents: Tensor | None = None,
) -> Tracks:
    """A recording that is in memory, encoded.

    Args:
        model: the frozen model.
        recording: whole episodes.
        recorded: columns of numbers beside its states, `[F]` each.
        latents: `[F, D]` of its frames, where they are known already.

    Raises:
        DataError: the recording is not of this model's robot and camera, or has gaps.
    """
    check_dataset_fits(recording.name, recording.spec, model.recording_spec)
    columns = dict(zip(recording.state_names, recording.states.T, strict=True))
    columns |= recorded or {}
    _check_finite(recording.name, {**columns, "action": recording.actions})
    if latents is None:
        latents = encode_recording(model, recording)
    return Tracks(replace(recording, frames_u8=recording.frames_u8[:0]), latents, columns)


def read_tracks(model: WorldModel, path: Path, columns: Sequence[str]) -> Tracks:
    """Decode and encode a LeRobot dataset, one episode in memory at a time.

    Args:
        model: the frozen model.
        path: folder of the dataset.
        columns: names that will be read, of states or of other recorded columns.

    Raises:
        DataError: unreadable, of another robot or camera, or without one of `columns`.
    """
    dataset = check_metadata(path, model.recording_spec)
    extra = read_recorded(path, columns)  # before the long work, so that a typo costs nothing
    states, actions, latents = [], [], []
    for index in progress(range(len(dataset)), f"encode {path.name}", unit="episode"):
        episode = dataset.episode(index)
        states.append(episode.states)
        actions.append(episode.actions)
        latents.append(_encode(model, episode.frames))
    starts = np.concatenate([[0], np.cumsum(dataset.episode_lengths)]).astype(np.int64)
    frames = np.empty((0, dataset.height, dataset.width, 3), dtype=np.uint8)
    recording = Recording(
        frames,
        np.concatenate(actions),
        np.concatenate(states),
        starts,
        dataset.fps,
        tuple(dataset.action_names),
        tuple(dataset.state_names),
        dataset.digest(),
        path.name,
    )
    named = dict(zip(recording.state_names, recording.states.T, strict=True))
    return Tracks(recording, torch.cat(latents), named | extra)


@torch.no_grad()
def _encode(model: WorldModel, frames_u8: npt.NDArray[np.uint8]) -> Tensor:
    return torch.cat([model.encode(part) for part in torch.from_numpy(frames_u8).split(256)])


def read_recorded(
    path: Path, names: Sequence[str], episodes: Sequence[int] | None = None
) -> dict[str, FloatArray]:
    """Those of `names` that are recorded columns of their own and not states: `[F]` each.

    Args:
        path: folder of the dataset.
        names: columns to look for.
        episodes: read these; all if None.

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
    wanted = [name for name in names if name not in dataset.state_names]
    if not wanted:
        return {}
    video = info.features[dataset.camera_key]["dtype"] == "video"
    places = lerobot_meta.places(path, info, dataset.camera_key, video=video)
    chosen = range(len(places)) if episodes is None else episodes
    parts = [_episode_columns(places[index], index, wanted) for index in chosen]
    found = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
    _check_finite(str(path), found)
    return found


def _episode_columns(
    place: lerobot_meta.EpisodeLocation, index: int, names: Sequence[str]
) -> dict[str, FloatArray]:
    keys = ["episode_index", "frame_index", *names]
    table = lerobot_meta.read_parquet(place.data_file, list(dict.fromkeys(keys)), index)
    mine = np.flatnonzero(table["episode_index"].to_numpy() == index)
    order = mine[np.argsort(table["frame_index"].to_numpy()[mine])]
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
def encode_recording(model: WorldModel, recording: Recording, batch: int = 256) -> Tensor:
    """Latents of every frame of a recording, in order: `[F, D]`."""
    model.eval()
    parts = [
        model.encode(torch.from_numpy(recording.frames_u8[i : i + batch]))
        for i in range(0, len(recording.frames_u8), batch)
    ]
    return torch.cat(parts)
