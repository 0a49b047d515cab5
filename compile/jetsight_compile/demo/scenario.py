"""What the camera of the demo shows: held-out episodes, and one scene change nobody announces.

Shapes: h, w frame size; n steps; a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.cameras import Camera
from jetsight.cameras.source import Reading, Source, SourceInfo, StreamRequest
from jetsight.datasets.lerobot import Episode
from jetsight.engine import NDArray
from jetsight.errors import DataError, UsageError
from jetsight.session import Session
from jetsight.stream.frames import Forecast

_AFTER_CHANGE = 6  # one frame in six comes after the planted change


@dataclass(frozen=True)
class Piece:
    """Rows `first .. last - 1` of one episode.

    `announced` says whether the session is told that a new scene begins, as a camera does when it
    comes back or an episode ends; the planted change is the one piece that is not announced.
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
        """Number of the piece that frame `index` belongs to."""
        return sum(start <= index for start in self.starts) - 1

    def place(self, index: int) -> tuple[int, int]:
        """Episode and row of frame `index`."""
        number = self.piece_of(index)
        piece = self.pieces[number]
        return piece.episode, piece.first + index - self.starts[number]

    def unchanged(self) -> Scenario:
        """The negative control: the last scene before the change, which simply goes on.

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
        lengths: rows of each episode that may be shown, in the order they shall be.
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
    # Whatever is cut must have been able to go on without the change: that is the control.
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


class ScenarioSource:
    """Plays a scenario as a camera that knows what the robot does, and tells no one of the change.

    Args:
        scenario: what to show.
        footage: its episodes, by number.
        fps: frames per second they were recorded at.
        label: what reports call it.
    """

    def __init__(
        self, scenario: Scenario, footage: Mapping[int, Episode], fps: float, label: str
    ) -> None:
        self._scenario, self._footage = scenario, footage
        self._fps, self._label = fps, label
        self._readings: Iterator[Reading] = iter(())

    def start(self, request: StreamRequest) -> SourceInfo:
        """Begin with the first frame.

        Raises:
            DataError: the episodes were recorded at another rate than the model's.
        """
        if abs(self._fps - request.camera_hz) > 0.01 * request.camera_hz:
            raise DataError(
                f"{self._label} was recorded at {self._fps:g} frames per second, but the model "
                f"runs at {request.camera_hz:g}; give a dataset of that rate with --data"
            )
        self._readings = self._play(request.plan_ticks)
        first = self._footage[self._scenario.pieces[0].episode].frames
        return SourceInfo(self._label, first.shape[1], first.shape[2], self._fps)

    def read(self) -> Reading | None:
        """Next frame, None after the last piece."""
        return next(self._readings, None)

    def close(self) -> None:
        """Forget the rest."""
        self._readings = iter(())

    def _play(self, plan_ticks: int) -> Iterator[Reading]:
        period_ns = round(1e9 / self._fps)
        before = None  # action executed at the tick before, whichever scene that was
        for start, piece in zip(self._scenario.starts, self._scenario.pieces, strict=True):
            episode = self._footage[piece.episode]
            for row in range(piece.first, piece.last):
                index = start + row - piece.first
                fresh = piece.announced and row == piece.first
                yield Reading(
                    episode.frames[row],
                    index * period_ns,
                    actions=None if fresh else before,
                    plan=episode.actions[row : row + plan_ticks],
                    cut=fresh and index > 0,
                )
                before = episode.actions[row : row + 1]


def held_out_episodes(total: int, *used: Sequence[int]) -> list[int]:
    """Episode numbers of a dataset of `total` that are in none of `used`.

    Raises:
        DataError: every episode was used.
    """
    left = [i for i in range(total) if not any(i in taken for taken in used)]
    if not left:
        raise DataError(f"all {total} episodes were used for calibration; give a larger data set")
    return left


@dataclass(frozen=True)
class Watched:
    """What a session said of each frame; NaN where it said nothing.

    Args:
        index: `[F]` number of the frame; a jump means frames were dropped.
        tick: `[F]` its place on the model's time grid.
        encode_ms: `[F]` time of the encoder.
        forecast_ms: `[F]` time of the forecast graph; NaN where nothing was forecast.
        age_ms: `[F]` age of the frame when its forecast was published.
        surprise: `[F]` distance from what was expected, 1 is typical.
        surprising: `[F]` whether it was above the bundle's limit.
        valid: `[F]` whether the session vouched for the forecast.
        z: `[F, D]` latents.
        z_future: `[F, H, D]` forecasts.
        summary: of the session.
    """

    index: NDArray
    tick: NDArray
    encode_ms: NDArray
    forecast_ms: NDArray
    age_ms: NDArray
    surprise: NDArray
    surprising: NDArray
    valid: NDArray
    z: NDArray
    z_future: NDArray
    summary: dict[str, Any]


def watch(
    session: Session,
    source: Source,
    rate_hz: float,
    progress: Callable[[Forecast], None] = lambda forecast: None,
) -> Watched:
    """Stream a source to its end and keep everything.

    Args:
        session: open.
        source: not started.
        rate_hz: frames per second; 0 for as fast as they are taken, dropping none.
        progress: told of every forecast.

    Raises:
        CameraError: the source delivered nothing the model can take.
        EngineError: an engine failed several times in a row.
    """
    camera = Camera(source, clock=session.clock, rate_hz=rate_hz)
    kept: list[Forecast] = []
    for forecast in session.stream(camera):
        if forecast.z is not None:  # else there was no usable frame
            kept.append(forecast.copy())
        progress(forecast)
    return _rows(kept, session)


def _rows(kept: list[Forecast], session: Session) -> Watched:
    spec = session.spec
    nothing = np.full((spec.horizon, spec.latent_size), np.nan, np.float32)

    def column(values: list[Any], dtype: type) -> NDArray:
        return np.asarray([np.nan if value is None else value for value in values], dtype)

    return Watched(
        index=column([f.frame_index for f in kept], np.int64),
        tick=column([f.tick for f in kept], np.int64),
        encode_ms=column([f.encode_ms for f in kept], np.float64),
        forecast_ms=column(
            [None if f.z_future is None else f.forecast_ms for f in kept], np.float64
        ),
        age_ms=column([f.age_ms for f in kept], np.float64),
        surprise=column([f.surprise for f in kept], np.float64),
        surprising=column([f.surprising for f in kept], np.bool_),
        valid=column([f.valid for f in kept], np.bool_),
        z=np.stack([f.z for f in kept if f.z is not None]),
        z_future=np.stack([nothing if f.z_future is None else f.z_future for f in kept]),
        summary=session.summary(),
    )
