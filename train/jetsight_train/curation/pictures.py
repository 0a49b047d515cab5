"""Measurement of recorded frames: repeated, empty, or shifted against the rows.

Shapes: T frames of an episode, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import Rows
from jetsight.errors import DataError
from jetsight_train.conversion.source import RecordedSource

_LOOK_PX = 96  # frames are compared on a grid of about so many pixels
_REPEATED_SHARE = 0.05  # of the usual change for such a motion: less is the same frame again
_REPEATED_LEVELS = 0.02
_MOVING_SHARE = 0.5  # of the usual speed: less counts as rest
_MOVING_RUN = 0.3
_DEAD = 0.5
_MOST_SHIFT = 8
_LEAST_CORRELATION, _LEAST_BETTER = 0.3, 0.1


@dataclass(frozen=True)
class FrameTrack:
    """Measurements of the frames of one episode, and some of the frames themselves.

    Attributes:
        episode: its number.
        brightness: `[T]` mean level, 0 to 255.
        spread: `[T]` standard deviation of the levels.
        change: `[T-1]` mean difference from one frame to the next, in levels.
        shown: frames for the contact sheet by tick, `uint8 [h,w,3]`.
    """

    episode: int
    brightness: NDArray[np.float64]
    spread: NDArray[np.float64]
    change: NDArray[np.float64]
    shown: dict[int, NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True)
class PictureSurvey:
    """Measured frames of one camera over the sampled episodes.

    Attributes:
        frames: number of frames decoded.
        episodes: number of episodes decoded.
        repeated: share of the frames that repeat the one before while the robot moves.
        repeat_every: median distance of two repeated frames, in ticks; None with few of them.
        longest_freeze: longest such run, as `(episode, first tick, ticks)`; None without one.
        black: frames that are black, as `(episode, tick)`.
        white: frames that are white.
        flashes: frames far brighter or darker than the rest.
        shift: ticks by which the pictures are late against the states; None if it is unclear.
        unreadable: episodes that could not be decoded, with the reason.
    """

    frames: int
    episodes: int
    repeated: float
    repeat_every: float | None
    longest_freeze: tuple[int, int, int] | None
    black: tuple[tuple[int, int], ...]
    white: tuple[tuple[int, int], ...]
    flashes: tuple[tuple[int, int], ...]
    shift: int | None
    unreadable: tuple[tuple[int, str], ...]

    @property
    def dead(self) -> bool:
        """True for a camera that shows nothing, such as a place kept for one."""
        return self.frames > 0 and max(len(self.black), len(self.white)) > _DEAD * self.frames


def sample_episodes(lengths: Sequence[int], episodes: int, frames: int) -> list[int]:
    """Choose episodes spread evenly over a recording, at most so many and of so many frames.

    At least one is chosen. Each is decoded from its start, so whole ones are chosen.
    """
    places = np.linspace(0, len(lengths) - 1, min(episodes, len(lengths)))
    found: list[int] = []
    for i in np.unique(np.round(places).astype(int)).tolist():
        if not found or sum(lengths[j] for j in (*found, i)) <= frames:
            found.append(i)
    return found


@dataclass(frozen=True)
class FrameTracks:
    """Tracks of the episodes that can be decoded, and the others with the reason."""

    tracks: list[FrameTrack]
    unreadable: list[tuple[int, str]]


def read_tracks(
    source: RecordedSource,
    camera: int,
    episodes: Sequence[int],
    shown: Callable[[int], Sequence[int]],
    progress: Callable[[int], None] = lambda frames: None,
) -> FrameTracks:
    """Decode and measure the frames of one camera.

    Args:
        source: dataset.
        camera: number of the camera.
        episodes: to decode.
        shown: ticks of an episode of a given length whose frames are kept.
        progress: called with the number of newly decoded frames.
    """
    found = FrameTracks([], [])
    for episode in episodes:
        try:
            ticks = shown(source.lengths[episode])
            frames = source.frames(episode, camera)
            found.tracks.append(_track(episode, frames, ticks, progress))
        except DataError as problem:
            found.unreadable.append((episode, str(problem)))
    return found


def _track(
    episode: int,
    frames: Iterator[NDArray[np.uint8]],
    shown: Sequence[int],
    progress: Callable[[int], None],
) -> FrameTrack:
    levels, changes, kept = [], [], {}
    before: NDArray[np.int16] | None = None
    for tick, frame in enumerate(frames):
        step = max(1, min(frame.shape[:2]) // _LOOK_PX)
        look = frame[::step, ::step].astype(np.int16)
        levels.append((float(look.mean()), float(look.std())))
        if before is not None:
            changes.append(float(np.abs(look - before).mean()))
        before = look
        if tick in shown:
            kept[tick] = frame
        progress(1)
    brightness, spread = np.array(levels).T
    return FrameTrack(episode, brightness, spread, np.array(changes), kept)


def survey_pictures(
    tracks: Sequence[FrameTrack],
    rows: Sequence[Rows],
    unreadable: Sequence[tuple[int, str]] = (),
) -> PictureSurvey:
    """Summarise the tracks of one camera; `rows` are those of the same episodes."""
    speeds = [_speed(each) for each in rows]
    moving, quiet = _moving(speeds), _quiet(tracks, speeds)
    repeats = [still & moves for still, moves in zip(quiet, moving, strict=True)]
    distances = [d for each in repeats for d in np.diff(np.flatnonzero(each)).tolist()]
    freezes = [
        (track.episode, *run)
        for track, still, moves in zip(tracks, quiet, moving, strict=True)
        for run in _runs(still, moves)
    ]
    return PictureSurvey(
        frames=sum(len(track.brightness) for track in tracks),
        episodes=len(tracks),
        repeated=_share(repeats, moving),
        repeat_every=float(np.median(distances)) if len(distances) >= 10 else None,
        longest_freeze=max(freezes, key=lambda freeze: freeze[2], default=None),
        black=_where(tracks, lambda t: (t.brightness < 6) & (t.spread < 6)),
        white=_where(tracks, lambda t: (t.brightness > 250) & (t.spread < 6)),
        flashes=_flashes(tracks),
        shift=_shift(tracks, speeds),
        unreadable=tuple(unreadable),
    )


def _speed(rows: Rows) -> NDArray[np.float64]:
    """Speed of the robot from one row to the next [T-1]: of the states, or of the actions."""
    values = rows.states if rows.states.shape[1] else rows.actions
    if not values.shape[1] or len(values) < 2:
        return np.zeros(max(len(values) - 1, 0))
    steps = np.abs(np.diff(values.astype(np.float64), axis=0))
    # Each dimension counts by its own usual step, whatever its unit.
    return np.asarray((steps / np.maximum(steps.mean(axis=0), 1e-9)).mean(axis=1))


def _moving(speeds: Sequence[NDArray[np.float64]]) -> list[NDArray[np.bool_]]:
    joined = np.concatenate(speeds) if speeds else np.zeros(0)
    usual = float(np.median(joined[joined > 0])) if (joined > 0).any() else np.inf
    return [speed > _MOVING_SHARE * usual for speed in speeds]


def _quiet(
    tracks: Sequence[FrameTrack], speeds: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.bool_]]:
    """Find the frames `[T-1]` that differ from the one before by far less than the motion says."""
    pairs = list(zip(tracks, speeds, _moving(speeds), strict=True))
    ratios = np.concatenate([np.zeros(0), *(t.change[m] / speed[m] for t, speed, m in pairs)])
    # The upper quartile: with every second frame repeated the median would be of repeats.
    usual = float(np.quantile(ratios, 0.75)) if len(ratios) else 0.0
    return [
        t.change <= np.maximum(_REPEATED_LEVELS, _REPEATED_SHARE * usual * speed)
        for t, speed, _ in pairs
    ]


def _runs(quiet: NDArray[np.bool_], moving: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Iterate over first tick and length of runs of quiet frames in which the robot moves."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        # A robot that moves now and then in a second is one that moves.
        if moving[start:stop].mean() >= _MOVING_RUN:
            yield start, stop - start


def _share(part: Sequence[NDArray[np.bool_]], whole: Sequence[NDArray[np.bool_]]) -> float:
    return sum(int(p.sum()) for p in part) / max(sum(int(w.sum()) for w in whole), 1)


def _where(
    tracks: Sequence[FrameTrack], holds: Callable[[FrameTrack], NDArray[np.bool_]]
) -> tuple[tuple[int, int], ...]:
    return tuple((t.episode, int(i)) for t in tracks for i in np.flatnonzero(holds(t)))


def _flashes(tracks: Sequence[FrameTrack]) -> tuple[tuple[int, int], ...]:
    """Find single frames far brighter or darker than both neighbours."""
    found = []
    for track in tracks:
        level = track.brightness
        inner = np.minimum(np.abs(level[1:-1] - level[:-2]), np.abs(level[1:-1] - level[2:]))
        found += [(track.episode, int(i) + 1) for i in np.flatnonzero(inner > 25)]
    return tuple(found)


def _shift(tracks: Sequence[FrameTrack], speeds: Sequence[NDArray[np.float64]]) -> int | None:
    """Find the shift at which motion in the pictures goes best with motion of the states."""
    shifts = range(-_MOST_SHIFT, _MOST_SHIFT + 1)
    scores, weight = np.zeros(len(shifts)), 0
    for track, speed in zip(tracks, speeds, strict=True):
        count = min(len(track.change), len(speed))
        if count < 4 * _MOST_SHIFT:
            continue
        seen, done = _jolts(track.change[:count]), _jolts(speed[:count])
        inner = done[_MOST_SHIFT : count - _MOST_SHIFT]
        for i, shift in enumerate(shifts):
            first = _MOST_SHIFT + shift
            scores[i] += count * _correlation(seen[first : first + len(inner)], inner)
        weight += count
    if weight == 0:
        return None
    scores /= weight
    best = int(np.argmax(scores))
    second = float(np.max(np.delete(scores, best)))
    clear = scores[best] >= _LEAST_CORRELATION and scores[best] >= second + _LEAST_BETTER
    return best - _MOST_SHIFT if clear else None


def _jolts(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce a motion to what is sudden in it, because smooth motion goes with any shift of it."""
    level = np.log(motion + 0.1 * np.median(motion) + 1e-9)
    return np.asarray(level - np.convolve(level, np.ones(5) / 5, "same"))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    spread = a.std() * b.std()
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread > 1e-12 else 0.0
