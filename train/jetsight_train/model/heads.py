"""Heads on the latent: what it says about physical values, hazards, and its own familiarity.

All of them are small, read latents (encoded or imagined) and carry their normalisers as buffers, so
that inputs and outputs are in the units of the robot. They are part of the model and of its graphs.

Shapes: D latent size, A numbers of an action block (robot units), P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jetsight_train.model.hazard_rules import HazardRule

HIDDEN = (256, 256)


@dataclass(frozen=True)
class ProbeSpec:
    """What the probe reads, in the order of its outputs.

    Attributes:
        quantities: names; an angle is the two quantities `cos NAME` and `sin NAME`.
        units: unit of each; `1` for a cosine or a sine.
        scale: standard deviation of each over the training set, in its unit.
    """

    quantities: tuple[str, ...]
    units: tuple[str, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse lists of different lengths and a scale that would divide by zero."""
        if not len(self.quantities) == len(self.units) == len(self.scale) > 0:
            raise ValueError("a probe needs one unit and one scale per quantity, and a quantity")
        if len(set(self.quantities)) != len(self.quantities):
            raise ValueError(f"a probe quantity appears twice in {', '.join(self.quantities)}")
        if any(value <= 0.0 for value in self.scale):
            raise ValueError(f"probe scale {self.scale} must be positive")


@dataclass(frozen=True)
class HazardHeadSpec:
    """One output of the hazard head.

    Attributes:
        name: what it is called.
        threshold: a logit above it counts as a violation; conformal, see `conformal.threshold`.
        miss_rate: share of hazardous blocks that may stay at or below the threshold.
        rule: what was taken as the truth, tick by tick.
    """

    name: str
    threshold: float
    miss_rate: float
    rule: HazardRule


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.GELU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class ProbeHead(nn.Module):
    """Physical values of a latent: `[..., D] -> [..., P]`, in their own units."""

    z_mean: Tensor
    z_std: Tensor
    y_mean: Tensor
    y_std: Tensor

    def __init__(self, latent_size: int, quantities: int, hidden: tuple[int, ...] = HIDDEN) -> None:
        super().__init__()
        self.mlp = _mlp(latent_size, hidden, quantities)
        for name, size in (("z", latent_size), ("y", quantities)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    def forward(self, z: Tensor) -> Tensor:
        """`z [..., D] -> [..., P]`."""
        read: Tensor = self.mlp((z - self.z_mean) / self.z_std)
        return read * self.y_std + self.y_mean


class HazardHead(nn.Module):
    """Whether something happens at any tick of an action block, as one logit per hazard."""

    z_mean: Tensor
    z_std: Tensor
    a_mean: Tensor
    a_std: Tensor

    def __init__(
        self, latent_size: int, action_size: int, hazards: int, hidden: tuple[int, ...] = HIDDEN
    ) -> None:
        super().__init__()
        self.mlp = _mlp(2 * latent_size + action_size, hidden, hazards)
        for name, size in (("z", latent_size), ("a", action_size)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    def forward(self, z: Tensor, a: Tensor, z_next: Tensor) -> Tensor:
        """Logits of a block from its start, its actions and its end.

        Args:
            z: `[..., D]` latent before the block.
            a: `[..., A]` action block in robot units.
            z_next: `[..., D]` latent after it, encoded or imagined.

        Returns:
            `[..., G]` logits.
        """
        before, after = ((latent - self.z_mean) / self.z_std for latent in (z, z_next))
        logits: Tensor = self.mlp(torch.cat([before, (a - self.a_mean) / self.a_std, after], -1))
        return logits


class SupportHead(nn.Module):
    """How far a latent lies from the training latents; 1 is as far as nearly all of them.

    The value is `|(z - mean) @ whiten|^2 / D`: a squared Mahalanobis distance under a shrunk
    covariance, divided by D and by its 0.99 quantile over held-out encoded latents. So 99 % of real
    latents stay at or below 1, and `relu(support - 1)` charges only for what lies outside.
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_size))
        self.register_buffer("whiten", torch.eye(latent_size))

    def forward(self, z: Tensor) -> Tensor:
        """`z [..., D] -> [...]`, never negative."""
        return ((z - self.mean) @ self.whiten).square().mean(-1)


class Heads(nn.Module):
    """All heads of a world model; each may be absent, and a model without heads has none of them.

    Attributes:
        probe: physical values, described by `probe_spec`.
        hazard: hazard logits, one per entry of `hazards`.
        support: distance from the training latents.
    """

    def __init__(
        self,
        probe: ProbeHead | None = None,
        hazard: HazardHead | None = None,
        support: SupportHead | None = None,
        probe_spec: ProbeSpec | None = None,
        hazards: tuple[HazardHeadSpec, ...] = (),
    ) -> None:
        super().__init__()
        if (probe is None) != (probe_spec is None) or (hazard is None) != (not hazards):
            raise ValueError("a probe comes with its spec, and a hazard head with its hazards")
        self.probe, self.hazard, self.support = probe, hazard, support
        self.probe_spec, self.hazards = probe_spec, hazards

    @property
    def is_empty(self) -> bool:
        """Whether there is no head at all."""
        return self.probe is None and self.hazard is None and self.support is None
