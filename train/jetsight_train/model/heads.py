"""Heads that read physical quantities, hazards and support out of latents, encoded or imagined.

Their normalisers are buffers, so inputs and outputs are in robot units. Heads are part of the model
and of its graphs. `XHead` is a module, `XHeadSpec` describes its outputs, and `Heads` is all of a
model.

Shapes: D latent size, A numbers of an action block (robot units), P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jetsight.bundle.planner_spec import HazardSpec
from jetsight_train.model.hazard_rules import HazardRule

HIDDEN = (256, 256)


@dataclass(frozen=True)
class ProbeHeadSpec:
    """Outputs of the probe head, in order.

    Attributes:
        quantities: names; an angle gives two, `cos NAME` and `sin NAME`.
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
    """One output of the hazard head: the bundle's `HazardSpec` and the rule it was trained on.

    Attributes:
        name: name of the hazard.
        threshold: a logit above it counts as a violation; conformal, see `conformal.threshold`.
        miss_rate: share of hazardous blocks that may stay at or below the threshold.
        rule: definition of the labels, tick by tick.
    """

    name: str
    threshold: float
    miss_rate: float
    rule: HazardRule

    def __post_init__(self) -> None:
        """Refuse what a bundle would refuse, when the checkpoint is opened."""
        HazardSpec(self.name, self.threshold, self.miss_rate)


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.GELU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _register_normalisers(head: nn.Module, **sizes: int) -> None:
    for name, size in sizes.items():
        head.register_buffer(f"{name}_mean", torch.zeros(size))
        head.register_buffer(f"{name}_std", torch.ones(size))


class ProbeHead(nn.Module):
    """Regression of physical quantities: `[..., D] -> [..., P]`, in their own units."""

    z_mean: Tensor
    z_std: Tensor
    y_mean: Tensor
    y_std: Tensor

    def __init__(self, latent_size: int, quantities: int, hidden: tuple[int, ...] = HIDDEN) -> None:
        super().__init__()
        self.mlp = _mlp(latent_size, hidden, quantities)
        _register_normalisers(self, z=latent_size, y=quantities)

    def forward(self, z: Tensor) -> Tensor:
        """`z [..., D] -> [..., P]`."""
        normalised: Tensor = self.mlp((z - self.z_mean) / self.z_std)
        return normalised * self.y_std + self.y_mean


class HazardHead(nn.Module):
    """Classifier of action blocks: one logit per hazard that happens at any tick of the block."""

    z_mean: Tensor
    z_std: Tensor
    a_mean: Tensor
    a_std: Tensor

    def __init__(
        self, latent_size: int, action_size: int, hazards: int, hidden: tuple[int, ...] = HIDDEN
    ) -> None:
        super().__init__()
        self.mlp = _mlp(2 * latent_size + action_size, hidden, hazards)
        _register_normalisers(self, z=latent_size, a=action_size)

    def forward(self, z: Tensor, a: Tensor, z_next: Tensor) -> Tensor:
        """Classify blocks by the latents before and after them and their actions.

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
    """Distance of a latent from the training latents; 99 % of encoded ones are at or below 1.

    The value is `|(z - mean) @ whiten|^2 / D`: a squared Mahalanobis distance under a shrunk
    covariance, divided by D and by its 0.99 quantile over held-out encoded latents. A planner adds
    `relu(support - 1)`, which is 0 for nearly all real latents.
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
    """All heads of a world model; each of them is optional.

    Attributes:
        probe: head for physical quantities, described by `probe_spec`.
        hazard: head for hazard logits, one per entry of `hazards`.
        support: head for the distance from the training latents.
    """

    def __init__(
        self,
        probe: ProbeHead | None = None,
        hazard: HazardHead | None = None,
        support: SupportHead | None = None,
        probe_spec: ProbeHeadSpec | None = None,
        hazards: tuple[HazardHeadSpec, ...] = (),
    ) -> None:
        super().__init__()
        if (probe is None) != (probe_spec is None) or (hazard is None) != (not hazards):
            raise ValueError("a probe needs its spec, and a hazard head needs its hazards")
        self.probe, self.hazard, self.support = probe, hazard, support
        self.probe_spec, self.hazards = probe_spec, hazards

    @property
    def is_empty(self) -> bool:
        """True if the model has no head."""
        return self.probe is None and self.hazard is None and self.support is None
