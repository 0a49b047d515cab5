"""An index of recorded frames by latent: a latent has no picture, its nearest frame has one.

Shapes: L frames, D latent size, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.datasets.dataset import RecordedDataset
from jetsight.engine import Engine, NDArray
from jetsight.errors import DataError
from jetsight.plan_report.start import frames_at, states_of

_MOST_FRAMES = 2000  # to encode; neighbours of neighbours look alike


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The recorded frame nearest to a latent.

    Args:
        episode: of the dataset.
        tick: of that episode.
        distance: RMS over the latent, in units of each dimension's spread.
    """

    episode: int
    tick: int
    distance: float


@dataclass(frozen=True)
class FrameIndex:
    """Latents of recorded frames, and where the frames are.

    Args:
        z: `float32 [L, D]`.
        places: episode and tick of each.
        scale: `[D]` spread of each latent dimension.
    """

    z: NDArray
    places: Sequence[tuple[int, int]]
    scale: NDArray

    @property
    def episodes(self) -> list[int]:
        """Numbers of the episodes that the frames are from."""
        return sorted({episode for episode, _ in self.places})

    def nearest(self, z: NDArray) -> list[Neighbour]:
        """Find the nearest frame to each of the latents `z [H, D]`."""
        found = []
        # Step by step: all differences at once would need H times the memory of the library.
        for wanted in z:
            off = np.square((self.z - wanted) / self.scale).mean(axis=1)
            row = int(off.argmin())
            found.append(Neighbour(*self.places[row], float(np.sqrt(off[row]))))
        return found


def build_library(
    data: RecordedDataset,
    encode: Engine,
    scale: NDArray,
    *,
    among: Collection[int] | None = None,
    without: Collection[int] = (),
    most: int | None = _MOST_FRAMES,
    state_names: Sequence[str] = (),
    progress: Callable[[int], None] = lambda frames: None,
) -> FrameIndex:
    """Encode frames of a dataset, evenly thinned out to at most `most`.

    Args:
        data: frames of the model's size.
        encode: engine of graph `encode`.
        scale: `[D]` see `FrameIndex`.
        among: episodes to take frames from; None for all.
        without: episodes to leave out: a frame next to the start or the goal would look right
            whatever the model does.
        most: frames to encode; None for all.
        state_names: states that the model reads beside a frame, in its order.
        progress: called after each episode with the number of frames read.

    Raises:
        DataError: no episode is left, or one cannot be read.
    """
    episodes = library_episodes(data, without, among)
    total = sum(data.episode_lengths[i] for i in episodes)
    # Rounded up, so that at most `most` frames are encoded.
    stride = -(-total // (most or total))
    rows, places = [], []
    for episode in episodes:
        states = states_of(data, episode, state_names) if state_names else None
        for tick, frame in enumerate(data.frames(episode)):
            if tick % stride == 0:
                encode.inputs["frame_hwc_u8"].write(frame)
                if states is not None:
                    encode.inputs["state"].write(states[tick])
                encode.run()
                # The view is overwritten by the next run.
                rows.append(encode.outputs["z"].read().copy())
                places.append((episode, tick))
        progress(data.episode_lengths[episode])
    return FrameIndex(np.stack(rows), places, np.asarray(scale, np.float32))


def library_episodes(
    data: RecordedDataset, without: Collection[int] = (), among: Collection[int] | None = None
) -> list[int]:
    """Episodes `among` those named, or of all, that are not in `without`.

    Raises:
        DataError: there are none.
    """
    candidates = range(len(data)) if among is None else among
    episodes = [i for i in candidates if i not in without]
    if not episodes:
        raise DataError(
            f"{data.path} has no episode but those of the start and the goal, or of the stream; "
            "name a larger dataset as the library"
        )
    return episodes


def pictures(data: RecordedDataset, neighbours: Sequence[Neighbour]) -> list[NDArray]:
    """Read the frames of neighbours again; keeping all of them would fill memory."""
    wanted: dict[int, set[int]] = {}
    for each in neighbours:
        wanted.setdefault(each.episode, set()).add(each.tick)
    found = {}
    for episode, ticks in wanted.items():
        # Each episode is decoded once and in order, because video cannot be read backwards.
        ascending = sorted(ticks)
        for tick, frame in zip(ascending, frames_at(data, episode, ascending), strict=True):
            found[episode, tick] = frame
    return [found[each.episode, each.tick] for each in neighbours]
