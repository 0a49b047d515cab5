"""Objectives against collapse, each a plain function of latents, with the field's constants.

Shapes: N samples, D latent size, K prediction steps; `predicted` and `target` are `[N, D]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

VICREG_MARGIN = 1.0  # gamma in VICReg, arXiv 2105.04906, section 4.1
VICREG_EPS = 1e-4
BARLOW_REDUNDANCY = 0.0051  # lambda in Barlow Twins, arXiv 2103.03230, section 2.2
BARLOW_EPS = 1e-5  # BatchNorm1d's, which the official code normalises with


def variance_term(z: Tensor, margin: float = VICREG_MARGIN, eps: float = VICREG_EPS) -> Tensor:
    """VICReg's variance term: mean over D of `relu(margin - sqrt(Var(z) + eps))`; `z [N, D]`."""
    std = torch.sqrt(z.var(dim=0) + eps)
    return functional.relu(margin - std).mean()


def covariance_term(z: Tensor) -> Tensor:
    """VICReg's covariance term: squared off-diagonal covariances, summed, over D; `z [N, D]`."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return off_diagonal(covariance).square().sum() / z.shape[1]


def temporal_term(z: Tensor) -> Tensor:
    """Squared change from one frame to the next, mean over D; `z [N, T, D]`.

    The slowness prior of PLDM (arXiv 2502.14819) and EB-JEPA (arXiv 2602.03604): without it the
    dimensions that variance and covariance ask for go to whatever moves fastest.
    """
    return (z[:, 1:] - z[:, :-1]).square().mean()


def motion_term(z: Tensor, margin: float = VICREG_MARGIN) -> Tensor:
    """VICReg's variance term on the change from one frame to the next; `z [N, T, D]`.

    PLDM's variance over time (arXiv 2502.14819), per step: dimensions that have to change keep what
    moves, and leave what stays to the others. Two independent draws differ by sqrt(2) times their
    spread, so the change is scaled by that.
    """
    change = (z[:, 1:] - z[:, :-1]).flatten(0, 1) / math.sqrt(2.0)
    return variance_term(change, margin)


def anchor_term(z: Tensor, anchors: Tensor) -> Tensor:
    """Squared distance of the first dimensions from recorded quantities; `z [..., D]`, `[..., P]`.

    Where a robot records what its task is about (its own pose, a tracked object's), that much of
    the latent need not be found without labels; the other dimensions still are.
    """
    return functional.mse_loss(z[..., : anchors.shape[-1]], anchors)


def cross_correlation(first: Tensor, second: Tensor, eps: float = BARLOW_EPS) -> Tensor:
    """Correlation of every dimension of `first` with every one of `second`: `[D, D]`."""

    def standardised(z: Tensor) -> Tensor:
        return (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, unbiased=False) + eps)

    return standardised(first).T @ standardised(second) / len(first)


def off_diagonal(matrix: Tensor) -> Tensor:
    """Everything but the diagonal of a square matrix, flattened."""
    n = matrix.shape[0]
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and the weight of each of its terms.

    The defaults of `prediction`, `variance`, `covariance` are VICReg's 25, 25, 1; `redundancy`
    is Barlow Twins' lambda, and `barlow` the weight of its whole loss. `temporal` weighs the
    slowness prior, which either objective may add, and `slow_share` is the share of the dimensions
    it acts on: those keep what stays, the others are free for what moves; `motion` makes them keep
    it. `rollout_steps` is how
    far training rolls the predictor out; two serve simulated robots best (arXiv 2512.24497).
    `context` is how many frames a rollout starts from, 0 for all K of the model: with one, a window
    is a pair of frames, and a batch of the same cost shows several times as many scenes.
    `anchor` weighs the recipe's anchors: recorded quantities that the first dimensions have to be.
    """

    kind: Literal["vicreg", "barlow", "none"]
    prediction: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    barlow: float = 1.0
    redundancy: float = BARLOW_REDUNDANCY
    temporal: float = 0.0
    slow_share: float = 1.0
    motion: float = 0.0
    rollout_steps: int = 2
    context: int = 0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse windows without a frame to start from, or to predict."""
        if self.rollout_steps < 1 or self.context < 0:
            raise ValueError("rollout_steps must be at least 1, and context at least 0")
        if self.motion and not 0.0 <= self.slow_share < 1.0:
            raise ValueError("motion acts on the share slow_share leaves over: make that below 1")


def vicreg(
    predicted: Tensor, target: Tensor, latents: Tensor, config: ObjectiveConfig
) -> dict[str, Tensor]:
    """VICReg with prediction in place of invariance (arXiv 2105.04906).

    Args:
        predicted: `[N, D]` latents the predictor expects.
        target: `[N, D]` latents the encoder gives for the same frames.
        latents: `[M, D]` all encoded latents of the batch, which variance and covariance act on.
        config: weights of the three terms.

    Returns:
        The weighted terms; their sum is the loss.
    """
    return {
        "prediction": config.prediction * functional.mse_loss(predicted, target),
        "variance": config.variance * variance_term(latents),
        "covariance": config.covariance * covariance_term(latents),
    }


def barlow_twins(predicted: Tensor, target: Tensor, config: ObjectiveConfig) -> dict[str, Tensor]:
    """Barlow Twins between what was predicted and what was encoded (arXiv 2103.03230).

    The cross-correlation is blind to scale and offset, which a rollout is not, so a prediction
    error measured in units of the target's own spread is added.
    """
    correlation = cross_correlation(predicted, target)
    on_diagonal = (1.0 - correlation.diagonal()).square().sum()
    redundant = off_diagonal(correlation).square().sum()
    spread = target.detach().std(dim=0) + BARLOW_EPS
    return {
        "prediction": config.prediction * ((predicted - target) / spread).square().mean(),
        "invariance": config.barlow * on_diagonal,
        "redundancy": config.barlow * config.redundancy * redundant,
    }


def objective_terms(
    predicted: Tensor, target: Tensor, windows: Tensor, config: ObjectiveConfig
) -> dict[str, Tensor]:
    """The weighted terms of the configured objective; `"none"` is prediction error alone.

    Args:
        predicted: `[N, D]` latents the predictor expects.
        target: `[N, D]` latents the encoder gives for the same frames.
        windows: `[M, T, D]` all encoded latents of the batch, window by window.
        config: which objective, and the weights of its terms.
    """
    if config.kind == "none":
        return {"prediction": config.prediction * functional.mse_loss(predicted, target)}
    if config.kind == "vicreg":
        terms = vicreg(predicted, target, windows.flatten(0, 1), config)
    else:
        terms = barlow_twins(predicted, target, config)
    slow = round(config.slow_share * windows.shape[-1])
    if config.temporal:
        terms["temporal"] = config.temporal * temporal_term(windows[..., :slow])
    if config.motion:
        terms["motion"] = config.motion * motion_term(windows[..., slow:])
    return terms
