"""Training recipes: one TOML file that maps one to one to frozen dataclasses.

`jetsight train` takes the name of a recipe in `jetsight_train/recipes`, or a path.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from jetsight.bundle.model_spec import (
    MOST_ACTION,
    ActionSpec,
    FrameSpec,
    StateSpec,
    TimingSpec,
    camera_names,
    identifier,
    image_size,
    vector,
    within,
)
from jetsight.datasets.fit import RecordingSpec
from jetsight.errors import UsageError
from jetsight.storage.strict_json import parse
from jetsight_train.collapse import MonitorConfig
from jetsight_train.data.columns import ProbeColumn
from jetsight_train.model.config import MOST_WIDTH, ModelConfig
from jetsight_train.model.fusion import STATE_HIDDEN
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.objectives import ObjectiveConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
T = TypeVar("T")


@dataclass(frozen=True)
class FrameRecipe:
    """Camera frame and model input.

    Attributes:
        camera (px): `[height, width]` of a camera frame as it is recorded.
        resize (px): `[height, width]` of the encoder's input, to which the whole camera frame is
            resized inside the graph; larger sees smaller things and costs more.
        cameras: names of the cameras to see by, in order, as the dataset's features end; without
            names the dataset has one.
    """

    camera: tuple[int, ...]
    resize: tuple[int, ...]
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sizes out of range, and names that are unusable or repeated."""
        image_size("camera", self.camera)
        image_size("resize", self.resize)
        camera_names(self.cameras)

    @property
    def spec(self) -> FrameSpec:
        """Frame spec: the whole camera frame, resized."""
        return whole_frame(self.camera, self.resize, self.cameras)


@dataclass(frozen=True)
class StateRecipe:
    """State columns that the encoder reads beside the frame; their normaliser is measured.

    Attributes:
        names: columns of the dataset's state, in order.
        units: unit of each column.
        hidden: width of the MLP that encodes them.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    hidden: int = STATE_HIDDEN

    def __post_init__(self) -> None:
        """Refuse what `StateSpec` refuses, before there is a training set to measure."""
        within("hidden", self.hidden, 1, MOST_WIDTH)
        ones = (1.0,) * len(self.names)
        self.spec(ones, ones)

    def spec(self, mean: tuple[float, ...], std: tuple[float, ...]) -> StateSpec:
        """Make the spec with the normaliser of a training set."""
        return StateSpec(self.names, self.units, mean, std)


@dataclass(frozen=True)
class ActionRecipe:
    """The robot's action of one camera tick, one value per dimension.

    The normaliser is measured on the training set.

    Attributes:
        names: name of each dimension, in the order of the dataset.
        units: unit of each dimension, for tables and pictures.
        low (units): smallest value the robot accepts; plans stay above.
        high (units): largest value the robot accepts; plans stay below.
        rate_limit_per_s (units/s): largest change per second; without it plans may jump.
        neutral (units): action assumed where the executed one is unknown, and the start of plans;
            zero for velocities; without it, the mean of the training set.
        resample: rule by which the actions of a faster recording are brought to the model's rate:
            `hold` takes the one in force (positions, targets), `mean` averages (velocities).
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_limit_per_s: tuple[float, ...] | None = None
    neutral: tuple[float, ...] | None = None
    resample: Literal["hold", "mean"] = "hold"

    def __post_init__(self) -> None:
        """Refuse what `ActionSpec` refuses, before there is a training set to measure."""
        # Any normaliser within the limits will do for these checks.
        ones = (1.0,) * len(self.names)
        middle = tuple((a + b) / 2 for a, b in zip(self.low, self.high, strict=False))
        self.spec(middle if len(middle) == len(ones) else ones, ones)

    def spec(
        self, mean: tuple[float, ...], std: tuple[float, ...], fixed: tuple[str, ...] = ()
    ) -> ActionSpec:
        """Make the spec with the normaliser of a training set.

        Args:
            mean: one per dimension.
            std: one per dimension.
            fixed: names of the dimensions that never vary.

        Raises:
            ArtefactError: see `ActionSpec`; also without `neutral` for a `mean` outside the limits.
        """
        return ActionSpec(
            names=self.names,
            units=self.units,
            low=self.low,
            high=self.high,
            rate_limit_per_s=self.rate_limit_per_s,
            neutral=mean if self.neutral is None else self.neutral,
            mean=mean,
            std=std,
            resample=self.resample,
            fixed=fixed,
        )


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to zero.

    Attributes:
        steps (steps): length of the schedule.
        batch (windows): windows per step.
        learning_rate: peak, after the warm-up; lower it if training diverges.
        weight_decay: weight decay of AdamW.
        warmup_steps (steps): length of the linear warm-up.
        grad_clip: largest norm of the gradient.
        seed: seed of weights, batches and dropout.
        stop_step (steps): last step of a run that another recipe continues; without it, `steps`.
        frozen_encoder: train the predictor alone, on latents that are encoded once, which makes
            long rollouts cheap; needs `--init`.
        compute: number format of the encoder in training; with AMX or on a GPU, bfloat16 is several
            times as fast.
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

    def __post_init__(self) -> None:
        """Refuse numbers that train nothing."""
        within("steps", self.steps, 1, 10**9)
        within("batch", self.batch, 1, 1 << 20)
        within("warmup_steps", self.warmup_steps, 0, 10**9)
        within("seed", self.seed, 0, 2**31 - 1)  # it is the upper half of a 64-bit torch seed
        if self.stop_step is not None:
            within("stop_step", self.stop_step, 1, 10**9)
        vector("learning_rate", (self.learning_rate,), 1, positive=True)
        vector("grad_clip", (self.grad_clip,), 1, positive=True)
        if not 0.0 <= self.weight_decay < 1.0:
            raise ValueError(f"weight_decay is {self.weight_decay}, expected 0 to below 1")

    @property
    def last_step(self) -> int:
        """Number of steps of the run."""
        return self.steps if self.stop_step is None else min(self.steps, self.stop_step)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; with the data they determine its result.

    Attributes:
        name: name of the run's folder, the checkpoint and the bundle.
        license: license of the trained model, which the bundle carries.
        model: sizes of the network.
        frame: camera frame and model input.
        timing: rate and length of a model step.
        action: the robot's action.
        objective: loss terms and their weights.
        optimiser: training schedule.
        monitor: criterion that stops a collapsed run.
        anchors: state columns that supervise the first latent dimensions, standardised; an angle
            takes two dimensions, its cosine and sine; needs a weight in objective.anchor.
        state: state columns that the encoder reads beside the frame.
        then: recipe to train next on this run's encoder, named when the run ends.
    """

    name: str
    license: str
    model: ModelConfig
    frame: FrameRecipe
    timing: TimingSpec
    action: ActionRecipe
    objective: ObjectiveConfig
    optimiser: OptimiserConfig
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    anchors: tuple[ProbeColumn, ...] = ()
    state: StateRecipe | None = None
    then: str | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that no bundle may have, and sections that contradict each other."""
        identifier("name", self.name)
        within("timing.action_block * action.names", self.action_size, 1, MOST_ACTION)
        self.model.check_input(self.frame.resize)
        if self.objective.context > self.model.history:
            raise ValueError(
                f"objective.context is {self.objective.context}, expected at most model.history, "
                f"which is {self.model.history}; 0 takes all of it"
            )
        if bool(self.anchors) != bool(self.objective.anchor):
            raise ValueError(
                f"{len(self.anchors)} [[anchors]] and objective.anchor {self.objective.anchor:g}, "
                "expected both or neither; add the one that is missing"
            )

    @property
    def action_size(self) -> int:
        """Numbers in one action block, A."""
        return self.timing.action_block * len(self.action.names)

    @property
    def window(self) -> int:
        """Frames of one training window, at block spacing."""
        return (self.objective.context or self.model.history) + self.objective.rollout_steps

    @property
    def recording_spec(self) -> RecordingSpec:
        """Cameras, rate, actions and state of the recordings that fit this recipe."""
        height, width = self.frame.camera
        return RecordingSpec(
            height,
            width,
            self.timing.camera_hz,
            self.action.names,
            cameras=self.frame.cameras,
            state_names=() if self.state is None else self.state.names,
            recipe=self.name,
        )


def find_recipe(name_or_path: str, shipped: Path = RECIPES) -> Path:
    """Find a recipe by its path, or by its name in the folder `shipped`.

    Raises:
        UsageError: neither exists; the message lists the shipped names.
    """
    # A file of the user comes before a shipped recipe of the same name.
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
    _refuse_infinite(plain, path, ())
    # Through JSON, so that one strict reader serves recipes, checkpoints and manifests.
    text = json.dumps(plain, default=str).encode()
    return parse(text, kind, str(path), error=UsageError)


def _refuse_infinite(value: object, path: Path, keys: tuple[str, ...]) -> None:
    """Refuse `inf` and `nan`, which TOML has and JSON lacks, here where their key is known."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_infinite(inner, path, (*keys, key))
    elif isinstance(value, list):
        for inner in value:
            _refuse_infinite(inner, path, keys)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(
            f"{path}: {'.'.join(keys)} holds {value}, expected finite numbers; give a finite range"
        )


def load_recipe(name_or_path: str) -> Recipe:
    """Read and check the recipe of a world model.

    Raises:
        UsageError: not found, not TOML, an unknown key (the nearest one is named), a bad value.
    """
    return read_recipe(find_recipe(name_or_path), Recipe)
