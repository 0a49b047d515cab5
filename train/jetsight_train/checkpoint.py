"""Checkpoints: a folder with `model.safetensors` and `model.json`.

The folder is written under a temporary name and renamed, so a checkpoint is absent or complete.
Reading never unpickles and so never runs code: a pickle is refused with a hint to convert it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from jetsight.bundle.model_spec import (
    ActionSpec,
    FrameSpec,
    StateSpec,
    TimingSpec,
    identifier,
    length,
    vector,
)
from jetsight.errors import CheckpointError, first_line
from jetsight.storage.atomic import new_directory
from jetsight.storage.strict_json import dump, parse
from jetsight_train.heads.spec import HeadsDescription
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import Recipe

FORMAT = "jetsight-checkpoint"
VERSION = "1.2"  # 1.1 added heads, 1.2 cameras, a state and fixed actions
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
# PyTorch's zip container, and the pickle protocols 2 to 5 of everything older.
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class LatentSpec:
    """Mean and standard deviation of each latent dimension over the training set."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse NaN and infinity, and vectors of different lengths."""
        vector("mean", self.mean, len(self.mean))
        vector("std", self.std, len(self.mean))


@dataclass(frozen=True)
class Trained:
    """Training of the world model."""

    steps: int
    data_sha256: str
    data_name: str
    torch: str
    wall_s: float


@dataclass(frozen=True)
class WeightsFile:
    """Size and digest of `model.safetensors`."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> WeightsFile:
        """Measure the content of a file."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class CheckpointDescription:
    """Content of `model.json`, with which the model is rebuilt around its weights.

    `heads` is None for a model without heads, as in files of version 1.0, and `state` for one that
    sees by frames alone.
    """

    format: str
    version: str
    name: str
    recipe: Recipe
    frame: FrameSpec
    timing: TimingSpec
    action: ActionSpec
    latent: LatentSpec
    trained: Trained
    weights: WeightsFile
    heads: HeadsDescription | None = None
    state: StateSpec | None = None

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        identifier("name", self.name)
        length("latent.mean", self.latent.mean, self.recipe.model.latent_size)
        for key in ("names", "units", "low", "high"):
            own, expected = getattr(self.action, key), getattr(self.recipe.action, key)
            if own != expected:
                raise ValueError(
                    f"action.{key} is {list(own)}, but recipe.action.{key} is {list(expected)}; "
                    "expected the same, so copy the checkpoint again or train again"
                )
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Refuse cameras or a state that are not those of the recipe."""
        recipe = self.recipe.state
        for key, own, expected in (
            ("frame.cameras", self.frame.cameras, self.recipe.frame.cameras),
            ("state.names", self.state and self.state.names, recipe and recipe.names),
            ("state.units", self.state and self.state.units, recipe and recipe.units),
        ):
            if own != expected:
                raise ValueError(
                    f"{key} is {own and list(own)}, but recipe.{key} is "
                    f"{expected and list(expected)}; expected the same, so copy the checkpoint "
                    "again or train again"
                )


def save(
    target: Path,
    model: WorldModel,
    recipe: Recipe,
    latent: LatentSpec,
    trained: Trained,
    heads: HeadsDescription | None = None,
) -> None:
    """Write a checkpoint folder atomically.

    Args:
        target: folder to write; absent or empty.
        model: the trained model.
        recipe: its recipe.
        latent: distribution of its latents over the training set.
        trained: its training.
        heads: description of its heads; None if it has none.

    Raises:
        StorageError: `target` exists and is not empty, or cannot be written.
    """
    if model.heads.is_empty != (heads is None):
        raise ValueError(
            "heads are saved with their description, and a model without heads has none"
        )
    # safetensors refuses tensors that are not contiguous.
    weights = save_tensors({k: v.contiguous() for k, v in model.state_dict().items()})
    description = CheckpointDescription(
        format=FORMAT,
        version=VERSION,
        name=recipe.name,
        recipe=recipe,
        frame=model.frame,
        timing=model.timing,
        action=model.action,
        latent=latent,
        trained=trained,
        weights=WeightsFile.of(weights),
        heads=heads,
        state=model.state,
    )
    with new_directory(target) as folder:
        (folder / WEIGHTS).write_bytes(weights)
        (folder / DESCRIPTION).write_bytes(dump(description))


def load(path: Path) -> tuple[WorldModel, CheckpointDescription]:
    """Read a checkpoint folder (or its `model.safetensors`) into a model in evaluation mode.

    Raises:
        CheckpointError: missing, a pickle, truncated, altered, or not of this format.
    """
    folder = _folder_of(path)
    description = _read_description(folder / DESCRIPTION)
    weights = _read(folder / WEIGHTS)
    # Compared before parsing, so that a damaged file is reported as one.
    file, expected = WeightsFile.of(weights), description.weights
    if file != expected:
        raise CheckpointError(
            f"{folder / WEIGHTS}: {file.bytes} bytes with SHA-256 {file.sha256[:12]}, but "
            f"{DESCRIPTION} expects {expected.bytes} bytes with {expected.sha256[:12]}; the file "
            "is damaged, copy the checkpoint again"
        )
    model = _build(description)
    if description.heads is not None:
        # Before the tensors are filled in, so that the strict check covers those of the heads.
        model.heads = description.heads.build(model.config.latent_size, model.action_size)
    _fill(model, _tensors(folder / WEIGHTS, weights), folder / WEIGHTS)
    return model.eval(), description


def _build(about: CheckpointDescription) -> WorldModel:
    recipe, frame = about.recipe, about.frame
    if recipe.state is None:
        return WorldModel(recipe.model, frame, about.timing, about.action)
    hidden = recipe.state.hidden
    return WorldModel(
        recipe.model, frame, about.timing, about.action, state=about.state, state_hidden=hidden
    )


def _folder_of(path: Path) -> Path:
    if path.is_file():
        with path.open("rb") as file:
            # The first bytes are enough to tell; nothing of a pickle is decoded.
            head = file.read(4)
        if head.startswith(_PICKLE_MAGIC):
            raise CheckpointError(
                f"{path}: this is a pickle, which runs code when it is read, so it was not opened; "
                f"expected a folder with {WEIGHTS} and {DESCRIPTION}: save the state dict with "
                "safetensors, or train with `jetsight train`"
            )
        path = path.parent
    if not (path / DESCRIPTION).is_file():
        raise CheckpointError(
            f"{path}: no {DESCRIPTION} found; expected a checkpoint folder with {WEIGHTS} and "
            f"{DESCRIPTION}, as `jetsight train` writes it"
        )
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); copy the whole checkpoint folder"
        ) from error


def _read_description(path: Path) -> CheckpointDescription:
    description = parse(_read(path), CheckpointDescription, str(path), error=CheckpointError)
    if description.format != FORMAT or description.version.split(".")[0] != VERSION.split(".")[0]:
        raise CheckpointError(
            f"{path}: format {description.format!r} version {description.version!r}; expected "
            f"{FORMAT!r} version {VERSION!r}; update jetsight or train again"
        )
    return description


def _tensors(path: Path, weights: bytes) -> dict[str, Tensor]:
    try:
        return load_tensors(weights)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a safetensors file ({error}); copy the checkpoint again"
        ) from error


def _fill(model: WorldModel, tensors: dict[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        # Safetensors checks layout and sizes, not values.
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: tensor {name!r} holds NaN or infinity; the training run diverged, "
                "use an earlier checkpoint"
            )
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the tensors do not fit the model in {DESCRIPTION}: {first_line(error)}"
        ) from error
