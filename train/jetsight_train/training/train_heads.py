"""Training of heads for a frozen model, with hazard thresholds: `jetsight train --probe`.

Episodes are split three ways: weights are fitted on the first part, hazard thresholds and the scale
of the support on the second, and scores are measured on the third.

Shapes: E episodes, M blocks, P quantities, G hazards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jetsight.clock import Clock, MonotonicClock
from jetsight.errors import DataError, UsageError
from jetsight_train.checkpoint import CheckpointDescription
from jetsight_train.data.action_blocks import Blocks, encoded_blocks, imagined_blocks, window_rows
from jetsight_train.data.columns import quantities
from jetsight_train.data.encoded import Tracks
from jetsight_train.data.normaliser import check_range, measure
from jetsight_train.heads import conformal, metrics
from jetsight_train.heads.labels import block_hazards, check_columns
from jetsight_train.heads.recipe import HeadsRecipe, SplitRecipe
from jetsight_train.heads.spec import HeadsDescription, HeadsTrained
from jetsight_train.model.heads import (
    HazardHead,
    HazardHeadSpec,
    Heads,
    ProbeHead,
    ProbeHeadSpec,
    SupportHead,
)
from jetsight_train.model.world_model import WorldModel
from jetsight_train.training import fit_heads
from jetsight_train.training.fit_heads import HeadFit
from jetsight_train.training.heads_state import HeadsState

PARTS = ("training", "calibration", "report")


def train_heads(
    model: WorldModel,
    about: CheckpointDescription,
    tracks: Tracks,
    recipe: HeadsRecipe,
    clock: Clock | None = None,
    state: HeadsState | None = None,
) -> HeadsDescription:
    """Train heads and put them into the model, in place of any it has.

    Args:
        model: the trained model, frozen; set to evaluation mode.
        about: its description.
        tracks: episodes encoded by it.
        recipe: settings of the heads.
        clock: clock that measures the training time.
        state: where states are kept to resume from; None for none.

    Returns:
        The description to store with the weights.

    Raises:
        DataError: a column is missing or never varies, there are too few or too short episodes, or
            too few hazardous blocks for the miss rate.
        UsageError: the recipe starts rollouts from more latents than the model keeps.
        DivergenceError: a loss, gradient or weight is not finite; earlier states are kept.
    """
    clock = clock or MonotonicClock()
    began_ns = clock.now_ns()
    model.eval()
    recipe = replace(recipe, context=_context(recipe, about, model))
    check_columns(recipe, tracks)
    train, calibration, held_out = split(tracks, recipe.split, recipe.optimiser.seed)
    # Before training, so that a recording with too little of a hazard costs no time.
    _check_hazard_counts(model, recipe, (train, calibration, held_out))
    # A fork, so that the caller's random numbers do not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.optimiser.seed)  # for the initial weights
        fit = HeadFit(recipe.optimiser, state)
        heads, counts = _fitted(model, recipe, (train, calibration), fit)
    model.heads = heads.eval().requires_grad_(False)
    measured = metrics.measure(model, recipe, held_out)
    trained = HeadsTrained(
        data_name=tracks.recording.name,
        data_sha256=tracks.recording.digest,
        frozen_sha256=about.weights.sha256,
        train_episodes=train.episodes,
        calibration_episodes=calibration.episodes,
        calibration_blocks=counts,
        torch=torch.__version__,
        wall_s=(clock.now_ns() - began_ns) / 1e9,
    )
    support = heads.support is not None
    return HeadsDescription(
        recipe, heads.probe_spec, heads.hazards, support, trained, scores=measured
    )


def _context(recipe: HeadsRecipe, about: CheckpointDescription, model: WorldModel) -> int:
    """Return the number of latents a rollout starts from: the recipe's, else that of training."""
    history = model.config.history
    if recipe.context > history:
        raise UsageError(
            f"recipe {recipe.name!r} starts rollouts from {recipe.context} latents, but the model "
            f"keeps {history}; set context to at most that, or to 0"
        )
    return recipe.context or about.recipe.objective.context or history


def split(tracks: Tracks, shares: SplitRecipe, seed: int) -> tuple[Tracks, Tracks, Tracks]:
    """Split episodes at random into training, calibration and report.

    Raises:
        DataError: there are fewer than three episodes.
    """
    count = tracks.episodes
    calibration, report = (max(1, round(s * count)) for s in (shares.calibration, shares.report))
    if calibration + report >= count:
        raise DataError(
            f"{tracks.recording.name}: {count} episodes cannot be split into training, "
            "calibration and report; expected at least 3 and smaller shares, record more"
        )
    order = np.random.default_rng((seed, count)).permutation(count)
    borders = np.split(order, [report, report + calibration])
    held_out, middle, train = (tracks.only(sorted(part.tolist())) for part in borders)
    return train, middle, held_out


def _fitted(
    model: WorldModel, recipe: HeadsRecipe, parts: tuple[Tracks, Tracks], fit: HeadFit
) -> tuple[Heads, tuple[int, ...]]:
    """Train heads; also returns the number of hazardous blocks behind each threshold."""
    (train, calibration), size = parts, model.config.latent_size
    seed = recipe.optimiser.seed
    imagined = imagined_blocks(model, train, recipe.windows, seed, recipe.context)
    probe = spec = hazard = support = None
    hazards: tuple[HazardHeadSpec, ...] = ()
    counts: tuple[int, ...] = ()
    if recipe.probe:
        spec, values = _probe_targets(recipe, train)
        probe = ProbeHead(size, len(spec.quantities), recipe.hidden)
        later = values[torch.from_numpy(imagined.rows + model.timing.action_block)]
        fit_heads.fit_probe(probe, (train.latents, values), (imagined.after, later), fit)
    if recipe.hazard:
        hazard = HazardHead(size, model.action_size, len(recipe.hazard), recipe.hidden)
        encoded = encoded_blocks(model, train)
        first, second = ((b, _labels(model, recipe, train, b)) for b in (encoded, imagined))
        fit_heads.fit_hazard(hazard, first, second, fit, model.action_std)
        hazards, counts = _calibrated(model, hazard, recipe, calibration)
    if recipe.support:
        support = SupportHead(size)
        fit_heads.fit_support(support, train.latents, calibration.latents)
    return Heads(probe, hazard, support, spec, hazards), counts


def _probe_targets(recipe: HeadsRecipe, tracks: Tracks) -> tuple[ProbeHeadSpec, Tensor]:
    names, units, values = quantities(recipe.probe, tracks.columns)
    check_range(values, names, tracks.recording.name)
    scale = measure(values, names)
    if scale.fixed:
        raise DataError(
            f"{tracks.recording.name}: {scale.fixed[0]!r} never varies, so a probe cannot learn "
            "it; leave its column out of the recipe or record more"
        )
    return ProbeHeadSpec(names, units, scale.std), torch.from_numpy(values)


def _labels(model: WorldModel, recipe: HeadsRecipe, tracks: Tracks, blocks: Blocks) -> Tensor:
    rules = [entry.rule for entry in recipe.hazard]
    happens = block_hazards(rules, tracks.columns, blocks.rows, model.timing.action_block)
    return torch.from_numpy(happens.astype(np.float32))


def _calibrated(
    model: WorldModel, head: HazardHead, recipe: HeadsRecipe, tracks: Tracks
) -> tuple[tuple[HazardHeadSpec, ...], tuple[int, ...]]:
    """Set a conformal threshold per hazard on imagined blocks of the calibration episodes."""
    # A planner reads the head on imagined latents, so its threshold is set on such.
    blocks = imagined_blocks(model, tracks, None, context=recipe.context)
    logits = metrics.hazard_logits(head, blocks)
    hazardous = _labels(model, recipe, tracks, blocks).numpy() > 0.5
    specs = tuple(
        HazardHeadSpec(
            entry.name,
            conformal.threshold(logits[hazardous[:, i], i], entry.miss_rate),
            entry.miss_rate,
            entry.rule,
        )
        for i, entry in enumerate(recipe.hazard)
    )
    return specs, tuple(int(count) for count in hazardous.sum(0))


def _check_hazard_counts(model: WorldModel, recipe: HeadsRecipe, parts: Sequence[Tracks]) -> None:
    """Refuse parts with too few hazardous blocks, before training."""
    if not recipe.hazard:
        return
    rules, block = [entry.rule for entry in recipe.hazard], model.timing.action_block
    counts = []
    for part in parts:
        windows = window_rows(model, part, context=recipe.context)
        # A block imagined from several windows is one piece of evidence, so it counts once.
        rows = np.unique(windows[:, recipe.context - 1 : -1])
        counts.append(block_hazards(rules, part.columns, rows, block).sum(0).tolist())
    for i, entry in enumerate(recipe.hazard):
        need = (1, conformal.needed(entry.miss_rate), 1)
        for part_name, count, least in zip(PARTS, counts, need, strict=True):
            if count[i] < least:
                raise DataError(
                    f"{parts[0].recording.name}: hazard {entry.name!r} happens in {count[i]} "
                    f"blocks of the {part_name} episodes, expected at least {least} for a miss "
                    f"rate of {entry.miss_rate:g}; record more of it, or set a larger miss_rate"
                )
