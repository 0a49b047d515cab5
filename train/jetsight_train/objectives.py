"""Training objectives against collapse: functions of latents with the constants of their papers.

Shapes: N samples, D latent size, K prediction steps; `predicted` and `target` are `[N, D]`.
"""

from __future__ import annotations

import dataclasses
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
    # `eps` is inside the root, whose gradient at 0 is infinite.
    std = torch.sqrt(z.var(dim=0) + eps)
    return functional.relu(margin - std).mean()


def covariance_term(z: Tensor) -> Tensor:
    """VICReg's covariance term: squared off-diagonal covariances, summed, over D; `z [N, D]`."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return off_diagonal(covariance).square().sum() / z.shape[1]


def temporal_term(z: Tensor) -> Tensor:
    """Squared change from one frame to the next, mean over D; `z [N, T, D]`.

    The slowness prior of PLDM (arXiv 2502.14819) and EB-JEPA (arXiv 2602.03604): without it,
    variance and covariance fill the dimensions with the fastest-moving content.
    """
    return (z[:, 1:] - z[:, :-1]).square().mean()


def motion_term(z: Tensor, margin: float = VICREG_MARGIN) -> Tensor:
    """VICReg's variance term on the change from one frame to the next; `z [N, T, D]`.

    PLDM's variance over time (arXiv 2502.14819), per step: dimensions that are made to change hold
    moving content and leave static content to the others.
    """
    # Two independent draws differ by sqrt(2) times their standard deviation.
    change = (z[:, 1:] - z[:, :-1]).flatten(0, 1) / math.sqrt(2.0)
    return variance_term(change, margin)


def anchor_term(z: Tensor, anchors: Tensor) -> Tensor:
    """Squared distance of the first dimensions from recorded quantities; `z [..., D]`, `[..., P]`.

    Supervises part of the latent where a robot records the pose of itself or of an object; the
    other dimensions are trained without labels.
    """
    return functional.mse_loss(z[..., : anchors.shape[-1]], anchors)


def cross_correlation(first: Tensor, second: Tensor, eps: float = BARLOW_EPS) -> Tensor:
    """Correlate every dimension of `first` with every one of `second`: `[D, D]`."""

    def standardised(z: Tensor) -> Tensor:
        # The biased variance, as in BatchNorm1d, which the official code uses.
        return (z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, unbiased=False) + eps)

    return standardised(first).T @ standardised(second) / len(first)


def off_diagonal(matrix: Tensor) -> Tensor:
    """Return everything but the diagonal of a square matrix, flattened."""
    n = matrix.shape[0]
    # Without its last entry, rows of n + 1 entries put the whole diagonal into the first column.
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


@dataclass(frozen=True)
class ObjectiveConfig:
    """Objective and the weight of each of its terms.

    Attributes:
        kind: anti-collapse objective; `"none"` trains on the prediction error alone.
        prediction: weight of the prediction error; VICReg's 25.
        variance: weight of VICReg's variance term; VICReg's 25.
        covariance: weight of VICReg's covariance term; VICReg's 1.
        barlow: weight of the whole Barlow Twins loss.
        redundancy: lambda of Barlow Twins.
        temporal: weight of the slowness prior, for either objective.
        slow_share: share of the dimensions that the slowness prior acts on.
        motion: weight of the motion term, which acts on the other dimensions.
        rollout_steps (steps): length of training rollouts; 2 is best for simulated robots (arXiv
            2512.24497).
        context (frames): frames a rollout starts from, 0 for the model's K; with 1 and one rollout
            step, a batch of the same cost holds several times as many scenes.
        anchor: weight of the recipe's anchors, see `anchor_term`.
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
        """Refuse windows without frames, and a motion term without dimensions."""
        if self.rollout_steps < 1 or self.context < 0:
            raise ValueError("rollout_steps must be at least 1, and context at least 0")
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not value >= 0.0:
                raise ValueError(f"{each.name} is {value}, expected a weight from 0")
        if not self.slow_share <= 1.0:
            raise ValueError(f"slow_share is {self.slow_share}, expected a share from 0 to 1")
        if self.motion and not 0.0 <= self.slow_share < 1.0:
            raise ValueError(
                "motion acts on the dimensions outside slow_share, which must be below 1"
            )


def vicreg(
    predicted: Tensor, target: Tensor, latents: Tensor, config: ObjectiveConfig
) -> dict[str, Tensor]:
    """Compute VICReg with prediction in place of invariance (arXiv 2105.04906).

    Args:
        predicted: `[N, D]` predicted latents.
        target: `[N, D]` encoded latents of the same frames.
        latents: `[M, D]` all encoded latents of the batch, for variance and covariance.
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
    """Compute Barlow Twins between predicted and encoded latents (arXiv 2103.03230).

    The cross-correlation ignores scale and offset, which a rollout needs, so a prediction error in
    units of the target's own standard deviation is added.
    """
    correlation = cross_correlation(predicted, target)
    on_diagonal = (1.0 - correlation.diagonal()).square().sum()
    redundant = off_diagonal(correlation).square().sum()
    # Detached, or a wider spread of the targets would lower the error by itself.
    spread = target.detach().std(dim=0) + BARLOW_EPS
    return {
        "prediction": config.prediction * ((predicted - target) / spread).square().mean(),
        "invariance": config.barlow * on_diagonal,
        "redundancy": config.barlow * config.redundancy * redundant,
    }


def objective_terms(
    predicted: Tensor, target: Tensor, windows: Tensor, config: ObjectiveConfig
) -> dict[str, Tensor]:
    """Compute the weighted terms of the configured objective; their sum is the loss.

    Args:
        predicted: `[N, D]` predicted latents.
        target: `[N, D]` encoded latents of the same frames.
        windows: `[M, T, D]` all encoded latents of the batch, window by window.
        config: objective and weights.
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
