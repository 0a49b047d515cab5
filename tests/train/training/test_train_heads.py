from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.train.toy_heads import KEEP_OUT, B, D, K, heads_recipe, recording, saved, tracks, world

from jetsight.errors import DataError, UsageError
from jetsight_train.checkpoint import CheckpointDescription
from jetsight_train.data.action_blocks import imagined_blocks
from jetsight_train.data.encoded import Tracks, tracks_of
from jetsight_train.heads import conformal, metrics
from jetsight_train.heads.labels import block_hazards
from jetsight_train.heads.recipe import HazardRecipe, ProbeColumn, SplitRecipe
from jetsight_train.heads.spec import HeadsDescription
from jetsight_train.model.hazard_rules import ColumnRule
from jetsight_train.model.heads import SupportHead
from jetsight_train.model.world_model import WorldModel
from jetsight_train.training import fit_heads
from jetsight_train.training.train_heads import split, train_heads


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> CheckpointDescription:
    return saved(tmp_path_factory.mktemp("toy") / "checkpoint")[1]


@pytest.fixture(scope="module")
def trained(about: CheckpointDescription) -> tuple[WorldModel, HeadsDescription]:
    model = world()
    recipe = heads_recipe(400, split=SplitRecipe(0.5, 0.1))
    return model, train_heads(model, about, tracks(120), recipe)


def test_the_model_is_bit_identical_and_training_repeats(about: CheckpointDescription) -> None:
    models = [world(), world()]
    before = {name: value.clone() for name, value in models[0].state_dict().items()}
    state = torch.random.get_rng_state()
    for model in models:
        model.train()  # frozen means evaluation mode, whatever it was in
        train_heads(model, about, tracks(), heads_recipe(20))
    assert torch.equal(state, torch.random.get_rng_state())
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], value) for name, value in before.items())
    assert first.keys() > before.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not models[0].training


def test_another_seed_gives_other_weights(about: CheckpointDescription) -> None:
    recipe = heads_recipe(20)
    other = replace(recipe, optimiser=replace(recipe.optimiser, seed=1))
    models = [world(), world()]
    for model, plan in zip(models, (recipe, other), strict=True):
        train_heads(model, about, tracks(), plan)
    a, b = (model.heads.probe.mlp[0].weight for model in models)  # type: ignore[union-attr]
    assert not torch.equal(a, b)


def test_the_probe_reads_new_episodes(trained: tuple[WorldModel, HeadsDescription]) -> None:
    model, heads = trained
    read = metrics.measure(model, heads.recipe, tracks(10, seed=9))
    position = read.quantities[0]
    assert (position.name, position.unit) == ("x", "m")
    assert min(position.r2, position.r2_imagined) > 0.97
    assert max(position.median_error, position.median_error_imagined) < 0.4
    (angle,) = read.angles
    assert angle.name == "heading"
    assert max(angle.median_error_deg, angle.median_error_imagined_deg) < 15.0


def test_a_probe_of_shuffled_values_reads_nothing(about: CheckpointDescription) -> None:
    data, model = tracks(), world()
    mixed = np.random.default_rng(0).permutation(data.columns["x"])
    heads = train_heads(
        model, about, replace(data, columns={**data.columns, "x": mixed}), heads_recipe(hazard=())
    )
    assert heads.scores.quantities[0].r2 < 0.1


def judged(model: WorldModel, data: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of imagined blocks, and their labels."""
    blocks = imagined_blocks(model, data, None)
    assert model.heads.hazard is not None
    rules = [spec.rule for spec in model.heads.hazards]
    truth = block_hazards(rules, data.columns, blocks.rows, B)[:, 0]
    return metrics.hazard_logits(model.heads.hazard, blocks)[:, 0], truth


def test_the_hazard_threshold_keeps_its_promise(
    trained: tuple[WorldModel, HeadsDescription],
) -> None:
    model, heads = trained
    logits, truth = judged(model, tracks(120, seed=5))
    (spec,) = heads.hazards
    assert conformal.area_under_curve(logits, truth) > 0.97  # type: ignore[operator]
    assert conformal.miss_rate(logits, truth, spec.threshold) <= 0.08  # type: ignore[operator]
    assert conformal.false_alarm_rate(logits, truth, spec.threshold) < 0.2  # type: ignore[operator]
    (score,) = heads.scores.hazards
    assert score.miss_rate is not None
    assert len(score.miss_rate_ahead) == model.config.horizon
    assert heads.trained.calibration_blocks[0] >= conformal.needed(spec.miss_rate)


def test_a_threshold_of_shuffled_labels_flags_everything(
    trained: tuple[WorldModel, HeadsDescription],
) -> None:
    model, _ = trained
    logits, truth = judged(model, tracks(60, seed=5))
    mixed = np.random.default_rng(0).permutation(truth)
    at = conformal.threshold(logits[mixed], 0.05)
    assert conformal.false_alarm_rate(logits, truth, at) > 0.8  # type: ignore[operator]


def by_chance(data: Tracks, seed: int) -> Tracks:
    """Add a recorded hazard that no input predicts, so that a head can only memorise it."""
    flags = np.random.default_rng(seed).random(len(data.latents)) < 0.1
    return replace(data, columns={**data.columns, "bump": flags.astype(np.float32)})


def test_a_threshold_of_training_blocks_breaks_the_promise(about: CheckpointDescription) -> None:
    bump = HazardRecipe("bump", recorded=ColumnRule("bump"), miss_rate=0.2)
    recipe = heads_recipe(400, probe=(), hazard=(bump,), hidden=(64,), split=SplitRecipe(0.6, 0.1))
    data, model = by_chance(tracks(40), 0), world()
    heads = train_heads(model, about, data, recipe)
    train, _, _ = split(data, recipe.split, recipe.optimiser.seed)
    logits, truth = judged(model, train)
    naive = conformal.threshold(logits[truth], 0.2)
    logits, truth = judged(model, by_chance(tracks(60, seed=5), 1))
    honest = conformal.miss_rate(logits, truth, heads.hazards[0].threshold)
    assert honest is not None
    assert honest < 0.27
    assert conformal.miss_rate(logits, truth, naive) > 0.35  # type: ignore[operator]


def test_support_is_one_for_99_percent_and_large_off_the_data() -> None:
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([2.0] * (D - 1) + [0.2])
    train, other, new = (torch.randn(n, D, generator=rng) * spread for n in (2000, 2000, 2000))
    head = SupportHead(D)
    fit_heads.fit_support(head, train, other)
    assert (head(other) <= 1.0).float().mean() == pytest.approx(0.99, abs=0.002)
    assert (head(new) <= 1.0).float().mean() == pytest.approx(0.99, abs=0.008)
    off, along = torch.zeros(D), torch.zeros(D)
    off[-1], along[0] = 4.0, 4.0  # as long, but one of them where the data never goes
    assert head(off) > 1.0 > head(along)


def test_support_of_latents_that_never_vary_stays_finite() -> None:
    head = SupportHead(D)
    fit_heads.fit_support(head, torch.ones(50, D), torch.ones(50, D))
    assert torch.isfinite(head(torch.randn(5, D))).all()
    assert head(torch.ones(D)) <= 1.0


def test_episodes_are_split_whole() -> None:
    data = tracks(10)
    marked = replace(data, columns={"e": np.repeat(np.arange(10, dtype=np.float32), 40)})
    parts = split(marked, SplitRecipe(0.3, 0.2), 0)
    values = [set(np.unique(part.columns["e"])) for part in parts]
    assert [len(part) for part in values] == [5, 3, 2]
    assert set.union(*values) == set(range(10))
    assert [len(part.latents) for part in parts] == [200, 120, 80]


def test_a_missing_column_names_the_nearest(about: CheckpointDescription) -> None:
    recipe = heads_recipe(probe=(ProbeColumn("headin", "rad"),))
    with pytest.raises(DataError, match=r"toy-0: no column 'headin' .* did you mean 'heading'"):
        train_heads(world(), about, tracks(), recipe)


def test_rollouts_start_as_the_model_was_trained(about: CheckpointDescription) -> None:
    pairs = replace(about.recipe, objective=replace(about.recipe.objective, context=1))
    alone = replace(about, recipe=pairs)
    plan = heads_recipe(2)
    assert train_heads(world(), alone, tracks(), plan).recipe.context == 1
    assert train_heads(world(), about, tracks(), plan).recipe.context == K
    assert train_heads(world(), alone, tracks(), replace(plan, context=K)).recipe.context == K
    with pytest.raises(UsageError, match="set context to at most that"):
        train_heads(world(), about, tracks(), replace(plan, context=K + 1))


def test_what_never_varies_is_refused(about: CheckpointDescription) -> None:
    data = tracks()
    still = {**data.columns, "x": np.full_like(data.columns["x"], 3.0)}
    with pytest.raises(DataError, match="'x' never varies"):
        train_heads(world(), about, replace(data, columns=still), heads_recipe(hazard=()))


@pytest.mark.parametrize(("episodes", "words"), [(2, "cannot be split"), (4, "happens in")])
def test_too_little_data_is_refused_before_training(
    about: CheckpointDescription, episodes: int, words: str
) -> None:
    model = world()
    with pytest.raises(DataError, match=words):
        train_heads(model, about, tracks(episodes), heads_recipe())
    assert model.heads.is_empty


def test_blocks_imagined_twice_count_once(about: CheckpointDescription) -> None:
    rare = replace(KEEP_OUT, miss_rate=0.004)  # views are 3 times as many as blocks
    with pytest.raises(DataError, match=r"expected at least 249 for a miss rate of 0\.004"):
        train_heads(world(), about, tracks(60), heads_recipe(hazard=(rare,)))


def test_episodes_shorter_than_a_rollout_are_refused(about: CheckpointDescription) -> None:
    with pytest.raises(DataError, match="no episode is long enough"):
        train_heads(world(), about, tracks(20, length=6), heads_recipe())


def test_data_of_another_robot_is_refused() -> None:
    whole, model = recording(3), world()
    with pytest.raises(DataError, match=r"\['action_0'\], but the model takes \['dx', 'dy'\]"):
        tracks_of(model, replace(whole, actions=whole.actions[:, :1]))
    with pytest.raises(DataError, match="frames are 4x4, but the model takes 8x8"):
        tracks_of(model, replace(whole, frames_u8=whole.frames_u8[:, :4, :4]))
    with pytest.raises(DataError, match="recorded at 30 Hz, but the model steps at 10 Hz"):
        tracks_of(model, replace(whole, fps=30.0))


def test_gaps_in_states_are_refused() -> None:
    whole = recording(3)
    tracks_of(world(), whole)
    whole.states[7, 1] = np.nan
    with pytest.raises(DataError, match="column 'y' has NaN or infinity at tick 7"):
        tracks_of(world(), whole)
