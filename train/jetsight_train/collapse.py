"""Measures of representation collapse, and a monitor that stops a collapsed run.

Shapes: N latents, D latent size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from jetsight.bundle.model_spec import within
from jetsight.errors import CollapseError, DivergenceError
from jetsight_train.objectives import off_diagonal

_TINY = 1e-12  # against division by zero and log(0) for constant latents


@dataclass(frozen=True)
class LatentHealth:
    """Distribution of latents `[N, D]`.

    Attributes:
        std_mean: standard deviation, mean over dimensions.
        std_min: standard deviation, smallest over dimensions.
        correlation: mean absolute correlation between different dimensions.
        effective_rank: exp of the entropy of the normalised singular values of the centred
            latents (Roy & Vetterli, EUSIPCO 2007), between 1 and D.
    """

    std_mean: float
    std_min: float
    correlation: float
    effective_rank: float

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name."""
        return asdict(self)


@torch.no_grad()
def latent_health(z: Tensor) -> LatentHealth:
    """Measure latents `[N, D]`, N > 1.

    Raises:
        DivergenceError: they are not finite.
    """
    # Before the decomposition, which raises an error of its own, or never ends.
    if not torch.isfinite(z).all():
        raise DivergenceError("the latents are not finite; lower optimiser.learning_rate")
    centred = (z - z.mean(dim=0)).double()
    std = centred.std(dim=0)
    correlation = (centred / (std + _TINY)).T @ (centred / (std + _TINY)) / (len(z) - 1)
    # In float64, because singular values of collapsed latents span many orders of magnitude.
    share = torch.linalg.svdvals(centred)
    share = share / (share.sum() + _TINY)
    entropy = -(share * torch.log(share + _TINY)).sum()
    return LatentHealth(
        std_mean=float(std.mean()),
        std_min=float(std.min()),
        correlation=float(off_diagonal(correlation).abs().mean()),
        effective_rank=float(entropy.exp()),
    )


@dataclass(frozen=True)
class MonitorConfig:
    """Criterion of a collapsed run.

    Attributes:
        warmup_steps (steps): step before which checks are ignored.
        every_steps (steps): steps between checks.
        patience (checks): consecutive failed checks that stop the run.
        min_std: smallest mean standard deviation; VICReg keeps it near 1.
        min_rank_share: smallest effective rank as a share of the latent size.
    """

    warmup_steps: int = 100
    every_steps: int = 20
    patience: int = 3
    min_std: float = 0.1
    min_rank_share: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a monitor that never looks, or that no run could satisfy."""
        within("warmup_steps", self.warmup_steps, 0, 10**9)
        within("every_steps", self.every_steps, 1, 10**9)
        within("patience", self.patience, 1, 10**9)
        if not (self.min_std >= 0.0 and 0.0 <= self.min_rank_share <= 1.0):
            raise ValueError(
                f"min_std is {self.min_std} and min_rank_share {self.min_rank_share}, expected at "
                "least 0, and 0 to 1"
            )


class CollapseMonitor:
    """Counter of consecutive failed checks that raises `CollapseError` at the limit."""

    def __init__(self, config: MonitorConfig, latent_size: int) -> None:
        self.config = config
        self.min_rank = config.min_rank_share * latent_size
        self.bad_checks = 0

    def check(self, step: int, health: LatentHealth) -> None:
        """Check one measurement; one that passes resets the count."""
        if step < self.config.warmup_steps:
            return
        # NaN compares false with everything, so it fails this check.
        passed = health.std_mean >= self.config.min_std and health.effective_rank >= self.min_rank
        self.bad_checks = 0 if passed else self.bad_checks + 1
        if self.bad_checks >= self.config.patience:
            raise CollapseError(
                f"training stopped at step {step}: the latents collapsed "
                f"(mean std {health.std_mean:.4g}, expected >= {self.config.min_std:g}; "
                f"effective rank {health.effective_rank:.1f}, expected >= {self.min_rank:.1f}); "
                "raise objective.variance and objective.covariance (or objective.barlow), "
                "lower optimiser.learning_rate, or use larger batches"
            )
