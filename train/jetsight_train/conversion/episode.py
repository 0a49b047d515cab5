"""Conversion of one episode, into the staging folder of its dataset.

Shapes: T rows of an episode, M ticks of the result, C cameras, h, w frame size.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import FeatureMap, Rows
from jetsight.datasets.resample import FrameResize, TickRows
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError
from jetsight.storage import atomic
from jetsight_train.conversion.recipe import ConversionRecipe, tick_rows
from jetsight_train.conversion.source import RecordedSource, open_source
from jetsight_train.record import staging
from jetsight_train.record.description import REWARD_KEY, DatasetDescription

_COMPARED = 32  # frames of an episode that are compared with what was stored


@dataclass(frozen=True)
class EpisodeReport:
    """Measured losses of one converted episode.

    Attributes:
        ticks: frames of the result.
        offset_s: largest time between a tick and the frame that stands for it.
        mean_levels: mean difference of stored from converted pixels, of 255 levels.
        most_levels: largest such difference.
    """

    ticks: int
    offset_s: float
    mean_levels: float
    most_levels: int


@functools.lru_cache(maxsize=1)
def _source(path: Path, features: FeatureMap) -> RecordedSource:
    # Opened once in each process: the tables of a large dataset take seconds to read.
    return open_source(path, features)


def convert_episode(
    path: Path,
    recipe: ConversionRecipe,
    description: DatasetDescription,
    folder: Path,
    episode: int,
) -> None:
    """Convert one episode of the source at `path` and write it to the staging `folder`.

    Raises:
        DataError: rows or frames are missing or damaged.
        StorageError: the disk is full or the folder cannot be written.
    """
    source = _source(path, recipe.features)
    rows, first = shift_actions(source.rows(episode), recipe.shift)
    ticks = tick_rows(rows.timestamps_s, source.first.fps, recipe)
    labels = source.labels()
    span = slice(first, first + len(rows.actions))
    columns = source.columns(episode, recipe.columns) if recipe.columns else {}
    taken = staging.EpisodeRows(
        ticks.actions(rows.actions, recipe.actions),
        ticks.hold(rows.states),
        {key: _column(key, values[span], ticks) for key, values in columns.items()},
        labels.tasks[episode] if labels.tasks else None,
    )
    compared = _Compared(len(ticks))
    frames = compared.watch(_frames(source, episode, recipe, ticks.frames + first))
    staging.write_episode(folder, episode, taken, frames, description)
    mean, most = compared.measure(folder, episode, description)
    report = EpisodeReport(len(ticks), _offset_s(ticks), mean, most)
    atomic.write_file(_report_path(folder, episode), json.dumps(asdict(report)).encode())


def shift_actions(rows: Rows, shift: int) -> tuple[Rows, int]:
    """Move the actions of an episode `shift` rows later, and cut the rows left without one.

    Returns:
        The rows, and the number of the first one that is left.

    Raises:
        DataError: the episode has no more rows than that.
    """
    count = len(rows.actions) - abs(shift)
    if count < 1:
        raise DataError(f"its {len(rows.actions)} rows cannot be moved by {shift}; leave it out")
    first, taken = max(shift, 0), max(-shift, 0)
    return (
        Rows(
            rows.actions[taken : taken + count],
            rows.states[first : first + count],
            rows.timestamps_s[first : first + count],
        ),
        first,
    )


def _column(key: str, values: NDArray[np.float32], ticks: TickRows) -> NDArray[Any]:
    """Resample a further column: what follows an action counts for all rows of the tick."""
    if key == REWARD_KEY:
        return np.add.reduceat(values, ticks.held).astype(np.float32)
    if key.startswith("next."):
        return np.maximum.reduceat(values, ticks.held) > 0
    return np.asarray(ticks.hold(values))


def _offset_s(ticks: TickRows) -> float:
    """Largest time between a tick and the frame that stands for it, in seconds."""
    return float(np.abs(ticks.edges_s[ticks.frames] - ticks.borders_s[:-1]).max())


def _frames(
    source: RecordedSource, episode: int, recipe: ConversionRecipe, wanted: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Iterate over the converted frames [h,w,3] or [C,h,w,3] at the rows `wanted`, ascending."""
    resizes = [FrameResize(recipe.size_hw, camera.crop) for camera in recipe.cameras]
    position = 0
    cameras = zip(*(source.frames(episode, i) for i in range(len(resizes))), strict=True)
    for row, frames in enumerate(cameras):
        if position == len(wanted):
            return
        if wanted[position] == row:
            each = [resize(frame) for resize, frame in zip(resizes, frames, strict=True)]
            frame = each[0] if len(each) == 1 else np.stack(each)
            while position < len(wanted) and wanted[position] == row:
                yield frame
                position += 1


class _Compared:
    """Comparison of a sample of the frames of one episode with what was stored of them."""

    def __init__(self, ticks: int) -> None:
        self._every = max(1, ticks // _COMPARED)
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def watch(self, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Pass frames on, and keep every so many."""
        for tick, frame in enumerate(frames):
            if tick % self._every == 0:
                self._kept[tick] = frame
            yield frame

    def measure(
        self, folder: Path, index: int, description: DatasetDescription
    ) -> tuple[float, int]:
        """Return mean and largest difference of the stored pixels, in levels."""
        height, width = description.size_hw
        if description.pictures == "png":
            return 0.0, 0
        means, most = [], 0
        for camera in range(len(description.cameras)):
            video = VideoIndex.read(staging.video_path(folder, index, camera))
            for tick, stored in enumerate(video.frames(0, max(self._kept) + 1)):
                if tick in self._kept:
                    frame = self._kept[tick].reshape(-1, height, width, 3)[camera]
                    difference = np.abs(stored.astype(np.int16) - frame)
                    means.append(float(difference.mean()))
                    most = max(most, int(difference.max()))
        return float(np.mean(means)), most


def is_complete(folder: Path, index: int) -> bool:
    """Return whether episode `index` is in the staging `folder` as a whole."""
    return staging.rows_path(folder, index).exists() and _report_path(folder, index).exists()


def _report_path(folder: Path, index: int) -> Path:
    return folder / f"report-{index:06d}.json"


def read_report(folder: Path, index: int) -> EpisodeReport:
    """Read the measured losses of episode `index` from the staging `folder`."""
    return EpisodeReport(**json.loads(_report_path(folder, index).read_bytes()))
