"""Normalisers measured on a training set, and data that has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.train.toy_world import toy_recipe, toy_recording

from jetsight.errors import DataError
from jetsight_train.data.columns import ProbeColumn
from jetsight_train.recipe import Recipe
from jetsight_train.training import measured
from jetsight_train.training.measured import anchor_targets, measured_action
from jetsight_train.training.trainer import build_model

RECORDING = toy_recording()


def actions(second: object) -> np.ndarray:
    found = RECORDING.actions.copy()
    found[:, 1] = second
    return found


def recipe(**action: Any) -> Recipe:
    return recipe_of(action=replace(toy_recipe().action, **action))


def recipe_of(**changes: Any) -> Recipe:
    return replace(toy_recipe(), **changes)


def test_a_constant_dimension_is_fixed_where_it_was_recorded() -> None:
    spec = measured_action(recipe(), actions(0.7), "data")
    assert spec.fixed == ("dx",)
    assert spec.std[1] == 1.0
    assert spec.neutral[1] == spec.mean[1] == float(np.float32(0.7))


def test_motion_along_a_fixed_dimension_is_no_thousandfold_signal() -> None:
    """Divided by almost nothing, a constant action would outweigh the one that acts."""
    data = replace(RECORDING, actions=actions(0.7))
    model = build_model(recipe(), data)
    block = torch.tensor(data.actions[:2].reshape(1, 1, -1))
    moved = [(block + step - model.action_mean) / model.action_std for step in _steps()]
    fixed, free = (float((m - moved[2]).abs().max()) for m in moved[:2])
    assert fixed < 10 * free


def _steps() -> list[torch.Tensor]:
    return [torch.tensor([0.0, 0.01] * 2), torch.tensor([0.01, 0.0] * 2), torch.zeros(4)]


def test_no_motion_at_all_is_refused() -> None:
    still = np.full_like(RECORDING.actions, 0.5)
    with pytest.raises(DataError, match="no action ever varies"):
        measured_action(recipe(), still, "data")


@pytest.mark.parametrize("neutral", [None, (0.0, 0.7)])
def test_a_neutral_action_agrees_with_what_never_varies(neutral: Any) -> None:
    spec = measured_action(recipe(neutral=neutral), actions(0.7), "data")
    assert spec.neutral[1] == pytest.approx(0.7)
    with pytest.raises(DataError, match=r"'dx' is always 0.7, .* holds it at 0, .* to 0.7"):
        measured_action(recipe(neutral=(0.0, 0.0)), actions(0.7), "data")


def test_other_units_than_the_limits_are_refused() -> None:
    degrees = RECORDING.actions * 57.3
    with pytest.raises(DataError, match=r"'d[xy]' is .* far outside of low -3 and high 3"):
        measured_action(recipe(), degrees, "data")
    measured_action(recipe(), RECORDING.actions * 2, "data")  # the control: beyond, but plausible


def test_the_user_is_warned_once_about_what_is_held_and_what_is_outside() -> None:
    spec = measured_action(recipe(), actions(0.7), "data")
    (line,) = measured._warnings(spec, actions(0.7), "data")
    assert line.startswith("data: the actions 'dx' at 0.7 never vary")
    free = measured_action(recipe(), RECORDING.actions, "data")
    assert list(measured._warnings(free, RECORDING.actions, "data")) == []
    wide = RECORDING.actions * np.float32(1.5)
    lines = list(measured._warnings(free, wide, "data"))
    assert len(lines) == 2
    assert "33% of 'dy' is outside" in lines[0] or "34% of 'dy'" in lines[0]


def test_a_constant_anchor_is_refused_and_a_still_cosine_is_not() -> None:
    states = RECORDING.states.copy()
    states[:, 1] = 4.0
    objective = replace(toy_recipe().objective, anchor=1.0)
    with_anchor = recipe_of(anchors=(ProbeColumn("x", "px"),), objective=objective)
    with pytest.raises(DataError, match="'x' is always 4, so it cannot supervise"):
        anchor_targets(with_anchor, replace(RECORDING, states=states))
    assert anchor_targets(with_anchor, RECORDING) is not None  # the control
    states[:, 1] = np.where(np.arange(len(states)) % 2, 0.5, -0.5)  # cos never varies, sin does
    turned = replace(with_anchor, anchors=(ProbeColumn("x", "rad"),))
    targets = anchor_targets(turned, replace(RECORDING, states=states))
    assert targets is not None
    assert torch.isfinite(targets).all()
    assert float(targets.abs().max()) < 2.0
