"""Recorded frames by latent: how a forecast, which is only numbers, is shown as a picture.

Shapes: L frames in the library, D latent size, h, w frame size, s state size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.datasets.lerobot import Episode
from jetsight.engine import Engine, NDArray
from jetsight.errors import DataError


@dataclass(frozen=True)
class DatasetFrames:
    """Frames of recorded episodes with their latents.

    Args:
        frames_u8: `[L, h, w, 3]`.
        z: `[L, D]`.
        states: `[L, s]` what the robot recorded beside each frame.
        episode: `[L]` episode of each frame.
        scale: `[D]` spread of each latent dimension; distances are in its units.
    """

    frames_u8: NDArray
    z: NDArray
    states: NDArray
    episode: NDArray
    scale: NDArray

    def nearest(self, z: NDArray) -> NDArray:
        """Rows of the frames whose latents are nearest to each of `z [..., D]`."""
        found = (self.z / self.scale).astype(np.float32)
        wanted = (z / self.scale).astype(np.float32)
        # |a - b|^2 without |b|^2, which is the same for every candidate.
        distance = np.square(found).sum(axis=-1) - 2.0 * wanted @ found.T
        return np.asarray(distance.argmin(axis=-1))


def build_library(
    load: Callable[[int], Episode],
    episodes: Sequence[int],
    streamed: Iterable[int],
    encode: Engine,
    scale: NDArray,
) -> DatasetFrames:
    """Encode every frame of `episodes` with the engine that encodes the stream.

    Args:
        load: reads one episode.
        episodes: to take frames from.
        streamed: episodes of the stream; a forecast shown by a frame of its own episode would look
            right whatever the model does.
        encode: loaded graph.
        scale: see `DatasetFrames`.

    Raises:
        DataError: a streamed episode is among them, or there are none.
    """
    if clash := sorted(set(episodes) & set(streamed)):
        raise DataError(
            f"episode {clash[0]} is streamed, so its frames must not stand for forecasts of it; "
            "use other episodes for the library"
        )
    if not episodes:
        raise DataError("no episode is left for the library; give a larger data set")
    loaded = [load(i) for i in episodes]
    frames = np.concatenate([episode.frames for episode in loaded])
    z = np.empty((len(frames), scale.size), np.float32)
    for row, frame in enumerate(frames):
        encode.inputs["frame_hwc_u8"].write(frame)
        encode.run()
        encode.outputs["z"].read(z[row])
    lengths = [len(episode.actions) for episode in loaded]
    states = np.concatenate([episode.states for episode in loaded])
    return DatasetFrames(frames, z, states, np.repeat(episodes, lengths), scale)
