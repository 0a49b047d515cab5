"""The camera of the demo: held-out episodes, then one scene change that is not announced.

Shapes: h, w frame size, s state size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.dataset import Episode, RecordedDataset
from jetsight.datasets.fit import check_dataset_fits
from jetsight.engine import NDArray
from jetsight.errors import DataError, UsageError

_AFTER_CHANGE = 6  # one frame in six comes after the planted change


@dataclass(frozen=True)
class Piece:
    """Rows `first .. last - 1` of one episode.

    `announced` is true if the session gets a mark that a new scene begins, as from a camera that
    reconnects; the planted change is the one piece that is not announced.
    """

    episode: int
    first: int
    last: int
    announced: bool = True

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Scenario:
    """Pieces shown one after the other, one frame per period."""

    pieces: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        """Frames of all pieces together."""
        return sum(map(len, self.pieces))

    @property
    def episodes(self) -> list[int]:
        """Every episode that is shown, once."""
        return list(dict.fromkeys(piece.episode for piece in self.pieces))

    @property
    def starts(self) -> list[int]:
        """Frame index at which each piece begins."""
        return [sum(map(len, self.pieces[:i])) for i in range(len(self.pieces))]

    @property
    def change(self) -> int | None:
        """Frame index of the planted change; None when nothing is planted."""
        starts = zip(self.starts, self.pieces, strict=True)
        return next((start for start, piece in starts if not piece.announced), None)

    def piece_of(self, index: int) -> int:
        """Return the number of the piece that frame `index` belongs to."""
        return sum(start <= index for start in self.starts) - 1

    def place(self, index: int) -> tuple[int, int]:
        """Episode and row of frame `index`."""
        number = self.piece_of(index)
        piece = self.pieces[number]
        return piece.episode, piece.first + index - self.starts[number]

    def unchanged(self) -> Scenario:
        """Build the negative control: the last scene before the change continues.

        Frame i of the control is frame i of that piece, so the change would have come at frame
        `len(pieces[-2])`.

        Raises:
            UsageError: nothing was planted.
        """
        if self.change is None:
            raise UsageError("the scenario has no planted change to take away")
        before, after = self.pieces[-2:]
        return Scenario((Piece(before.episode, before.first, before.last + len(after)),))


def frames_to_surprise(history: int, block: int) -> int:
    """Frames a scene needs before a frame of it can surprise: K latents, one block, and a block."""
    return (history + 1) * block


def check_frames(frames: int, history: int, block: int) -> None:
    """Refuse a stream too short for a change between two scenes.

    Raises:
        UsageError: it is.
    """
    least = 2 * frames_to_surprise(history, block)
    if frames < least:
        raise UsageError(
            f"{frames} frames are too few to plant a change of scene in; this model needs "
            f"{least} or more"
        )


def plan_scenario(lengths: Mapping[int, int], frames: int, history: int, block: int) -> Scenario:
    """Whole episodes one after the other, then an unannounced cut into one more.

    The robot that is seen after the cut goes on from the same row of its own episode, with the
    actions that were really executed there: only the scene changes, not the bookkeeping.

    Args:
        lengths: rows of each episode that may be shown, in the order of showing.
        frames: to show.
        history: K of the model.
        block: B of the model.

    Raises:
        UsageError: `frames` is too few for a change between two scenes.
        DataError: the episodes are too few or too short for that many frames.
    """
    check_frames(frames, history, block)
    least = frames_to_surprise(history, block)
    after = max(frames // _AFTER_CHANGE, least)
    before = frames - after
    # An episode that is cut must be long enough to go on without the change: that is the control.
    waiting = [episode for episode, length in lengths.items() if length >= 2 * after]
    pieces: list[Piece] = []
    while before > 0 and waiting:
        episode = waiting.pop(0)
        length = lengths[episode]
        count = before if before + after <= length else min(length, before - least)
        pieces.append(Piece(episode, 0, count))
        before -= count
    if before > 0 or not waiting:
        raise DataError(
            f"{len(lengths)} held-out episodes are too few or too short to show {frames} frames "
            "with a change of scene; show fewer frames or give a larger data set"
        )
    first = min(pieces[-1].last, lengths[waiting[0]] - after)
    return Scenario((*pieces, Piece(waiting[0], first, first + after, announced=False)))


@dataclass(frozen=True)
class Replay:
    """The episodes of a scenario, decoded into memory.

    Args:
        scenario: order and length of what is shown.
        episodes: its episodes, by number.
        fps: frames per second they were recorded at.
        state_names: columns of their states.
        label: name of the dataset and its episodes, for reports.
    """

    scenario: Scenario
    episodes: Mapping[int, Episode]
    fps: float
    state_names: Sequence[str]
    label: str

    @classmethod
    def load(
        cls, data: RecordedDataset, used: Sequence[int], frames: int, spec: StreamSpec
    ) -> Replay:
        """Plan a scenario of episodes that are not in `used`, and decode them.

        Raises:
            UsageError: `frames` is too few for a change between two scenes.
            DataError: the dataset is of another camera, rate or robot, or its held-out episodes
                are too few, too short or unreadable.
        """
        check_dataset_fits(data.path, data.spec, StreamRequest.of(spec).recording_spec)
        lengths = {i: data.episode_lengths[i] for i in held_out_episodes(len(data), used)}
        scenario = plan_scenario(lengths, frames, spec.history, spec.action_block)
        numbers = scenario.episodes
        label = f"{data.path.name} episodes {', '.join(map(str, numbers))}"
        episodes = {number: data.episode(number) for number in numbers}
        return cls(scenario, episodes, data.fps, data.state_names, label)

    def unchanged(self) -> Replay:
        """Build the negative control, see `Scenario.unchanged`."""
        return replace(self, scenario=self.scenario.unchanged())

    def frame(self, index: int) -> NDArray:
        """Return frame number `index` of the stream."""
        episode, row = self.scenario.place(index)
        return np.asarray(self.episodes[episode].frames[row])

    def state(self, index: int) -> NDArray:
        """Return the recorded state `[s]` of frame `index`."""
        episode, row = self.scenario.place(index)
        return np.asarray(self.episodes[episode].states[row])


class ReplaySource:
    """A camera that plays a replay with the robot's actions and does not announce the change."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._readings: Iterator[Reading] = iter(())

    def start(self, request: StreamRequest) -> SourceInfo:
        """Begin with the first frame; `Replay.load` has checked that the recording fits."""
        replay = self._replay
        height, width = replay.frame(0).shape[-3:-1]
        self._readings = self._play(request)
        cameras = max(1, len(request.cameras))
        return SourceInfo(replay.label, height, width, replay.fps, cameras=cameras, has_state=True)

    def read(self) -> Reading | None:
        """Next frame, None after the last piece."""
        return next(self._readings, None)

    def close(self) -> None:
        """Drop the remaining frames."""
        self._readings = iter(())

    def _play(self, request: StreamRequest) -> Iterator[Reading]:
        period_ns = round(1e9 / self._replay.fps)
        read = [self._replay.state_names.index(name) for name in request.state_names]
        index, before = 0, None  # the action executed one tick before, whichever scene that was
        for piece in self._replay.scenario.pieces:
            episode = self._replay.episodes[piece.episode]
            for row in range(piece.first, piece.last):
                fresh = piece.announced and row == piece.first
                yield Reading(
                    episode.frames[row],
                    index * period_ns,
                    actions=None if fresh else before,
                    plan=episode.actions[row : row + request.plan_ticks],
                    cut=fresh and index > 0,
                    state=episode.states[row, read] if read else None,
                )
                index, before = index + 1, episode.actions[row : row + 1]


def held_out_episodes(total: int, *used: Sequence[int]) -> list[int]:
    """Episode numbers of a dataset of `total` that are in none of `used`.

    Raises:
        DataError: every episode was used.
    """
    left = [i for i in range(total) if not any(i in taken for taken in used)]
    if not left:
        raise DataError(f"all {total} episodes were used for calibration; give a larger data set")
    return left
