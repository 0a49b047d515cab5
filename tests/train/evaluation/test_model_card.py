from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.train.toy_world import toy_recipe, toy_recording
from helpers.train.two_cameras import fused_recipe, fused_recording

from jetsight.errors import CollapseError, DataError
from jetsight_train.checkpoint import load
from jetsight_train.evaluation import model_card
from jetsight_train.evaluation.metrics import linear_probe_r2, state_share
from jetsight_train.evaluation.model_card import picture
from jetsight_train.training.trainer import METRICS, Trainer


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> tuple[model_card.Card, Path]:
    folder = tmp_path_factory.mktemp("runs")
    data = toy_recording(episodes=8)
    target = Trainer(toy_recipe(steps=30, batch=16), data, folder / "run").run()
    control = Trainer(toy_recipe(steps=400, batch=16, kind="none"), data, folder / "control")
    with pytest.raises(CollapseError):
        control.run()
    model, _ = load(target)
    held_out = toy_recording(episodes=4, seed=3)
    curves = [model_card.read_curve(folder / name / METRICS) for name in ("run", "control")]
    return model_card.measure(model, held_out, data, *curves), target


def test_the_control_is_seen_to_collapse(card: tuple[model_card.Card, Path]) -> None:
    measured, _ = card
    assert measured.run is not None
    assert measured.control is not None
    assert measured.control.std_mean[-1] < 0.1 < measured.run.std_mean[-1]


def test_markdown_carries_the_measured_numbers(card: tuple[model_card.Card, Path]) -> None:
    measured, target = card
    _, about = load(target)
    text = model_card.markdown(measured, about, 1234)
    for value in measured.skill.skill:
        assert f"{value:.3f}" in text
    assert all(f"| {name} | {r2:.3f} |" in text for name, r2 in measured.probe_r2.items())
    assert "The control, a run" in text
    alone = model_card.markdown(replace(measured, control=None), about, 1234)
    assert "The control, a run" not in alone


def test_the_card_says_what_is_not_in_the_latent(card: tuple[model_card.Card, Path]) -> None:
    measured, target = card
    _, about = load(target)
    blind = replace(measured, probe_r2={"x": 0.95, "block_angle": 0.1})
    assert "cannot read block_angle out" in model_card.markdown(blind, about, 1)
    seeing = replace(measured, probe_r2={"x": 0.95})
    assert "cannot read" not in model_card.markdown(seeing, about, 1)


def test_numbers_are_json(card: tuple[model_card.Card, Path]) -> None:
    plain = json.loads(json.dumps(card[0].as_dict(), allow_nan=False))
    assert len(plain["skill_vs_persistence"]) == 2
    assert set(plain["probe_r2"]) == {"y", "x"}


def test_picture_is_a_png(card: tuple[model_card.Card, Path]) -> None:
    assert picture(card[0]).startswith(b"\x89PNG")


def test_angles_are_probed_as_cosine_and_sine() -> None:
    data = replace(toy_recording(episodes=1), state_names=("x", "block_angle"))
    names, values = model_card.quantities(data)
    assert names == ("x", "cos block_angle", "sin block_angle")
    np.testing.assert_allclose(np.hypot(values[:, 1], values[:, 2]), 1.0, atol=1e-6)


def test_probe_r2_is_one_for_linear_and_nothing_for_noise() -> None:
    z, test = torch.randn(800, 10), torch.randn(400, 10)
    mix = torch.randn(10, 2)
    assert linear_probe_r2(z, (z @ mix).numpy(), test, (test @ mix).numpy()).min() > 0.99
    noise, other = torch.randn(800, 2).numpy(), torch.randn(400, 2).numpy()
    assert linear_probe_r2(z, noise, test, other).max() < 0.1


def test_state_share_is_one_for_a_latent_made_of_the_state_and_nothing_for_noise() -> None:
    states, test = torch.randn(800, 3) * 50.0 + 900.0, torch.randn(400, 3) * 50.0 + 900.0
    mix = torch.randn(3, 10)
    share = state_share(states @ mix, states.numpy(), test @ mix, test.numpy())
    assert share > 0.99
    noise, other = torch.randn(800, 10), torch.randn(400, 10)
    assert state_share(noise, states.numpy(), other, test.numpy()) < 0.05
    half = [
        torch.cat([s[:, :3] @ mix[:, :3] / 80.0, n[:, :3]], 1)
        for s, n in ((states, noise), (test, other))
    ]
    assert 0.2 < state_share(half[0], states.numpy(), half[1], test.numpy()) < 0.9


def test_a_fused_model_says_what_it_reads_and_how_much_is_the_state(tmp_path: Path) -> None:
    about = load(Trainer(fused_recipe(), fused_recording(), tmp_path).run())
    held_out, fit = fused_recording(first=50), fused_recording()
    for recording in (held_out, fit):
        recording.states[:, 2] += torch.randn(len(recording.states)).numpy()
    card = model_card.measure(about[0], held_out, fit)
    assert card.state_share is not None
    text = model_card.markdown(card, about[1], 1)
    assert "frames of 2 cameras (front, wrist) and 3 numbers of state" in text
    assert f"explains {100 * card.state_share:.0f} % of the latents' variance" in text


def test_missing_metrics_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the run folder"):
        model_card.read_curve(tmp_path / METRICS)


def test_skill_of_copying_is_zero() -> None:
    from jetsight_train.evaluation.metrics import Skill

    errors = np.array([1.0, 2.0])
    assert Skill(errors, errors).skill.tolist() == [0.0, 0.0]
    assert math.isclose(Skill(errors / 4, errors).skill[1], 0.75)
