from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.train.toy_world import toy_recipe, toy_recording

from jetsight.errors import CollapseError, DataError, UsageError
from jetsight_train.checkpoint import load
from jetsight_train.data.columns import ProbeColumn
from jetsight_train.data.encoded import encode_recording
from jetsight_train.data.windows import Recording, WindowSampler, split
from jetsight_train.evaluation.metrics import linear_probe_r2, prediction_skill
from jetsight_train.recipe import Recipe
from jetsight_train.training.trainer import METRICS, Trainer, learning_rate


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_resume_ends_in_the_same_bits(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=8)
    whole = Trainer(recipe, data, tmp_path / "whole")
    whole.run(save_every=100)

    first = Trainer(recipe, data, tmp_path / "parts")
    first.folder.mkdir()
    for _ in range(3):
        first.train_step()
    first.save_state()
    first.train_step()  # lost by the interruption
    second = Trainer(recipe, data, tmp_path / "parts")
    second.resume()
    assert second.step == 3
    second.run(save_every=100)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(second)[name]), name


def test_another_seed_ends_elsewhere(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=4)
    other = replace(recipe, optimiser=replace(recipe.optimiser, seed=1))
    a, b = Trainer(recipe, data, tmp_path / "a"), Trainer(other, data, tmp_path / "b")
    a.run()
    b.run()
    assert not torch.equal(weights(a)["encoder.head.3.weight"], weights(b)["encoder.head.3.weight"])


def test_metrics_tell_one_story_after_resume(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=6)
    Trainer(replace(recipe, optimiser=recipe.optimiser), data, tmp_path).run(save_every=2)
    (tmp_path / "checkpoint").rename(tmp_path / "old")
    for state in (tmp_path / "state").glob("step-00000006"):
        state.rename(tmp_path / "lost")
    again = Trainer(recipe, data, tmp_path)
    again.resume()
    again.run()
    steps = [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert steps == list(range(6))


def test_resuming_with_another_recipe_is_refused(tmp_path: Path) -> None:
    data = toy_recording()
    Trainer(toy_recipe(steps=2), data, tmp_path).run()
    with pytest.raises(UsageError, match="another recipe or other data"):
        Trainer(toy_recipe(steps=3), data, tmp_path).resume()


@pytest.mark.parametrize("kind", ["vicreg", "barlow"])
def test_training_learns_the_toy_world_and_survives(tmp_path: Path, kind: str) -> None:
    prediction = 10.0 if kind == "vicreg" else 1.0
    recipe = toy_recipe(steps=250, batch=32, kind=kind, prediction=prediction)
    Trainer(recipe, toy_recording(episodes=40), tmp_path).run(save_every=1000)
    model, about = load(tmp_path / "checkpoint")
    held_out, fit = toy_recording(episodes=6, seed=9), toy_recording(episodes=12, seed=10)
    z = encode_recording(model, held_out)
    assert about.trained.steps == 250
    assert prediction_skill(model, held_out, z).skill.min() > 0.1
    r2 = linear_probe_r2(encode_recording(model, fit), fit.states, z, held_out.states)
    assert r2.min() > 0.8


def test_without_the_anti_collapse_term_the_monitor_stops_the_run(tmp_path: Path) -> None:
    recipe = toy_recipe(steps=400, batch=24, kind="none")
    trainer = Trainer(recipe, toy_recording(episodes=20), tmp_path)
    with pytest.raises(CollapseError, match="latents collapsed"):
        trainer.run(save_every=1000)
    assert not (tmp_path / "checkpoint").exists()
    assert trainer.step < 400


def test_wrong_actions_cost_skill(tmp_path: Path) -> None:
    recipe = toy_recipe(steps=150, batch=24, prediction=5.0)
    trainer = Trainer(recipe, toy_recording(episodes=20), tmp_path)
    trainer.run(save_every=1000)
    held_out = toy_recording(episodes=6, seed=9)
    z = encode_recording(trainer.model, held_out)
    right = prediction_skill(trainer.model, held_out, z).skill[0]
    mixed_up = replace(held_out, actions=held_out.actions[::-1].copy())
    assert prediction_skill(trainer.model, mixed_up, z).skill[0] < right - 0.1


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = toy_recipe(steps=100).optimiser
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[4] == pytest.approx(config.learning_rate)
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)


def test_windows_never_cross_episodes() -> None:
    data = toy_recording(episodes=3, length=12)
    sampler = WindowSampler(data, 5, 2)
    rows = sampler.rows(sampler.firsts)
    assert (rows[:, 0] // 12 == rows[:, -1] // 12).all()
    assert len(rows) == 3 * (12 - 8)


def test_blocks_are_the_actions_between_the_frames() -> None:
    data = toy_recording(episodes=1, length=12)
    sampler = WindowSampler(data, 3, 2)
    rows = sampler.rows([4])
    assert rows.tolist() == [[4, 6, 8]]
    block = torch.from_numpy(data.actions[4:6].reshape(-1))
    torch.testing.assert_close(sampler.blocks(rows)[0, 0], block)


def test_short_episodes_are_refused() -> None:
    with pytest.raises(DataError, match="record longer episodes"):
        WindowSampler(toy_recording(length=12), 8, 2)


def test_split_shares_no_episode() -> None:
    one, two = split(toy_recording(episodes=5))
    assert (len(one.starts) - 1, len(two.starts) - 1) == (3, 2)
    assert not (one.actions[:, None] == two.actions[None]).all(-1).any()


def test_a_recipe_goes_on_from_another_runs_weights(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=2)
    model, _ = load(Trainer(recipe, data, tmp_path / "first").run())
    second = Trainer(recipe, data, tmp_path / "second")
    assert not torch.equal(weights(second)["encoder.head.3.weight"], model.encoder.head[3].weight)
    second.start_from(model)
    assert torch.equal(weights(second)["encoder.head.3.weight"], model.encoder.head[3].weight)
    wider = replace(recipe, model=replace(recipe.model, latent_size=24))
    with pytest.raises(UsageError, match=r"same \[model\] section"):
        Trainer(wider, data, tmp_path / "third").start_from(model)


def test_stop_step_is_a_prefix_of_the_whole_run(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=6)
    whole = Trainer(recipe, data, tmp_path / "whole")
    for _ in range(3):
        whole.train_step()
    short = replace(recipe, optimiser=replace(recipe.optimiser, stop_step=3))
    stopped = Trainer(short, data, tmp_path / "stopped")
    stopped.run()
    assert stopped.step == 3
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(stopped)[name]), name


def test_a_context_of_one_trains_on_pairs(tmp_path: Path) -> None:
    recipe = toy_recipe(steps=2, context=1, rollout_steps=1)
    trainer = Trainer(recipe, toy_recording(), tmp_path)
    assert trainer.sampler.length == 2
    before = weights(trainer)["predictor.positions"]
    trainer.train_step()
    after = weights(trainer)["predictor.positions"]
    assert not torch.equal(after[:, 0], before[:, 0])


def frozen(steps: int = 4) -> Recipe:
    recipe = toy_recipe(steps, kind="none")
    return replace(recipe, optimiser=replace(recipe.optimiser, frozen_encoder=True))


def test_a_frozen_encoder_stays_and_its_predictor_learns(tmp_path: Path) -> None:
    data = toy_recording()
    first = Trainer(toy_recipe(steps=40), data, tmp_path / "first")
    first.run()
    trainer = Trainer(frozen(150), data, tmp_path / "second")
    trainer.start_from(first.model)
    start = trainer.train_step().loss
    target = trainer.run()
    model, _ = load(target)
    for name, value in first.model.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name]), name
    lines = (trainer.folder / METRICS).read_text().splitlines()
    last = [json.loads(line)["loss"] for line in lines[-5:]]
    assert sum(last) / 5 < 0.5 * start
    z = encode_recording(model, data)
    assert prediction_skill(model, data, z).skill[0] > 0.3


def test_resuming_with_a_frozen_encoder_ends_in_the_same_bits(tmp_path: Path) -> None:
    data, source = toy_recording(), Trainer(toy_recipe(), toy_recording(), tmp_path / "source")
    whole = Trainer(frozen(), data, tmp_path / "whole")
    whole.start_from(source.model)
    whole.run()
    parts = Trainer(frozen(), data, tmp_path / "parts")
    parts.start_from(source.model)
    parts.folder.mkdir()
    parts.train_step()
    parts.save_state()
    again = Trainer(frozen(), data, tmp_path / "parts")
    again.resume()
    again.run()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_a_frozen_encoder_needs_a_trained_one_of_its_kind(tmp_path: Path) -> None:
    data = toy_recording()
    with pytest.raises(UsageError, match="--init"):
        Trainer(frozen(), data, tmp_path / "none").run()
    other = toy_recipe()
    other = replace(other, model=replace(other.model, latent_size=8))
    with pytest.raises(UsageError, match="another one"):
        Trainer(frozen(), data, tmp_path / "other").start_from(
            Trainer(other, data, tmp_path / "wrong").model
        )


def test_bfloat16_trains_to_about_the_same_loss(tmp_path: Path) -> None:
    data, recipe = toy_recording(), toy_recipe(steps=1)
    half = replace(recipe, optimiser=replace(recipe.optimiser, compute="bf16"))
    exact = Trainer(recipe, data, tmp_path / "a").train_step().loss
    rounded = Trainer(half, data, tmp_path / "b").train_step().loss
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact  # it really was rounded


def anchored(weight: float) -> Recipe:
    recipe = toy_recipe(steps=120, batch=32, context=1, rollout_steps=1)
    return replace(
        recipe,
        objective=replace(recipe.objective, anchor=weight),
        anchors=(ProbeColumn("y", "px"), ProbeColumn("x", "px")),
    )


def read_off(trainer: Trainer, data: Recording) -> float:
    """Correlate the first dimension with the row of the square."""
    z = encode_recording(trainer.model, data).numpy()
    return abs(float(np.corrcoef(z[:, 0], data.states[:, 0])[0, 1]))


def test_anchored_dimensions_are_the_recorded_quantities(tmp_path: Path) -> None:
    data, held_out = toy_recording(episodes=24), toy_recording(seed=1)
    trainer = Trainer(anchored(50.0), data, tmp_path / "with")
    trainer.run()
    free = Trainer(toy_recipe(120, 32, context=1, rollout_steps=1), data, tmp_path / "without")
    free.run()
    assert read_off(trainer, held_out) > 0.97
    assert read_off(free, held_out) < 0.8  # nothing else makes it so


def test_anchors_name_columns_and_have_a_weight(tmp_path: Path) -> None:
    wrong = replace(anchored(1.0), anchors=(ProbeColumn("z", "px"),))
    with pytest.raises(DataError, match="no column 'z'"):
        Trainer(wrong, toy_recording(), tmp_path)
    with pytest.raises(ValueError, match="expected both or neither"):
        replace(anchored(1.0), anchors=())
