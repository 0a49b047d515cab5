"""Tiny models with nothing left at its default, and tiny recordings, for the compile tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight.storage.atomic import new_directory
from jetsight_train import checkpoint
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig, ViTConfig
from jetsight_train.model.predictor import ConditionalBlock
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.model.world_model import WorldModel
from jetsight_train.objectives import ObjectiveConfig
from jetsight_train.recipe import ActionRecipe, FrameRecipe, OptimiserConfig, Recipe, StateRecipe
from jetsight_train.record.dataset import assemble
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.staging import EpisodeRows, write_episode

SIDE, BLOCK, HISTORY, HORIZON, LATENT = 24, 2, 3, 2, 16
NAMES, FPS = ("dy", "dx"), 10
CONV = ConvConfig((12, 16), (4, 3), (2, 2), 32)
POINTS = ConvConfig((12, 16), (5, 3), (2, 1), 32, points=6)
VIT = ViTConfig(width=16, depth=2, heads=2, mlp=32, patch=8, projector=24)


def model_of(
    *,
    vit: bool = False,
    projector: int = 0,
    camera: tuple[int, int] = (SIDE, SIDE),
    conv: ConvConfig = CONV,
    history: int = HISTORY,
    horizon: int = HORIZON,
) -> WorldModel:
    """A random model in which every weight, bias, norm and statistic has its own value."""
    torch.manual_seed(0)
    predictor = PredictorConfig(2, 2, 8, 24, 16, projector, 0.1)
    config = ModelConfig(
        LATENT, history, horizon, predictor, conv=None if vit else conv, vit=VIT if vit else None
    )
    action = ActionSpec(
        NAMES, ("px", "px"), (-3.0, -3.0), (3.0, 3.0), None, (0.0, 0.0), (0.3, -0.2), (1.7, 1.4)
    )
    frame = whole_frame(camera, (SIDE, SIDE))
    return randomise(WorldModel(config, frame, TimingSpec(float(FPS), BLOCK), action))


def randomise(model: WorldModel) -> WorldModel:
    """Give every number of the model its own value, and settle its norms."""
    randomise_weights(model)
    return settle(model)


@torch.no_grad()
def randomise_weights(model: WorldModel) -> None:
    """Move whatever starts at 0 or 1, so that a folding that forgets it is seen."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            _fill(module.weight, 0.5, 1.5)
            _fill(module.bias, -0.3, 0.3)
        if isinstance(module, nn.Linear):
            _fill(module.bias, -0.3, 0.3)
        if isinstance(module, ConditionalBlock):
            module.modulation[1].weight.normal_(0.0, 0.2)
    for name, parameter in model.named_parameters():
        if "class_token" in name or "positions" in name:
            parameter.normal_(0.0, 0.3)


def settle(model: WorldModel) -> WorldModel:
    """Let the norms see the frames of `square_episode`."""
    frame = model.frame
    frames, _ = square_episode(99, length=80, side=max(frame.height_px, frame.width_px))
    seen = torch.from_numpy(frames[:, : frame.height_px, : frame.width_px])
    return settle_norms(model, lambda: model.encode(seen))


@torch.no_grad()
def settle_norms(model: WorldModel, encode: Callable[[], torch.Tensor]) -> WorldModel:
    """Let every BatchNorm see data, as training does; random ones squash all frames into one."""
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    z = encode()
    k = model.config.history
    model.predict(z[: 25 * k].view(25, k, LATENT), torch.randn(25, k, model.action_size))
    return model.eval()


def _fill(parameter: torch.Tensor | None, low: float, high: float) -> None:
    if parameter is not None:
        parameter.uniform_(low, high)


def geometry_of(recipe: Recipe) -> WorldModel:
    """A random model of a shipped recipe's geometry."""
    frame, action = recipe.frame, recipe.action
    torch.manual_seed(0)
    zeros, ones = (0.0,) * len(action.names), (1.0,) * len(action.names)
    return WorldModel(
        recipe.model,
        frame.spec,
        TimingSpec(recipe.timing.camera_hz, recipe.timing.action_block),
        ActionSpec(action.names, action.units, action.low, action.high, None, zeros, zeros, ones),
    ).eval()


def recipe_of(model: WorldModel) -> Recipe:
    """A recipe that describes the model, for a checkpoint."""
    frame, action, encoder = model.frame, model.action, model.state_encoder
    state = None
    if encoder is not None:
        spec = encoder.normalise.spec
        state = StateRecipe(spec.names, spec.units, encoder.mlp.down.out_features)
    return Recipe(
        "tiny",
        "Apache-2.0",
        model.config,
        FrameRecipe((frame.height_px, frame.width_px), frame.resize, frame.cameras),
        TimingSpec(model.timing.camera_hz, model.timing.action_block),
        ActionRecipe(action.names, action.units, action.low, action.high),
        ObjectiveConfig("vicreg"),
        OptimiserConfig(1, 1),
        state=state,
    )


def save_checkpoint(target: Path, model: WorldModel) -> Path:
    """A checkpoint folder for the model."""
    size = model.config.latent_size
    latent = checkpoint.LatentSpec((0.0,) * size, (1.0,) * size)
    how = checkpoint.Trained(1, "ab" * 32, "tiny", torch.__version__, 1.0)
    checkpoint.save(target, model, recipe_of(model), latent, how)
    return target


@cache
def square_episode(seed: int, length: int = 40, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A square that goes where the action sends it, before a mosaic that flickers."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-3.0, 3.0, (length, 2)).astype(np.float32)
    tiles = rng.integers(0, 200, (length, 4, 4, 3), dtype=np.uint8)
    size = -(-side // 4)
    frames = tiles.repeat(size, axis=1).repeat(size, axis=2)[:, :side, :side].copy()
    place = rng.uniform(4, side - 4, 2)
    for tick in range(length):
        y, x = np.round(place).astype(int)
        frames[tick, y - 3 : y + 3, x - 3 : x + 3] = (250, 120, 60)
        place = np.clip(place + actions[tick], 3, side - 3)
    return frames, actions


def write_dataset(
    target: Path,
    episodes: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    names: Sequence[str] = NAMES,
    fps: int = FPS,
) -> Path:
    """A LeRobot dataset of these frames `[T, h, w, 3]` and actions `[T, a]`."""
    staging = target.with_name(f"{target.name}-staging")
    staging.mkdir(parents=True)
    size_hw = episodes[0][0].shape[1:3]
    about = DatasetDescription("push", "tiny", fps, size_hw, ["none"], list(names), extra=())
    for index, (frames, actions) in enumerate(episodes):
        rows = EpisodeRows(actions, np.zeros((len(frames), 1), np.float32))
        write_episode(staging, index, rows, frames, about)
    with new_directory(target) as folder:
        assemble(folder, staging, range(len(episodes)), about)
    return target
