"""A heads recipe: one TOML file that says what is read out of a frozen world model.

`jetsight train NAME --probe CHECKPOINT` finds those shipped in `recipes/heads`; a path works too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jetsight_train.data.columns import ProbeColumn
from jetsight_train.model.hazard_rules import Box, ColumnRule, Disc, HazardRule
from jetsight_train.model.heads import HIDDEN
from jetsight_train.recipe import RECIPES, find_recipe, read_recipe

HEAD_RECIPES = RECIPES / "heads"


@dataclass(frozen=True)
class HazardRecipe:
    """A hazard to learn: its name, exactly one rule, and the share of it that may be missed."""

    name: str
    disc: Disc | None = None
    box: Box | None = None
    recorded: ColumnRule | None = None
    miss_rate: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a promise that is none, and none or several rules."""
        if not 0.0 < self.miss_rate < 1.0:
            raise ValueError(f"miss_rate is {self.miss_rate:g}; expected a share between 0 and 1")
        _ = self.rule

    @property
    def rule(self) -> HazardRule:
        """When it happens."""
        return HazardRule(self.disc, self.box, self.recorded)


@dataclass(frozen=True)
class SplitRecipe:
    """Shares of the episodes that are kept from training: to set thresholds, and to measure."""

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
class HeadOptimiser:
    """AdamW with a cosine schedule down to zero; probe and hazard head each take all the steps."""

    steps: int = 4000
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse training without steps, and a seed that no generator takes."""
        if min(self.steps, self.batch) < 1 or self.learning_rate <= 0.0 or self.seed < 0:
            raise ValueError("steps, batch and learning_rate must be positive, seed at least 0")


@dataclass(frozen=True)
class HeadsRecipe:
    """Everything that decides which heads a model gets, apart from the model and the data.

    Attributes:
        name: name of the recipe.
        probe: columns to read; none leaves the probe out.
        hazard: hazards to learn; none leaves the hazard head out.
        support: whether to measure how familiar a latent is.
        hidden: sizes of the hidden layers of probe and hazard head.
        windows: rollouts imagined to train on, at most.
        context: latents that rollouts start from; 0 takes what the model was trained with.
        split: episodes that are not trained on.
        optimiser: how each head is trained.
    """

    name: str
    probe: tuple[ProbeColumn, ...] = ()
    hazard: tuple[HazardRecipe, ...] = ()
    support: bool = True
    hidden: tuple[int, ...] = HIDDEN
    windows: int = 40_000
    context: int = 0
    split: SplitRecipe = field(default_factory=SplitRecipe)
    optimiser: HeadOptimiser = field(default_factory=HeadOptimiser)

    def __post_init__(self) -> None:
        """Refuse a recipe without heads, and names that cannot be told apart."""
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
        """Every recorded column that is read, once."""
        names = [entry.column for entry in self.probe]
        names += [name for entry in self.hazard for name in entry.rule.columns]
        return tuple(dict.fromkeys(names))


def load_heads_recipe(name_or_path: str) -> HeadsRecipe:
    """Read and check a heads recipe.

    Raises:
        UsageError: not found, not TOML, an unknown key (the nearest one is named), a bad value.
    """
    return read_recipe(find_recipe(name_or_path, HEAD_RECIPES), HeadsRecipe)
