"""What heads read on held-out episodes, from encoded latents and from imagined ones.

Shapes: M latents or blocks, P quantities, G hazards, H horizon.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jetsight_train.data.action_blocks import Blocks, imagined_blocks
from jetsight_train.data.columns import FloatArray, quantities
from jetsight_train.data.encoded import Tracks
from jetsight_train.heads import conformal
from jetsight_train.heads.labels import block_hazards, check_columns
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.heads.spec import (
    AngleScore,
    HazardScore,
    HeadScores,
    QuantityScore,
    SupportScore,
)
from jetsight_train.model.heads import HazardHead, Heads, ProbeHead, SupportHead
from jetsight_train.model.world_model import WorldModel


def measure(model: WorldModel, recipe: HeadsRecipe, tracks: Tracks) -> HeadScores:
    """Everything the model's heads read on episodes they did not learn from.

    Args:
        model: a world model with heads.
        recipe: what its heads were asked to read.
        tracks: held-out episodes with the recipe's columns, encoded by this model.

    Raises:
        DataError: the episodes lack a column, or are too short to roll out over.
    """
    check_columns(recipe, tracks)
    heads, blocks = model.heads, imagined_blocks(model, tracks, None, context=recipe.context)
    readings: tuple[QuantityScore, ...] = ()
    angles: tuple[AngleScore, ...] = ()
    if heads.probe is not None:
        readings, angles = _probe_scores(heads.probe, recipe, tracks, blocks, model)
    hazards = _hazard_scores(heads, heads.hazard, tracks, blocks, model) if heads.hazard else ()
    support = _support_score(heads.support, tracks.latents, blocks) if heads.support else None
    return HeadScores(tracks.recording.name, tracks.episodes, readings, angles, hazards, support)


@torch.no_grad()
def hazard_logits(head: HazardHead, blocks: Blocks) -> FloatArray:
    """Logits of every block: `[M, G]`."""
    return np.asarray(head(blocks.before, blocks.actions, blocks.after).numpy())


@torch.no_grad()
def _probe_scores(
    head: ProbeHead, recipe: HeadsRecipe, tracks: Tracks, blocks: Blocks, model: WorldModel
) -> tuple[tuple[QuantityScore, ...], tuple[AngleScore, ...]]:
    names, units, truth = quantities(recipe.probe, tracks.columns)
    later = truth[blocks.rows + model.timing.action_block]
    read, read_later = head(tracks.latents).numpy(), head(blocks.after).numpy()
    pairs = ((read, truth), (read_later, later))
    errors = [np.median(np.abs(guess - real), axis=0) for guess, real in pairs]
    r2 = [_r2(guess, real) for guess, real in pairs]
    scores = tuple(
        QuantityScore(name, unit, *(float(part[i]) for part in (*r2, *errors)))
        for i, (name, unit) in enumerate(zip(names, units, strict=True))
    )
    angles = tuple(
        AngleScore(name[len("cos ") :], *(_degrees(*(x[:, i : i + 2] for x in p)) for p in pairs))
        for i, name in enumerate(names)
        if name.removeprefix("cos ") in {c.column for c in recipe.probe if c.is_angle}
    )
    return scores, angles


def _r2(guess: FloatArray, real: FloatArray) -> FloatArray:
    residual = np.square(real - guess, dtype=np.float64).sum(0)
    total = np.square(real - real.mean(0), dtype=np.float64).sum(0)
    return np.asarray(1.0 - residual / np.maximum(total, 1e-12))


def _degrees(guess: FloatArray, real: FloatArray) -> float:
    """Median absolute angle between two directions given as cosine and sine `[M, 2]`."""
    turn = np.arctan2(guess[:, 1], guess[:, 0]) - np.arctan2(real[:, 1], real[:, 0])
    return float(np.median(np.abs(np.rad2deg(np.angle(np.exp(1j * turn))))))


def _hazard_scores(
    heads: Heads, head: HazardHead, tracks: Tracks, blocks: Blocks, model: WorldModel
) -> tuple[HazardScore, ...]:
    rules = [spec.rule for spec in heads.hazards]
    labels = block_hazards(rules, tracks.columns, blocks.rows, model.timing.action_block)
    logits = hazard_logits(head, blocks)
    ahead = range(1, model.config.horizon + 1)
    scores = []
    for i, spec in enumerate(heads.hazards):
        column, truth, at = logits[:, i], labels[:, i], spec.threshold
        steps = [blocks.ahead == k for k in ahead]
        scores.append(
            HazardScore(
                spec.name,
                len(truth),
                float(truth.mean()),
                conformal.miss_rate(column, truth, at),
                conformal.false_alarm_rate(column, truth, at),
                conformal.area_under_curve(column, truth),
                tuple(conformal.miss_rate(column[some], truth[some], at) for some in steps),
            )
        )
    return tuple(scores)


@torch.no_grad()
def _support_score(head: SupportHead, latents: Tensor, blocks: Blocks) -> SupportScore:
    return SupportScore(*(float((head(z) > 1.0).double().mean()) for z in (latents, blocks.after)))
