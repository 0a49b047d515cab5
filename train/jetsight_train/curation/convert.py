"""Conversion of recorded data to a clean LeRobot v3 dataset, resumable, published as a whole.

Finished episodes are kept in a hidden folder beside the target, `.NAME.collecting`; the target
exists only once the dataset in it is complete.

Shapes: T rows of an episode, M ticks of the result, C cameras, h, w frame size.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.resample import FrameResize
from jetsight.datasets.video import VideoIndex
from jetsight.errors import JetsightError, UsageError
from jetsight.storage import atomic
from jetsight.version import __version__
from jetsight_train.curation.conversion import (
    ConversionPlan,
    ConversionRecipe,
    frame_offset_s,
    open_views,
    tick_rows,
)
from jetsight_train.record import dataset, staging
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.pool import each_episode

PROVENANCE = "meta/jetsight.json"
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


@dataclass(frozen=True)
class ConvertedDataset:
    """Result of a conversion: the dataset folder, its size, and its measured losses."""

    path: Path
    episodes: int
    frames: int
    resumed: int  # episodes of an earlier, interrupted conversion
    offset_s: float
    mean_levels: float
    most_levels: int


def validation_path(target: str | os.PathLike[str]) -> Path:
    """Name the dataset of the episodes that are held out of `target`."""
    final = Path(os.path.abspath(target))
    return final.with_name(f"{final.name}-val")


def convert(
    plan: ConversionPlan,
    target: str | os.PathLike[str],
    *,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int], None] = lambda episodes: None,
) -> list[ConvertedDataset]:
    """Convert the source of `plan` into `target`, and its held-out episodes into `target`-val.

    Args:
        plan: equal plans give equal files, for any number of workers and interruptions.
        target: folder that must not exist or be empty.
        workers: processes that decode and encode.
        resume: continue an interrupted conversion of the same plan.
        progress: called with the number of newly available episodes.

    Returns:
        The dataset at `target`, and the held-out one if there is one.

    Raises:
        StorageError: a target is not empty, the disk is full, or there is an interrupted
            conversion and `resume` is off.
        UsageError: there is nothing to resume, or it was converted with other settings.
        DataError: an episode is damaged.
    """
    parts = [(validation_path(target), plan.held_out)] if plan.held_out else []
    # The target comes last, so that where it exists everything does.
    parts.append((Path(os.path.abspath(target)), plan.recipe.episodes))
    _check_targets([path for path, _ in parts], resume)
    results = [
        _convert_part(plan, path, plan.of(episodes), workers, resume, progress)
        for path, episodes in parts
    ]
    return results[::-1]


def _check_targets(paths: Sequence[Path], resume: bool) -> None:
    begun = [path for path in paths if staging.staging_of(path).exists()]
    if resume and not begun and not any((path / PROVENANCE).exists() for path in paths):
        raise UsageError(
            f"nothing to resume: there is no {staging.staging_of(paths[-1])}; run without --resume"
        )
    for path in paths:
        # On resume the held-out part may be complete; it is compared with the plan later.
        if not (resume and (path / PROVENANCE).exists()):
            atomic.refuse_used(path)


def _convert_part(
    plan: ConversionPlan,
    final: Path,
    recipe: ConversionRecipe,
    workers: int,
    resume: bool,
    progress: Callable[[int], None],
) -> ConvertedDataset:
    count, text = len(recipe.episodes), json.dumps(recipe.as_dict(), indent=2, sort_keys=True)
    if resume and (final / PROVENANCE).exists():
        progress(count)
        return _finished(final, text)
    folder = staging.staging_of(final)
    with staging.hold(folder, text + "\n", resume=resume and folder.exists()):
        missing = [i for i in range(count) if not _complete(folder, i)]
        progress(count - len(missing))
        attempt = functools.partial(_attempt, plan.path, recipe, plan.description, folder)
        for _ in each_episode(attempt, missing, workers, f"converting {plan.path}"):
            progress(1)
        reports = [_read_report(folder, i) for i in range(count)]
        with atomic.new_directory(final) as new:
            dataset.assemble(new, folder, count, plan.description)
            _write_provenance(new / PROVENANCE, text, reports)
        # After the dataset has its name: a kill in between costs disk space, not episodes.
        shutil.rmtree(folder)
    return _result(final, reports, count - len(missing))


def _attempt(
    path: Path, recipe: ConversionRecipe, description: DatasetDescription, folder: Path, index: int
) -> JetsightError | None:
    """Convert one episode; returns an expected failure, because it may cross processes."""
    try:
        _convert_episode(path, recipe, description, folder, index)
    except JetsightError as problem:
        return problem
    return None


@functools.lru_cache(maxsize=1)
def _views(path: Path, features: FeatureMap) -> list[RecordedDataset]:
    # Opened once in each process: the tables of a large dataset take seconds to read.
    return open_views(path, features)


def _convert_episode(
    path: Path, recipe: ConversionRecipe, description: DatasetDescription, folder: Path, index: int
) -> None:
    views, episode = _views(path, recipe.features), recipe.episodes[index]
    ticks = tick_rows(views[0], episode, recipe.hz, recipe.times)
    rows = views[0].rows(episode)
    taken = staging.EpisodeRows(
        ticks.actions(rows.actions, recipe.actions), ticks.hold(rows.states)
    )
    compared = _Compared(len(ticks))
    frames = compared.watch(_frames(views, episode, recipe, ticks.frames))
    staging.write_episode(folder, index, taken, frames, description)
    mean, most = compared.measure(folder, index, description)
    report = EpisodeReport(len(ticks), frame_offset_s(ticks), mean, most)
    atomic.write_file(_report_path(folder, index), json.dumps(asdict(report)).encode())


def _frames(
    views: Sequence[RecordedDataset],
    episode: int,
    recipe: ConversionRecipe,
    wanted: NDArray[np.int64],
) -> Iterator[NDArray[np.uint8]]:
    """Iterate over the converted frames [h,w,3] or [C,h,w,3] at the rows `wanted`, ascending."""
    resizes = [FrameResize(recipe.size_hw, camera.crop) for camera in recipe.cameras]
    position = 0
    sources = zip(*(view.frames(episode) for view in views), strict=True)
    for row, frames in enumerate(sources):
        if position < len(wanted) and wanted[position] == row:
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


def _complete(folder: Path, index: int) -> bool:
    return staging.rows_path(folder, index).exists() and _report_path(folder, index).exists()


def _report_path(folder: Path, index: int) -> Path:
    return folder / f"report-{index:06d}.json"


def _read_report(folder: Path, index: int) -> EpisodeReport:
    return EpisodeReport(**json.loads(_report_path(folder, index).read_bytes()))


def _write_provenance(path: Path, recipe: str, reports: Sequence[EpisodeReport]) -> None:
    content = {
        "jetsight_version": __version__,
        "conversion": json.loads(recipe),
        "measured": _summary(reports),
    }
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _summary(reports: Sequence[EpisodeReport]) -> dict[str, Any]:
    ticks = np.array([report.ticks for report in reports])
    return {
        "frames": int(ticks.sum()),
        "offset_s": max(report.offset_s for report in reports),
        "mean_levels": float(np.average([r.mean_levels for r in reports], weights=ticks)),
        "most_levels": max(report.most_levels for report in reports),
    }


def _result(final: Path, reports: Sequence[EpisodeReport], resumed: int) -> ConvertedDataset:
    return ConvertedDataset(final, len(reports), resumed=resumed, **_summary(reports))


def _finished(final: Path, recipe: str) -> ConvertedDataset:
    """Read the result of a part that an interrupted conversion completed."""
    content = json.loads((final / PROVENANCE).read_bytes())
    if content["conversion"] != json.loads(recipe):
        raise UsageError(
            f"{final} was converted with other settings; resume with the same ones, or remove it"
        )
    count = len(content["conversion"]["episodes"])
    return ConvertedDataset(final, count, resumed=count, **content["measured"])
