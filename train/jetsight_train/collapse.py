"""Is the representation still alive? Three numbers per check, and a rule that stops a dead run.

Shapes: N latents, D latent size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from jetsight.errors import CollapseError
from jetsight_train.objectives import off_diagonal

_TINY = 1e-12


@dataclass(frozen=True)
class LatentHealth:
    """How latents `[N, D]` are spread.

    Attributes:
        std_mean: standard deviation, mean over dimensions.
        std_min: standard deviation of the flattest dimension.
        correlation: mean absolute correlation between different dimensions.
        effective_rank: exp of the entropy of the normalised singular values of the centred
            latents (Roy & Vetterli, EUSIPCO 2007), between 1 and D.
    """

    std_mean: float
    std_min: float
    correlation: float
    effective_rank: float

    def as_dict(self) -> dict[str, float]:
        """The four numbers by name."""
        return asdict(self)


@torch.no_grad()
def latent_health(z: Tensor) -> LatentHealth:
    """Measure latents `[N, D]`, N > 1."""
    centred = (z - z.mean(dim=0)).double()
    std = centred.std(dim=0)
    correlation = (centred / (std + _TINY)).T @ (centred / (std + _TINY)) / (len(z) - 1)
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
    """When a run counts as collapsed.

    Attributes:
        warmup_steps: checks before this step never count.
        every_steps: steps between checks.
        patience: bad checks in a row that stop the run.
        min_std: smallest mean standard deviation; VICReg holds it near 1.
        min_rank_share: smallest effective rank as a share of the latent size.
    """

    warmup_steps: int = 100
    every_steps: int = 20
    patience: int = 3
    min_std: float = 0.1
    min_rank_share: float = 0.05


class CollapseMonitor:
    """Counts bad checks in a row and raises `CollapseError` when patience is used up."""

    def __init__(self, config: MonitorConfig, latent_size: int) -> None:
        self.config = config
        self.min_rank = config.min_rank_share * latent_size
        self.bad_checks = 0

    def check(self, step: int, health: LatentHealth) -> None:
        """Judge one measurement; a good one forgives all before it."""
        if step < self.config.warmup_steps:
            return
        # Written so that NaN, which compares false with everything, counts as bad.
        alive = health.std_mean >= self.config.min_std and health.effective_rank >= self.min_rank
        self.bad_checks = 0 if alive else self.bad_checks + 1
        if self.bad_checks >= self.config.patience:
            raise CollapseError(
                f"training stopped at step {step}: the latents collapsed "
                f"(mean std {health.std_mean:.4g}, expected >= {self.config.min_std:g}; "
                f"effective rank {health.effective_rank:.1f}, expected >= {self.min_rank:.1f}); "
                "raise objective.variance and objective.covariance (or objective.barlow), "
                "lower optimiser.learning_rate, or use larger batches"
            )
