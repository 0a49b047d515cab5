"""Findings about a recipe and the data it is to be trained on, without decoding a frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset, open_for
from jetsight.errors import JetsightError, UsageError
from jetsight_train.data.columns import check_known
from jetsight_train.data.normaliser import check_range, is_still
from jetsight_train.data.windows import check_lengths
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.recipe import Recipe, find_recipe, read_recipe
from jetsight_train.training.measured import check_training_data

MEMORY_SHARE = 0.7  # of the machine's memory that decoded frames may take
FEW_EPISODES = 10


@dataclass(frozen=True)
class RecipeFinding:
    """One result of a check: `"ok"`, `"warning"` or `"error"`, and a line about it."""

    level: str
    text: str
    exit_code: int = 0


def check_recipe(
    name_or_path: str, data: Path | None, features: FeatureMap | None = None
) -> list[RecipeFinding]:
    """Check a recipe of either kind, and data against it.

    Raises:
        UsageError: the recipe was not found.
    """
    path = find_recipe(name_or_path)
    findings: list[RecipeFinding] = []
    try:
        for finding in _findings(path, data, features):
            findings.append(finding)
    except JetsightError as error:
        findings.append(RecipeFinding("error", str(error), error.exit_code))
    return findings


def _findings(
    path: Path, data: Path | None, features: FeatureMap | None
) -> Iterator[RecipeFinding]:
    recipe = _read(path)
    if isinstance(recipe, HeadsRecipe):
        probes, hazards = len(recipe.probe), len(recipe.hazard)
        yield RecipeFinding("ok", f"{path}: heads, {probes} probe columns and {hazards} hazards")
        if data is not None:
            yield from _heads_data(recipe, data, features)
        return
    yield from _world_model(recipe, path)
    if data is not None:
        yield from _training_data(recipe, data, features)


def _read(path: Path) -> Recipe | HeadsRecipe:
    """Read a recipe of the kind that its sections show."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from error
    if "[model" in text or "[action" in text or "[timing" in text:
        return read_recipe(path, Recipe)
    return read_recipe(path, HeadsRecipe)


def _world_model(recipe: Recipe, path: Path) -> Iterator[RecipeFinding]:
    timing, model = recipe.timing, recipe.model
    step_s = timing.action_block / timing.camera_hz
    yield RecipeFinding(
        "ok",
        f"{path}: {model.architecture}, {len(recipe.action.names)} actions, {step_s:.3g} s per "
        f"model step, forecasts {model.horizon * step_s:.3g} s ahead",
    )
    if not 0.1 <= step_s <= 2.0:
        yield RecipeFinding(
            "warning",
            f"timing.action_block: a model step takes {step_s:.3g} s; 0.2 to 1 s is usual, shorter "
            "ones change little and longer ones cannot be corrected",
        )
    if recipe.action.neutral is None:
        yield RecipeFinding(
            "warning",
            "action.neutral is left out, so the mean of the data is what the robot is assumed to "
            "do while nothing is known; give it, zero for velocities",
        )
    if recipe.optimiser.frozen_encoder:
        yield RecipeFinding("ok", "optimiser.frozen_encoder: train it with --init CHECKPOINT")


def _training_data(
    recipe: Recipe, data: Path, features: FeatureMap | None
) -> Iterator[RecipeFinding]:
    summary = check_training_data(recipe, data, features)
    yield from (RecipeFinding("warning", line) for line in summary.warnings)
    dataset = open_for(data, recipe.recording_spec, features)
    lengths = dataset.episode_lengths
    check_lengths(lengths, recipe.window, recipe.timing.action_block, data)
    span = (recipe.window - 1) * recipe.timing.action_block
    windows = sum(max(0, length - span) for length in lengths)
    drawn = recipe.optimiser.last_step * recipe.optimiser.batch
    yield RecipeFinding(
        "ok",
        f"{data}: {len(lengths)} episodes, {sum(lengths)} frames, {windows} windows, each drawn "
        f"{drawn / windows:.2g} times",
    )
    short = sum(length <= span for length in lengths)
    if short:
        yield RecipeFinding(
            "warning",
            f"{data}: {short} of {len(lengths)} episodes are shorter than a window of {span + 1} "
            "frames and train nothing; lower timing.action_block or objective.rollout_steps",
        )
    if len(lengths) < FEW_EPISODES:
        yield RecipeFinding(
            "warning",
            f"{data}: only {len(lengths)} episodes; a model of so few knows little, and some must "
            "be held out to measure it: record more",
        )
    needed, there = sum(lengths) * int(np.prod(recipe.frame.spec.shape)), _memory_bytes()
    if needed > MEMORY_SHARE * there:
        yield RecipeFinding(
            "error",
            f"{data}: decoded frames take {needed / 2**30:.3g} GiB, and this machine has "
            f"{there / 2**30:.3g}; make them smaller first: jetsight data convert {data} DIR",
            4,
        )


def _heads_data(
    recipe: HeadsRecipe, data: Path, features: FeatureMap | None
) -> Iterator[RecipeFinding]:
    dataset = open_dataset(data, features, describe=True)
    for name in recipe.columns:
        if name not in dataset.state_names:
            dataset.columns(0, [name])  # refuses an unknown one
    states = np.concatenate([dataset.rows(i).states for i in range(len(dataset))])
    for entry in recipe.probe:
        if entry.column not in dataset.state_names:
            continue
        check_known(entry.column, dataset.state_names, str(data))
        column = states[:, [dataset.state_names.index(entry.column)]]
        check_range(column, [entry.column], data)
        if is_still(column)[0]:
            yield RecipeFinding(
                "error",
                f"{data}: {entry.column!r} never varies, so a probe cannot learn it; leave its "
                "column out of the recipe or record more",
                4,
            )
    yield RecipeFinding("ok", f"{data}: {len(dataset)} episodes with all columns of the recipe")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
