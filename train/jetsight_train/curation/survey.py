"""Survey of a recorded dataset: everything `jetsight data check` measures.

Shapes: T rows of an episode, h, w frame size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jetsight.datasets.dataset import CameraFeature, FeatureMap, Rows
from jetsight.errors import DataError
from jetsight_train.conversion.source import RecordedSource, open_source
from jetsight_train.conversion.timing import TimingSurvey, survey_timing
from jetsight_train.curation.alignment import ActionLag, action_lag, copied_state, shared_dimensions
from jetsight_train.curation.pictures import (
    FrameTrack,
    PictureSurvey,
    read_tracks,
    sample_episodes,
    survey_pictures,
)
from jetsight_train.curation.vectors import DimensionSurvey, survey_dimensions

SHOWN_TICKS = 8  # frames of an episode on the contact sheet
_SAMPLE_EPISODES, _SAMPLE_FRAMES = 6, 3000


@dataclass(frozen=True)
class CheckOptions:
    """Settings of a check.

    Args:
        features: which features are actions, states and frames, where that is not clear.
        limits: smallest and largest value per action dimension, by name.
        window: ticks of one training window; shorter episodes train nothing.
        every_frame: decode all episodes, not a sample.
    """

    features: FeatureMap
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    window: int = 8
    every_frame: bool = False


@dataclass(frozen=True)
class DatasetSurvey:
    """Measured facts of a dataset.

    Attributes:
        path: the dataset.
        format: name of its format.
        robot: robot it was recorded with; empty if it does not say.
        notes: facts that its reader mentions, e.g. episodes that are missing.
        missing: why it has no actions, states or frames, by role.
        cameras: all cameras, those for depth included.
        lengths: rows of each episode.
        window: ticks of one training window.
        timing: rates.
        actions: ranges of the actions.
        states: ranges of the states.
        unreadable: episodes whose rows cannot be read, with the reason.
        identical: pairs of episodes with the same rows.
        copied: actions are the state of the same row, or of the next one.
        lag: ticks from actions to their effect; None where it cannot be found.
        pictures: frames by camera.
    """

    path: Path
    format: str
    robot: str
    notes: tuple[str, ...]
    missing: Mapping[str, str]
    cameras: tuple[CameraFeature, ...]
    lengths: tuple[int, ...]
    window: int
    timing: TimingSurvey
    actions: tuple[DimensionSurvey, ...]
    states: tuple[DimensionSurvey, ...]
    unreadable: tuple[tuple[int, str], ...]
    identical: tuple[tuple[int, int], ...]
    copied: Literal["this", "next"] | None
    lag: ActionLag | None
    pictures: Mapping[str, PictureSurvey]


@dataclass(frozen=True)
class SheetEpisode:
    """One row of the contact sheet: an episode's rows, and some of its frames by camera."""

    episode: int
    rows: Rows
    frames: Mapping[str, Mapping[int, np.ndarray[Any, np.dtype[np.uint8]]]]


def examine(
    path: Path,
    options: CheckOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[DatasetSurvey, list[SheetEpisode]]:
    """Measure a dataset.

    Args:
        path: folder or file of the dataset.
        options: settings.
        progress: called with the numbers of decoded frames and of those to decode.

    Returns:
        The survey, and the episodes for a contact sheet.

    Raises:
        DataError: the dataset cannot be opened.
        UsageError: a feature of `options` does not exist.
    """
    source = open_source(path, options.features, describe=True)
    rows, unreadable = _read_rows(source)
    sample = _sample(source.lengths, options, list(rows))
    total = len(source.cameras) * sum(source.lengths[i] for i in sample)
    done = 0

    def more(frames: int) -> None:
        nonlocal done
        done += frames
        progress(done, total)

    tracks: dict[str, list[FrameTrack]] = {}
    pictures: dict[str, PictureSurvey] = {}
    for camera, key in enumerate(source.cameras):
        found = read_tracks(source, camera, sample, _shown, more)
        tracks[key] = found.tracks
        paired = [rows[track.episode] for track in found.tracks]
        pictures[key] = survey_pictures(found.tracks, paired, found.unreadable)
    survey = _survey(source, options, rows, unreadable)
    return replace(survey, pictures=pictures), _sheet(sample, rows, tracks)


def _survey(
    source: RecordedSource,
    options: CheckOptions,
    rows: Mapping[int, Rows],
    unreadable: Sequence[tuple[int, str]],
) -> DatasetSurvey:
    dataset, every = source.first, list(rows.values())
    limits = _limits(source, options)
    pairs = shared_dimensions(dataset.action_names, dataset.state_names)
    return DatasetSurvey(
        path=dataset.path,
        format=dataset.format,
        robot=dataset.robot,
        notes=source.notes,
        missing=dict(source.missing),
        cameras=tuple(dataset.cameras),
        lengths=source.lengths,
        window=options.window,
        timing=survey_timing({i: each.timestamps_s for i, each in rows.items()}, dataset.fps),
        actions=_dimensions(every, "actions", dataset.action_names, limits),
        states=_dimensions(every, "states", dataset.state_names, {}),
        unreadable=tuple(unreadable),
        identical=_identical(rows),
        copied=copied_state(every, pairs) if dataset.action_names else None,
        lag=action_lag(every, pairs, dataset.fps),
        pictures={},
    )


def _read_rows(source: RecordedSource) -> tuple[dict[int, Rows], list[tuple[int, str]]]:
    rows: dict[int, Rows] = {}
    unreadable = []
    for i in range(len(source)):
        try:
            rows[i] = source.rows(i)
        except DataError as problem:
            unreadable.append((i, str(problem)))
    if not rows and unreadable:
        # Nothing can be said about the rest, so the first reason is the answer.
        raise DataError(unreadable[0][1])
    return rows, unreadable


def _limits(source: RecordedSource, options: CheckOptions) -> Mapping[str, tuple[float, float]]:
    """Take the limits of the options, or those that the dataset declares."""
    declared = source.labels().action_limits
    if options.limits or not declared:
        return options.limits
    return dict(zip(source.first.action_names, declared, strict=True))


def _sample(lengths: Sequence[int], options: CheckOptions, readable: list[int]) -> list[int]:
    if options.every_frame:
        return readable
    usable = [lengths[i] for i in readable]
    return [readable[i] for i in sample_episodes(usable, _SAMPLE_EPISODES, _SAMPLE_FRAMES)]


def _shown(length: int) -> list[int]:
    ticks = np.linspace(0, length - 1, min(SHOWN_TICKS, length))
    return [int(tick) for tick in np.unique(np.round(ticks))]


def _sheet(
    sample: Sequence[int], rows: Mapping[int, Rows], tracks: Mapping[str, Sequence[FrameTrack]]
) -> list[SheetEpisode]:
    shown = sample[:: max(1, -(-len(sample) // _SAMPLE_EPISODES))]
    found = []
    for i in shown:
        frames = {key: t.shown for key, each in tracks.items() for t in each if t.episode == i}
        found.append(SheetEpisode(i, rows[i], frames))
    return found


def _dimensions(
    rows: Sequence[Rows],
    kind: Literal["actions", "states"],
    names: Sequence[str],
    limits: Mapping[str, tuple[float, float]],
) -> tuple[DimensionSurvey, ...]:
    if not names:
        return ()
    values = np.concatenate([getattr(each, kind) for each in rows])
    return survey_dimensions(values, names, [limits.get(name) for name in names])


def _identical(rows: Mapping[int, Rows]) -> tuple[tuple[int, int], ...]:
    seen: dict[bytes, int] = {}
    found = []
    for i, each in rows.items():
        if len(each.actions) < 2 or not (each.actions.shape[1] or each.states.shape[1]):
            continue
        key = hashlib.sha256(each.actions.tobytes() + b"\0" + each.states.tobytes()).digest()
        if key in seen:
            found.append((seen[key], i))
        seen.setdefault(key, i)
    return tuple(found)
