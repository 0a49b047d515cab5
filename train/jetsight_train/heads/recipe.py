"""Recipes of heads: one TOML file per set of heads to train on a frozen world model.

`jetsight train --probe` takes the name of a recipe in `recipes/heads`, or a path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jetsight.bundle.model_spec import identifier
from jetsight_train.data.columns import ProbeColumn
from jetsight_train.model.hazard_rules import Box, ColumnRule, Disc, HazardRule
from jetsight_train.model.heads import HIDDEN
from jetsight_train.recipe import RECIPES, find_recipe, read_recipe

HEAD_RECIPES = RECIPES / "heads"


@dataclass(frozen=True)
class HazardRecipe:
    """A hazard to learn, with exactly one of the rules `disc`, `box` and `recorded`.

    Attributes:
        name: name of the hazard in plans and bundles.
        disc: region around a point.
        box: region between limits.
        recorded: recorded number or boolean that is the label.
        miss_rate: largest share of hazardous blocks that may be missed.
    """

    name: str
    disc: Disc | None = None
    box: Box | None = None
    recorded: ColumnRule | None = None
    miss_rate: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a miss rate out of range, and no or several rules."""
        if not 0.0 < self.miss_rate < 1.0:
            raise ValueError(f"miss_rate is {self.miss_rate:g}; expected a share between 0 and 1")
        _ = self.rule  # its constructor checks that there is one

    @property
    def rule(self) -> HazardRule:
        """Definition of the hazard."""
        return HazardRule(self.disc, self.box, self.recorded)


@dataclass(frozen=True)
class SplitRecipe:
    """Shares of the episodes held out from training.

    Attributes:
        calibration: share that sets thresholds and the scale of the support.
        report: share that the scores are measured on.
    """

    calibration: float = 0.15
    report: float = 0.10

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on."""
        if min(self.calibration, self.report) <= 0.0 or self.calibration + self.report >= 1.0:
            raise ValueError(
                f"shares calibration {self.calibration:g} and report {self.report:g} must be "
                "positive and leave episodes to train on"
            )


@dataclass(frozen=True)
class HeadOptimiserConfig:
    """AdamW with cosine decay to zero, for the probe and for the hazard head alike.

    Attributes:
        steps (steps): length of the schedule.
        batch (latents): latents per step, half of them encoded and half imagined.
        learning_rate: peak, at the first step.
        weight_decay: weight decay of AdamW.
        seed: seed of weights, batches and the split.
    """

    steps: int = 4000
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse training without steps, and a negative seed."""
        if min(self.steps, self.batch) < 1 or self.learning_rate <= 0.0 or self.seed < 0:
            raise ValueError("steps, batch and learning_rate must be positive, seed at least 0")


@dataclass(frozen=True)
class HeadsRecipe:
    """Settings of the heads to train; with the model and the data they determine the result.

    Attributes:
        name: name of the recipe.
        probe: columns to predict; empty for no probe.
        hazard: hazards to learn; empty for no hazard head.
        support: fit the support head, which measures the distance from the training data.
        hidden: sizes of the hidden layers of probe and hazard head.
        windows (windows): most rollouts to imagine for training.
        context (latents): latents that rollouts start from; 0 for those of the model's training.
        split: shares of the episodes held out.
        optimiser: training of each head.
    """

    name: str
    probe: tuple[ProbeColumn, ...] = ()
    hazard: tuple[HazardRecipe, ...] = ()
    support: bool = True
    hidden: tuple[int, ...] = HIDDEN
    windows: int = 40_000
    context: int = 0
    split: SplitRecipe = field(default_factory=SplitRecipe)
    optimiser: HeadOptimiserConfig = field(default_factory=HeadOptimiserConfig)

    def __post_init__(self) -> None:
        """Refuse a recipe without heads, repeated names, and one that cannot name a folder."""
        identifier("name", self.name)
        if not (self.probe or self.hazard or self.support):
            raise ValueError("no probe, no hazard and no support: nothing to train")
        for what, names in (
            ("probe column", [entry.column for entry in self.probe]),
            ("hazard", [entry.name for entry in self.hazard]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} appears twice in {', '.join(names)}")
        if min((self.windows, *self.hidden)) < 1 or self.context < 0:
            raise ValueError("windows and hidden sizes must be at least 1, context at least 0")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the recorded columns to read, each once."""
        names = [entry.column for entry in self.probe]
        names += [name for entry in self.hazard for name in entry.rule.columns]
        return tuple(dict.fromkeys(names))


def load_heads_recipe(name_or_path: str) -> HeadsRecipe:
    """Read and check a heads recipe.

    Raises:
        UsageError: not found, not TOML, an unknown key (the nearest one is named), a bad value.
    """
    return read_recipe(find_recipe(name_or_path, HEAD_RECIPES), HeadsRecipe)
