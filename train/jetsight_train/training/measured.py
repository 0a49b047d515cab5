"""Facts that training measures on its data: normalisers and anchors, and data that has none.

Shapes: F frames of the recording, a action size, P anchored quantities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jetsight.bundle.model_spec import ActionSpec, StateSpec
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import ArtefactError, DataError
from jetsight_train.data.columns import (
    FloatArray,
    ProbeColumn,
    check_known,
    quantities,
)
from jetsight_train.data.normaliser import check_range, is_still, measure
from jetsight_train.data.windows import Recording, check_lengths, check_metadata
from jetsight_train.recipe import ActionRecipe, Recipe, StateRecipe

BEYOND = 10.0  # ranges outside the limits that only other units explain: degrees for radians is 57


@dataclass(frozen=True)
class DataSummary:
    """Result of `check_training_data`: the action spec, and lines that the user must see."""

    action: ActionSpec
    warnings: tuple[str, ...]


def check_training_data(
    recipe: Recipe, path: Path, features: FeatureMap | None = None
) -> DataSummary:
    """Refuse a dataset that does not fit the recipe, before a frame of it is decoded.

    Raises:
        DataError: another camera, rate or robot, episodes shorter than a window, no column that an
            anchor needs, a column that never varies, or actions out of range, all constant or
            without a valid neutral one.
    """
    dataset = check_metadata(path, recipe.recording_spec, features)
    for entry in recipe.anchors:
        check_known(entry.column, dataset.state_names, str(path))
    check_lengths(dataset.episode_lengths, recipe.window, recipe.timing.action_block, path)
    # Rows are read without decoding a frame.
    rows = [dataset.rows(index) for index in range(len(dataset))]
    if recipe.anchors:
        states = np.concatenate([each.states for each in rows])
        columns = dict(zip(dataset.state_names, states.T, strict=True))
        check_anchors(recipe.anchors, columns, path)
    actions = np.concatenate([each.actions for each in rows])
    spec = measured_action(recipe, actions, path)
    warnings = [*_warnings(spec, actions, path)]
    if recipe.state is not None:
        states = np.concatenate([each.states for each in rows])
        found = [list(dataset.state_names).index(name) for name in recipe.state.names]
        check_range(states[:, found], recipe.state.names, path)
        warnings += _state_warnings(recipe.state, states[:, found], path)
    return DataSummary(spec, tuple(warnings))


def measured_action(recipe: Recipe, actions: FloatArray, where: object) -> ActionSpec:
    """Make the recipe's action spec with the normaliser of `actions [F, a]`, recorded at `where`.

    Raises:
        DataError: actions out of range, or none of them varies; a neutral action along a dimension
            that never varies is another value than the recorded one; or the recipe names no neutral
            action and their mean is outside the robot's limits.
    """
    wanted = recipe.action
    check_range(actions, wanted.names, where)
    _check_limits(wanted, actions, where)
    span = np.subtract(wanted.high, wanted.low)
    normaliser = measure(actions, wanted.names, span.tolist())
    if len(normaliser.fixed) == len(wanted.names):
        raise DataError(
            f"{where}: no action ever varies, so a model cannot learn what actions do; expected "
            "the robot in motion, record it again"
        )
    mean = normaliser.mean
    if wanted.neutral is not None:
        mean = _as_neutral(wanted, wanted.neutral, mean, normaliser.fixed, where)
    try:
        return wanted.spec(mean, normaliser.std, normaliser.fixed)
    except ArtefactError as error:
        raise DataError(
            f"{where}: the mean of the recorded actions does not fit recipe {recipe.name!r}: "
            f"{error}; without `neutral` in the recipe the mean is taken"
        ) from None


def measured_state(recipe: StateRecipe, recording: Recording) -> StateSpec:
    """Make the recipe's state spec with the normaliser of a recording.

    Raises:
        DataError: a number is out of range.
    """
    states = recording.states_of(recipe.names)
    assert states is not None  # a recipe without names is refused
    check_range(states, recipe.names, recording.name)
    normaliser = measure(states, recipe.names)
    return recipe.spec(normaliser.mean, normaliser.std)


def check_anchors(
    anchors: Sequence[ProbeColumn], columns: dict[str, FloatArray], where: object
) -> None:
    """Refuse anchors on a column that never varies, or whose numbers are out of range.

    Raises:
        DataError: the column is named.
    """
    for entry in anchors:
        column = columns[entry.column][:, None]
        check_range(column, [entry.column], where)
        if is_still(column)[0]:
            raise DataError(
                f"{where}: {entry.column!r} is always {column[0, 0]:g}, so it cannot supervise the "
                "latent; leave it out of [[anchors]], or record it in motion"
            )


def anchor_targets(recipe: Recipe, recording: Recording) -> Tensor | None:
    """Make the targets of the first dimensions for every frame: `[F, P]`, standardised."""
    if not (recipe.objective.anchor and recipe.anchors):
        return None
    for entry in recipe.anchors:
        check_known(entry.column, recording.state_names, recording.name)
    check_anchors(recipe.anchors, recording.columns, recording.name)
    names, _, values = quantities(recipe.anchors, recording.columns)
    # A cosine or sine may be still where its angle is not, so the scale is measured here too.
    scale = measure(values, names)
    mean, std = np.asarray(scale.mean), np.asarray(scale.std)
    return torch.from_numpy(((values - mean) / std).astype(np.float32))


def _check_limits(action: ActionRecipe, actions: FloatArray, where: object) -> None:
    """Refuse actions so far outside the limits that one of the two must have other units."""
    low, high = np.asarray(action.low), np.asarray(action.high)
    slack = BEYOND * (high - low)
    beyond = np.argwhere((actions < low - slack) | (actions > high + slack))
    if len(beyond):
        tick, i = (int(index) for index in beyond[0])
        raise DataError(
            f"{where}: {action.names[i]!r} is {actions[tick, i]:g} at tick {tick}, far outside of "
            f"low {low[i]:g} and high {high[i]:g} in the recipe; give limits in the units that "
            "were recorded, or record again"
        )


def _as_neutral(
    action: ActionRecipe,
    neutral: tuple[float, ...],
    mean: tuple[float, ...],
    fixed: Sequence[str],
    where: object,
) -> tuple[float, ...]:
    """Take the neutral value as the mean of what never varies; they must agree."""
    centred = list(mean)
    for i, name in enumerate(action.names):
        if name not in fixed:
            continue
        if abs(neutral[i] - mean[i]) > 1e-3 * (action.high[i] - action.low[i]):
            raise DataError(
                f"{where}: {name!r} is always {mean[i]:g}, but the recipe's neutral action holds "
                f"it at {neutral[i]:g}, where the model never saw it; set its number in `neutral` "
                f"to {mean[i]:g}, or record it in motion"
            )
        centred[i] = neutral[i]
    return tuple(centred)


def _state_warnings(state: StateRecipe, states: FloatArray, where: object) -> Iterator[str]:
    fixed = measure(states, state.names).fixed
    if fixed:
        yield (
            f"{where}: the states {', '.join(map(repr, fixed))} never vary, so the model cannot "
            "learn what they mean: their scale is 1; leave them out of [state], or record them in "
            "motion"
        )


def _warnings(action: ActionSpec, actions: FloatArray, where: object) -> Iterator[str]:
    if action.fixed:
        held = ", ".join(
            f"{name!r} at {at:g}"
            for name, at, is_held in zip(action.names, action.neutral, action.held, strict=True)
            if is_held
        )
        yield (
            f"{where}: the actions {held} never vary, so their effect cannot be learned: their "
            "scale is 1, and plans of the bundle will hold them there"
        )
    outside = (actions < np.asarray(action.low)) | (actions > np.asarray(action.high))
    shares = outside.mean(0)
    for name, share in zip(action.names, shares, strict=True):
        if share > 0.01:
            yield (
                f"{where}: {share:.0%} of {name!r} is outside of the recipe's limits; the model "
                "learns from it, but plans will stay inside"
            )
