"""Numbers that are not finite stop every stage at the first one, and earlier states are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.train.toy_heads import heads_recipe, saved, tracks, world
from helpers.train.toy_world import toy_recipe, toy_recording
from torch import nn

from jetsight.errors import DivergenceError, JetsightError
from jetsight_train import checkpoint
from jetsight_train.collapse import latent_health
from jetsight_train.data.action_blocks import imagined_blocks
from jetsight_train.data.encoded import encode_recording
from jetsight_train.evaluation import model_card
from jetsight_train.evaluation.metrics import linear_probe_r2
from jetsight_train.recipe import Recipe
from jetsight_train.training.divergence import finite_weights
from jetsight_train.training.heads_state import HeadsRun, HeadsState
from jetsight_train.training.train_heads import train_heads
from jetsight_train.training.trainer import METRICS, Trainer

DATA = toy_recording()


def at_rate(rate: float, steps: int = 30, **optimiser: Any) -> Recipe:
    plain = toy_recipe(steps=steps)
    return replace(
        plain, optimiser=replace(plain.optimiser, learning_rate=rate, warmup_steps=0, **optimiser)
    )


def spoiled(trainer: Trainer, step: int, spoil: Callable[[Trainer], None]) -> None:
    """Spoil the trainer before `step`."""
    plain = trainer.train_step

    def train_step() -> Any:
        if trainer.step == step:
            spoil(trainer)
        return plain()

    trainer.train_step = train_step  # type: ignore[method-assign]


def weight_is(value: float) -> Callable[[Trainer], None]:
    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            next(trainer.model.predictor.parameters()).fill_(value)

    return spoil


def no_gradient(trainer: Trainer) -> None:
    """Make the gradient infinite under a finite loss."""
    parameter = next(trainer.model.predictor.parameters())
    parameter.register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (weight_is(float("nan")), "the loss is nan"),
        (no_gradient, "the gradient has the norm"),
    ],
)
def test_the_first_number_that_is_not_finite_stops_the_run(
    tmp_path: Path, spoil: Callable[[Trainer], None], says: str
) -> None:
    trainer = Trainer(toy_recipe(steps=9), DATA, tmp_path)
    spoiled(trainer, 5, spoil)
    with pytest.raises(DivergenceError, match=f"training stopped at step 5: {says}") as caught:
        trainer.run(save_every=3)
    assert caught.value.exit_code == 9
    assert "optimiser.learning_rate" in str(caught.value)
    assert trainer.state.steps() == [0, 3]
    assert not (tmp_path / "checkpoint").exists()
    again = Trainer(toy_recipe(steps=9), DATA, tmp_path)
    again.resume()
    assert again.step == 3
    again.run()  # the control: what was kept is sound
    checkpoint.load(tmp_path / "checkpoint")


def test_a_run_that_diverges_at_once_goes_on_with_a_lower_rate(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        Trainer(at_rate(1e30), DATA, tmp_path).run()
    lower = Trainer(at_rate(1e-3, grad_clip=0.5), DATA, tmp_path)
    lower.resume()
    lower.run()
    steps = [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert steps == list(range(30))
    assert checkpoint.load(tmp_path / "checkpoint")[1].recipe.optimiser.learning_rate == 1e-3


@pytest.mark.parametrize("rate", [1e3, 1e8, 1e30])
def test_no_rate_ends_in_anything_but_a_reason(tmp_path: Path, rate: float) -> None:
    try:
        Trainer(at_rate(rate, steps=12), DATA, tmp_path).run()
    except JetsightError as error:
        assert error.exit_code == 9  # noqa: PT017
    else:
        checkpoint.load(tmp_path / "checkpoint")  # finite to the end, and so is its file


def test_a_frozen_encoder_that_is_broken_is_found_before_the_first_step(tmp_path: Path) -> None:
    recipe = at_rate(1e-3, frozen_encoder=True)
    trainer, donor = Trainer(recipe, DATA, tmp_path / "b"), Trainer(recipe, DATA, tmp_path / "a")
    weights = donor.model
    with torch.no_grad():
        next(weights.encoder.parameters()).fill_(float("nan"))
    trainer.start_from(weights)
    with pytest.raises(DivergenceError, match=r"toy-0: 240 of 240 encoded latents"):
        trainer.run()


def test_the_monitor_and_the_probe_never_raise_an_error_of_linear_algebra() -> None:
    z = torch.randn(50, 4)
    z[3, 1] = float("nan")
    with pytest.raises(DivergenceError, match="latents are not finite"):
        latent_health(z)
    latent_health(torch.zeros(50, 4))  # collapsed, but finite
    still = np.ones((50, 2), np.float32)
    still[:, 0] = np.arange(50)
    r2 = linear_probe_r2(torch.zeros(50, 4), still, torch.zeros(50, 4), still)
    assert r2[0] == pytest.approx(0.0)
    assert np.isnan(r2[1])


@pytest.mark.parametrize("module", ["encoder", "predictor"])
def test_a_card_of_a_broken_model_is_refused(module: str) -> None:
    trainer = Trainer(toy_recipe(), DATA, Path("unused"))
    model_card.measure(trainer.model, DATA, DATA)  # the control
    with torch.no_grad():
        next(getattr(trainer.model, module).parameters()).fill_(float("inf"))
    with pytest.raises(DivergenceError, match=r"latents are not finite"):
        model_card.measure(trainer.model, DATA, DATA)


def test_a_card_leaves_out_what_never_varies() -> None:
    trainer = Trainer(toy_recipe(), DATA, Path("unused"))
    states = DATA.states.copy()
    states[:, 1] = 5.0
    card = model_card.measure(trainer.model, replace(DATA, states=states), DATA)
    assert list(card.probe_r2) == ["y"]
    json.dumps(card.as_dict(), allow_nan=False)


def test_heads_stop_at_the_first_broken_loss_and_keep_a_state(tmp_path: Path) -> None:
    _, about, _ = saved(tmp_path / "frozen")
    broken = heads_recipe(20)
    broken = replace(broken, optimiser=replace(broken.optimiser, learning_rate=1e30))
    run = HeadsRun(broken, "0" * 64, about.weights.sha256)
    state = HeadsState(tmp_path / "run", run, 5, resume=False)
    with pytest.raises(DivergenceError, match="training of the probe head stopped at step"):
        train_heads(world(), about, tracks(), broken, state=state)
    assert (tmp_path / "run/state/probe-00000000").is_dir()
    train_heads(world(), about, tracks(), heads_recipe(20))  # the control


def test_latents_that_are_not_finite_train_no_head() -> None:
    found = tracks()
    found.latents[:, 0] = float("inf")
    with pytest.raises(DivergenceError, match="imagined latents are not finite"):
        imagined_blocks(world(), found, None)


def test_weights_are_found_before_they_overflow() -> None:
    layer = nn.Linear(2, 2)
    finite_weights(layer, "training", 1)
    with torch.no_grad():
        layer.weight.fill_(6e17)
    with pytest.raises(DivergenceError, match=r"the weights have the norm 1\.2e"):
        finite_weights(layer, "training", 1)


def test_encoding_names_the_recording(tmp_path: Path) -> None:
    model = Trainer(toy_recipe(), DATA, tmp_path).model
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceError, match="toy-0: 240 of 240 encoded"):
        encode_recording(model, DATA)
