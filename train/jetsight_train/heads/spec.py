"""The `heads` section of `model.json`: outputs, training and scores of the heads.

Shapes: D latent size, A numbers of an action block, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.model.heads import (
    HazardHead,
    HazardHeadSpec,
    Heads,
    ProbeHead,
    ProbeHeadSpec,
    SupportHead,
)


@dataclass(frozen=True)
class QuantityScore:
    """Accuracy of a quantity, from encoded latents and from ones imagined 1..H blocks ahead."""

    name: str
    unit: str
    r2: float
    r2_imagined: float
    median_error: float
    median_error_imagined: float


@dataclass(frozen=True)
class AngleScore:
    """Median absolute error of an angle, from the predicted cosine and sine."""

    name: str
    median_error_deg: float
    median_error_imagined_deg: float


@dataclass(frozen=True)
class HazardScore:
    """Rates of a hazard's threshold on imagined blocks; None for a rate over no block.

    Attributes:
        name: the hazard.
        blocks: number of imagined blocks.
        hazardous_rate: share of them that are hazardous.
        miss_rate: share of the hazardous ones that are not flagged.
        false_alarm_rate: share of the harmless ones that are flagged.
        auc: probability that a hazardous block has a larger logit than a harmless one.
        miss_rate_ahead: `miss_rate` per number of blocks ahead, 1..H.
    """

    name: str
    blocks: int
    hazardous_rate: float
    miss_rate: float | None
    false_alarm_rate: float | None
    auc: float | None
    miss_rate_ahead: tuple[float | None, ...]


@dataclass(frozen=True)
class SupportScore:
    """Share of latents whose support is above 1: encoded, and imagined."""

    above_one: float
    above_one_imagined: float


@dataclass(frozen=True)
class HeadsScores:
    """Scores of all heads of a model, on episodes that set neither weights nor a threshold."""

    data_name: str
    episodes: int
    quantities: tuple[QuantityScore, ...] = ()
    angles: tuple[AngleScore, ...] = ()
    hazards: tuple[HazardScore, ...] = ()
    support: SupportScore | None = None


@dataclass(frozen=True)
class HeadsTrained:
    """Training of the heads; `calibration_blocks` is the number of hazardous ones per hazard."""

    data_name: str
    data_sha256: str
    frozen_sha256: str
    train_episodes: int
    calibration_episodes: int
    calibration_blocks: tuple[int, ...]
    torch: str
    wall_s: float


@dataclass(frozen=True)
class HeadsDescription:
    """Description of all heads of a checkpoint, to rebuild them around their weights."""

    recipe: HeadsRecipe
    probe: ProbeHeadSpec | None
    hazards: tuple[HazardHeadSpec, ...]
    support: bool
    trained: HeadsTrained
    scores: HeadsScores

    def build(self, latent_size: int, action_size: int) -> Heads:
        """Make heads of the described sizes, with fresh weights."""
        hidden = self.recipe.hidden
        probe = self.probe and ProbeHead(latent_size, len(self.probe.quantities), hidden)
        hazard = HazardHead(latent_size, action_size, len(self.hazards), hidden)
        return Heads(
            probe,
            hazard if self.hazards else None,
            SupportHead(latent_size) if self.support else None,
            self.probe,
            self.hazards,
        )
