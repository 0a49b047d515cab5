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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.errors import DataError, JetsightError, StorageError, UsageError
from jetsight.storage import atomic
from jetsight.version import __version__
from jetsight_train.conversion.episode import (
    EpisodeReport,
    convert_episode,
    is_complete,
    read_report,
)
from jetsight_train.conversion.episodes import spans
from jetsight_train.conversion.recipe import ConversionPlan, ConversionRecipe
from jetsight_train.record import dataset, staging
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.pool import each_episode

PROVENANCE = "meta/jetsight.json"


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
        progress: called with the number of newly converted episodes.

    Returns:
        The dataset at `target`, and the held-out one if there is one.

    Raises:
        StorageError: a target is not empty, the disk is full, or there is an interrupted
            conversion and `resume` is off.
        UsageError: there is nothing to resume, or it was converted with other settings.
        DataError: an episode is damaged.
    """
    final = Path(os.path.abspath(target))
    parts = [(validation_path(final), plan.held_out)] if plan.held_out else []
    # The target comes last, so that where it exists everything does.
    parts.append((final, plan.recipe.episodes))
    published = [path for path, _ in parts if resume and (path / PROVENANCE).exists()]
    for path, _ in parts:
        if path not in published:
            atomic.refuse_used(path)
    if final in published:
        return [_published(path, plan.of(episodes)) for path, episodes in parts[::-1]]
    folder = staging.staging_of(final)
    with staging.hold(folder, plan.recipe.as_text(episodes=False), resume=resume):
        kept = _convert_missing(plan, folder, workers, progress)
        results = [_publish(plan, folder, *part, kept) for part in parts]
        # After the datasets have their names: a kill in between costs disk space, not episodes.
        shutil.rmtree(folder)
    return results[::-1]


def _convert_missing(
    plan: ConversionPlan, folder: Path, workers: int, progress: Callable[[int], None]
) -> set[int]:
    """Convert the episodes that `folder` lacks; returns those that it had."""
    every = sorted((*plan.recipe.episodes, *plan.held_out))
    kept = {episode for episode in every if is_complete(folder, episode)}
    attempt = functools.partial(_attempt, plan.path, plan.recipe, plan.description, folder)
    missing = [episode for episode in every if episode not in kept]
    for _ in each_episode(attempt, missing, workers, f"converting {plan.path}"):
        progress(1)
    return kept


def _publish(
    plan: ConversionPlan, folder: Path, final: Path, episodes: Sequence[int], kept: set[int]
) -> ConvertedDataset:
    """Assemble one of the datasets of a plan, unless an interrupted run has done so."""
    recipe = plan.of(episodes)
    if (final / PROVENANCE).exists():
        return _published(final, recipe)
    reports = [read_report(folder, episode) for episode in episodes]
    with atomic.new_directory(final) as new:
        dataset.assemble(new, folder, episodes, plan.description)
        _write_provenance(new / PROVENANCE, recipe, reports)
    resumed = len(kept.intersection(episodes))
    return ConvertedDataset(final, len(reports), resumed=resumed, **_summary(reports))


def _attempt(
    path: Path,
    recipe: ConversionRecipe,
    description: DatasetDescription,
    folder: Path,
    episode: int,
) -> JetsightError | None:
    """Convert one episode; returns an expected failure, because it may cross processes."""
    try:
        convert_episode(path, recipe, description, folder, episode)
    except StorageError as problem:
        return problem
    except JetsightError as problem:
        rest = spans([i for i in recipe.episodes if i != episode])
        return DataError(
            f"{path}: episode {episode}: {problem}; or leave it out: run again with --resume "
            f"--episodes {rest}, finished episodes are kept"
        )
    return None


def _write_provenance(
    path: Path, recipe: ConversionRecipe, reports: Sequence[EpisodeReport]
) -> None:
    content = {
        "jetsight_version": __version__,
        "conversion": json.loads(recipe.as_text(episodes=True)),
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


def _published(final: Path, recipe: ConversionRecipe) -> ConvertedDataset:
    """Read the result of a dataset that an interrupted run completed."""
    content = json.loads((final / PROVENANCE).read_bytes())
    if content["conversion"] != json.loads(recipe.as_text(episodes=True)):
        raise UsageError(
            f"{final} was converted with other settings; resume with the same ones, or remove it"
        )
    count = len(recipe.episodes)
    return ConvertedDataset(final, count, resumed=count, **content["measured"])
