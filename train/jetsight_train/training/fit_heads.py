"""Fitting of each head on latents of a frozen model, encoded and imagined in equal parts.

A planner reads heads on imagined latents, so these are trained on as well, with the recorded values
as targets.

Shapes: M latents or blocks, N batch, D latent, P quantities, G hazards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_train.data.action_blocks import Blocks
from jetsight_train.heads.recipe import HeadOptimiserConfig
from jetsight_train.model.heads import HazardHead, ProbeHead, SupportHead
from jetsight_train.progress import progress

MIN_STD = 1e-6
GRAD_CLIP = 1.0
SHRINKAGE = 0.05  # share of a round covariance; bounds the weight of directions without variance
SUPPORT_QUANTILE = 0.99
Pick = Callable[[int], Tensor]  # size of a set -> indices of it for half a batch


def fit_probe(
    head: ProbeHead,
    encoded: tuple[Tensor, Tensor],
    imagined: tuple[Tensor, Tensor],
    plan: HeadOptimiserConfig,
) -> None:
    """Train the probe; its normalisers are measured on the encoded part.

    Args:
        head: changed in place.
        encoded: latents `[M, D]` and their values `[M, P]`.
        imagined: imagined latents and the recorded values.
        plan: settings of the optimiser.
    """
    (z, y), parts = encoded, (encoded, imagined)
    _normalise(head, "z", z)
    _normalise(head, "y", y)

    def loss(pick: Pick) -> Tensor:
        chosen = [(part, pick(len(part[0]))) for part in parts]
        predicted = head(torch.cat([part[0][index] for part, index in chosen]))
        truth = torch.cat([part[1][index] for part, index in chosen])
        # In units of each quantity's own std, so that pixels and cosines weigh alike.
        return functional.huber_loss(predicted / head.y_std, truth / head.y_std)

    _descend(head, loss, plan, "probe")


def fit_hazard(
    head: HazardHead,
    encoded: tuple[Blocks, Tensor],
    imagined: tuple[Blocks, Tensor],
    plan: HeadOptimiserConfig,
) -> None:
    """Train the hazard head with balanced classes: a rare hazard weighs as much as its absence.

    Args:
        head: changed in place.
        encoded: blocks between encoded latents and their labels `[M, G]`, 0 or 1.
        imagined: blocks between imagined latents and their labels.
        plan: settings of the optimiser.
    """
    parts = (encoded, imagined)
    _normalise(head, "z", encoded[0].before)
    _normalise(head, "a", encoded[0].actions)
    # Clamped, because a hazard in no block at all would weigh infinitely.
    share = torch.cat([encoded[1], imagined[1]]).mean(0).clamp(1e-4, 1.0 - 1e-4)
    weight = (1.0 - share) / share

    def loss(pick: Pick) -> Tensor:
        chosen = [(blocks, labels, pick(len(labels))) for blocks, labels in parts]
        inputs = [
            torch.cat([getattr(blocks, name)[index] for blocks, _, index in chosen])
            for name in ("before", "actions", "after")
        ]
        truth = torch.cat([labels[index] for _, labels, index in chosen])
        return functional.binary_cross_entropy_with_logits(head(*inputs), truth, pos_weight=weight)

    _descend(head, loss, plan, "hazard")


def fit_support(head: SupportHead, train: Tensor, held_out: Tensor) -> None:
    """Whiten the training latents, and scale so that 99 % of held-out ones read at most 1.

    Args:
        head: changed in place.
        train: `[M, D]` encoded latents of training episodes.
        held_out: `[M, D]` encoded latents of other episodes; training ones would read too low.
    """
    mean = train.double().mean(0)
    covariance = torch.cov(train.double().T).reshape(len(mean), len(mean))  # D = 1 gives a scalar
    level = covariance.diagonal().mean().clamp_min(MIN_STD**2)
    covariance = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(mean))
    # In float64: the smallest variances decide the largest weights.
    variance, axes = torch.linalg.eigh(covariance)
    head.mean.copy_(mean)
    head.whiten.copy_(axes / variance.sqrt())
    far = torch.quantile(head(held_out)[: 1 << 24], SUPPORT_QUANTILE)  # the limit of quantile()
    # The support is a square, so the scale enters by its root.
    head.whiten.div_(far.clamp_min(MIN_STD).sqrt())


def _normalise(head: nn.Module, name: str, values: Tensor) -> None:
    head.get_buffer(f"{name}_mean").copy_(values.mean(0))
    head.get_buffer(f"{name}_std").copy_(values.std(0).clamp_min(MIN_STD))


def _descend(
    head: nn.Module, loss_of: Callable[[Pick], Tensor], plan: HeadOptimiserConfig, title: str
) -> None:
    """Minimise a loss by AdamW with a cosine schedule; the seed determines the batches."""
    optimiser = torch.optim.AdamW(
        head.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.steps)
    draw = torch.Generator().manual_seed(plan.seed)
    half = max(1, plan.batch // 2)
    bar = progress(range(plan.steps), title, unit="step")
    for step in bar:
        loss = loss_of(lambda size: torch.randint(size, (half,), generator=draw))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), GRAD_CLIP)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")  # type: ignore[attr-defined]
