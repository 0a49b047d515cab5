"""Scores of heads on held-out episodes, for encoded and for imagined latents.

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
    HeadsScores,
    QuantityScore,
    SupportScore,
)
from jetsight_train.model.heads import HazardHead, Heads, ProbeHead, SupportHead
from jetsight_train.model.world_model import WorldModel


def measure(model: WorldModel, recipe: HeadsRecipe, tracks: Tracks) -> HeadsScores:
    """Measure all heads of a model on episodes that they were not trained on.

    Args:
        model: a world model with heads.
        recipe: the recipe of its heads.
        tracks: held-out episodes with the recipe's columns, encoded by this model.

    Raises:
        DataError: the episodes lack a column, or are too short to roll out over.
    """
    check_columns(recipe, tracks)
    heads, blocks = model.heads, imagined_blocks(model, tracks, None, context=recipe.context)
    values: tuple[QuantityScore, ...] = ()
    angles: tuple[AngleScore, ...] = ()
    if heads.probe is not None:
        values, angles = _probe_scores(heads.probe, recipe, tracks, blocks, model)
    hazards = _hazard_scores(heads, heads.hazard, tracks, blocks, model) if heads.hazard else ()
    support = _support_score(heads.support, tracks.latents, blocks) if heads.support else None
    return HeadsScores(tracks.recording.name, tracks.episodes, values, angles, hazards, support)


@torch.no_grad()
def hazard_logits(head: HazardHead, blocks: Blocks) -> FloatArray:
    """Compute the hazard logits of every block: `[M, G]`."""
    return np.asarray(head(blocks.before, blocks.actions, blocks.after).numpy())


@torch.no_grad()
def _probe_scores(
    head: ProbeHead, recipe: HeadsRecipe, tracks: Tracks, blocks: Blocks, model: WorldModel
) -> tuple[tuple[QuantityScore, ...], tuple[AngleScore, ...]]:
    names, units, truth = quantities(recipe.probe, tracks.columns)
    later = truth[blocks.rows + model.timing.action_block]
    encoded, imagined = head(tracks.latents).numpy(), head(blocks.after).numpy()
    pairs = ((encoded, truth), (imagined, later))
    errors = [np.median(np.abs(predicted - real), axis=0) for predicted, real in pairs]
    r2 = [_r2(predicted, real) for predicted, real in pairs]
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


def _r2(predicted: FloatArray, real: FloatArray) -> FloatArray:
    residual = np.square(real - predicted, dtype=np.float64).sum(0)
    total = np.square(real - real.mean(0), dtype=np.float64).sum(0)
    # The bound is for a quantity that is constant on the held-out episodes.
    return np.asarray(1.0 - residual / np.maximum(total, 1e-12))


def _degrees(predicted: FloatArray, real: FloatArray) -> float:
    """Return the median absolute angle between directions given as cosine and sine `[M, 2]`."""
    turn = np.arctan2(predicted[:, 1], predicted[:, 0]) - np.arctan2(real[:, 1], real[:, 0])
    # The angle of exp(i turn) is the turn wrapped to -180..180 degrees.
    return float(np.median(np.abs(np.rad2deg(np.angle(np.exp(1j * turn))))))


def _hazard_scores(
    heads: Heads, head: HazardHead, tracks: Tracks, blocks: Blocks, model: WorldModel
) -> tuple[HazardScore, ...]:
    rules = [spec.rule for spec in heads.hazards]
    labels = block_hazards(rules, tracks.columns, blocks.rows, model.timing.action_block)
    logits = hazard_logits(head, blocks)
    steps = [blocks.ahead == k for k in range(1, model.config.horizon + 1)]
    scores = []
    for column, truth, spec in zip(logits.T, labels.T, heads.hazards, strict=True):
        at = spec.threshold
        score = HazardScore(
            name=spec.name,
            blocks=len(truth),
            hazardous_rate=float(truth.mean()),
            miss_rate=conformal.miss_rate(column, truth, at),
            false_alarm_rate=conformal.false_alarm_rate(column, truth, at),
            auc=conformal.area_under_curve(column, truth),
            miss_rate_ahead=tuple(conformal.miss_rate(column[k], truth[k], at) for k in steps),
        )
        scores.append(score)
    return tuple(scores)


@torch.no_grad()
def _support_score(head: SupportHead, latents: Tensor, blocks: Blocks) -> SupportScore:
    return SupportScore(*(float((head(z) > 1.0).double().mean()) for z in (latents, blocks.after)))
