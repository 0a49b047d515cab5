"""A training recipe: one TOML file that maps one to one to frozen dataclasses.

`jetsight train NAME` finds the recipes shipped in `jetsight_train/recipes`; a path works too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from jetsight.errors import UsageError
from jetsight.storage.strict_json import parse
from jetsight_train.collapse import MonitorConfig
from jetsight_train.data.columns import ProbeColumn
from jetsight_train.model.config import ModelConfig
from jetsight_train.objectives import ObjectiveConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
T = TypeVar("T")


@dataclass(frozen=True)
class FrameRecipe:
    """Camera frame `[height, width]` and model input `[height, width]`, in pixels."""

    camera: tuple[int, int]
    resize: tuple[int, int]


@dataclass(frozen=True)
class ActionRecipe:
    """The robot's action, per dimension; the normaliser is measured on the training set.

    Leave `neutral` out to take the mean of the training set.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_limit_per_s: tuple[float, ...] | None = None
    neutral: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TimingRecipe:
    """Camera rate, and camera frames per model step."""

    camera_hz: float
    action_block: int


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to zero.

    `stop_step` ends the run before its schedule does, for a model that another recipe goes on with.
    `frozen_encoder` trains the predictor alone, on latents that are encoded once: frames then cost
    nothing, so it can roll out far and see every window many times. It needs `--init`.
    `compute` is what the encoder's convolutions and products are trained in; with AMX or on a GPU,
    bfloat16 is several times as fast.
    """

    steps: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 200
    grad_clip: float = 1.0
    seed: int = 0
    stop_step: int | None = None
    frozen_encoder: bool = False
    compute: Literal["fp32", "bf16"] = "fp32"

    @property
    def last_step(self) -> int:
        """Steps that are really taken."""
        return self.steps if self.stop_step is None else min(self.steps, self.stop_step)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run produces, apart from the data.

    `anchors` are state columns which the first latent dimensions have to be, standardised; an angle
    takes two, its cosine and sine.
    """

    name: str
    license: str
    model: ModelConfig
    frame: FrameRecipe
    timing: TimingRecipe
    action: ActionRecipe
    objective: ObjectiveConfig
    optimiser: OptimiserConfig
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    anchors: tuple[ProbeColumn, ...] = ()

    def __post_init__(self) -> None:
        """Refuse anchors without a weight, and a weight without anchors."""
        if bool(self.anchors) != bool(self.objective.anchor):
            raise ValueError("[[anchors]] and objective.anchor come together or not at all")


def find_recipe(name_or_path: str, shipped: Path = RECIPES) -> Path:
    """The file of a recipe in the folder `shipped`, or of the user's own.

    Raises:
        UsageError: neither exists; the message lists the shipped names.
    """
    for candidate in (Path(name_or_path), shipped / f"{name_or_path}.toml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.toml")))
    raise UsageError(f"recipe {name_or_path!r} was not found; give a TOML file or one of: {names}")


def read_recipe(path: Path, kind: type[T]) -> T:
    """Read a TOML file as a recipe of the given kind.

    Raises:
        UsageError: not TOML, an unknown key (the nearest known one is named), or a bad value.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a readable TOML recipe: {error}; fix the file") from error
    # One strict reader serves recipes, checkpoints and manifests.
    text = json.dumps(plain, default=str).encode()
    return parse(text, kind, str(path), error=UsageError)


def load_recipe(name_or_path: str) -> Recipe:
    """Read and check the recipe of a world model.

    Raises:
        UsageError: not found, not TOML, an unknown key (the nearest one is named), a bad value.
    """
    return read_recipe(find_recipe(name_or_path), Recipe)
