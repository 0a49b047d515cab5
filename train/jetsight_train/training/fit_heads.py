"""Fitting of each head on latents of a frozen model, encoded and imagined in equal parts.

A planner reads heads on imagined latents, so these are trained on as well, with the recorded values
as targets.

Shapes: M latents or blocks, N batch, D latent, P quantities, G hazards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight.progress import Progress
from jetsight.signals import Terminated, deferred_signals
from jetsight_train.data.action_blocks import Blocks
from jetsight_train.data.normaliser import LEAST_SCALE, measure
from jetsight_train.heads.recipe import HeadOptimiserConfig
from jetsight_train.model.heads import HazardHead, ProbeHead, SupportHead
from jetsight_train.training.divergence import finite_gradient, finite_loss, finite_weights
from jetsight_train.training.heads_state import HeadsState

MIN_STD = 1e-6
GRAD_CLIP = 1.0
SHRINKAGE = 0.05  # share of a round covariance; bounds the weight of directions without variance
SUPPORT_QUANTILE = 0.99
Pick = Callable[[int], Tensor]  # size of a set -> indices of it for half a batch


@dataclass(frozen=True)
class HeadFit:
    """Settings that the fits of all heads share.

    Args:
        optimiser: training of each head.
        state: where states are kept and read; None for a run that cannot be resumed.
    """

    optimiser: HeadOptimiserConfig
    state: HeadsState | None = None


def fit_probe(
    head: ProbeHead,
    encoded: tuple[Tensor, Tensor],
    imagined: tuple[Tensor, Tensor],
    fit: HeadFit,
) -> None:
    """Train the probe; its normalisers are measured on the encoded part.

    Args:
        head: changed in place.
        encoded: latents `[M, D]` and their values `[M, P]`.
        imagined: imagined latents and the recorded values.
        fit: settings of the optimiser, and states to go on from.
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

    _Descent(head, fit, "probe").run(loss)


def fit_hazard(
    head: HazardHead,
    encoded: tuple[Blocks, Tensor],
    imagined: tuple[Blocks, Tensor],
    fit: HeadFit,
    action_std: Tensor,
) -> None:
    """Train the hazard head with balanced classes: a rare hazard weighs as much as its absence.

    Args:
        head: changed in place.
        encoded: blocks between encoded latents and their labels `[M, G]`, 0 or 1.
        imagined: blocks between imagined latents and their labels.
        fit: settings of the optimiser, and states to go on from.
        action_std: `[A]` scale of the actions in the model.
    """
    parts = (encoded, imagined)
    _normalise(head, "z", encoded[0].before)
    # Noise along a dimension that never varied must not become a signal.
    _normalise(head, "a", encoded[0].actions, LEAST_SCALE * action_std)
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

    _Descent(head, fit, "hazard").run(loss)


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


def _normalise(head: nn.Module, name: str, values: Tensor, least: Tensor | None = None) -> None:
    """Measure the normaliser of `values [M, n]`; a column that never varies gets the scale 1."""
    scale = torch.tensor(measure(values.numpy(), [""] * values.shape[1]).std)
    if least is not None:
        scale = torch.maximum(scale, least)
    head.get_buffer(f"{name}_mean").copy_(values.mean(0))
    head.get_buffer(f"{name}_std").copy_(scale)


class _Descent:
    """Minimisation of one head's loss by AdamW with a cosine schedule; resumable.

    The seed determines the batches. Ctrl-C and SIGTERM take effect after the running step.
    """

    def __init__(self, head: nn.Module, fit: HeadFit, title: str) -> None:
        self.head, self.fit, self.title = head, fit, title
        plan = fit.optimiser
        self.optimiser = torch.optim.AdamW(
            head.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.draw = torch.Generator().manual_seed(plan.seed)
        self.step = 0
        found = fit.state and fit.state.load(title, head, self.optimiser)
        if found:
            self.step, generator = found
            self.draw.set_state(generator)

    def run(self, loss_of: Callable[[Pick], Tensor]) -> None:
        """Take the steps that are left.

        Raises:
            DivergenceError: a loss, gradient or weight is not finite; earlier states are kept.
        """
        steps = self.fit.optimiser.steps
        self._keep()  # so that a head that diverges at once leaves a state
        with Progress(self.title, steps, "step", initial=self.step) as shown:
            try:
                while self.step < steps:
                    with deferred_signals() as stopping:
                        loss = self._advance(loss_of)
                        if stopping():
                            self._keep()
                    shown.update(notes={"loss": f"{loss:.4f}"})
            except (KeyboardInterrupt, Terminated):
                self._keep()
                raise
        self._keep()

    def _advance(self, loss_of: Callable[[Pick], Tensor]) -> float:
        plan, stage = self.fit.optimiser, f"training of the {self.title} head"
        half = max(1, plan.batch // 2)
        for group in self.optimiser.param_groups:
            # From the step alone, so that a resumed run needs no state of a scheduler.
            done = self.step / plan.steps
            group["lr"] = plan.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
        loss = loss_of(lambda size: torch.randint(size, (half,), generator=self.draw))
        value = float(loss.detach())
        finite_loss(value, stage, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.head.parameters(), GRAD_CLIP)
        finite_gradient(float(norm), stage, self.step)
        self.optimiser.step()
        finite_weights(self.head, stage, self.step)
        self.step += 1
        if self.fit.state and self.step % self.fit.state.save_every == 0:
            self._keep()
        return value

    def _keep(self) -> None:
        """Save the state, where the caller wants states."""
        if self.fit.state:
            self.fit.state.save(
                self.title, self.head, self.optimiser, self.draw.get_state(), self.step
            )
