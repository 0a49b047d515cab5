"""Stopping at the first number that is not finite, before it reaches weights or files."""

from __future__ import annotations

import torch
from torch import nn

from jetsight.errors import DivergenceError

MOST_WEIGHT = 1e18  # norm of all weights; its square still fits into float32


def finite_loss(loss: float, stage: str, step: int) -> None:
    """Raise `DivergenceError` unless the loss of a step is finite."""
    if not _finite(loss):
        raise diverged(stage, step, f"the loss is {loss:g}")


def finite_gradient(norm: float, stage: str, step: int) -> None:
    """Raise `DivergenceError` unless the norm of the gradient is finite."""
    if not _finite(norm):
        raise diverged(stage, step, f"the gradient has the norm {norm:g}")


def finite_weights(module: nn.Module, stage: str, step: int) -> None:
    """Raise `DivergenceError` if the weights are not finite, or about to be."""
    norm = weight_norm(module)
    if not norm < MOST_WEIGHT:
        raise diverged(stage, step, f"the weights have the norm {norm:g}")


@torch.no_grad()
def weight_norm(module: nn.Module) -> float:
    """Return the norm of all parameters; NaN or infinite if one of them is."""
    return float(nn.utils.get_total_norm([p.detach() for p in module.parameters()]))


def diverged(stage: str, step: int, what: str) -> DivergenceError:
    """Make the error of a stage that cannot go on, with what usually helps."""
    return DivergenceError(
        f"{stage} stopped at step {step}: {what}; lower optimiser.learning_rate (or grad_clip), "
        "and check the range of the data: jetsight data check DIR"
    )


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # False for NaN too
