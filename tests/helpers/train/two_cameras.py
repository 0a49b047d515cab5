"""A tiny robot with two cameras and a state: its world, its recordings and its recipe."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from jetsight.bundle.model_spec import TimingSpec
from jetsight.storage.atomic import new_directory
from jetsight_train.data.windows import Recording
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig, ViTConfig
from jetsight_train.objectives import ObjectiveConfig
from jetsight_train.recipe import (
    ActionRecipe,
    FrameRecipe,
    OptimiserConfig,
    Recipe,
    StateRecipe,
)
from jetsight_train.record.dataset import assemble
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.staging import EpisodeRows, write_episode

SIDE, BLOCK, HISTORY, HORIZON, LATENT = 24, 2, 3, 2, 16
NAMES, FPS = ("dy", "dx"), 10
CONV = ConvConfig((12, 16), (4, 3), (2, 2), 32)
VIT = ViTConfig(width=16, depth=2, heads=2, mlp=32, patch=8, projector=24)
CAMERAS = ("front", "wrist")
KEYS = tuple(f"observation.images.{name}" for name in CAMERAS)
COLUMNS = ("y", "x", "mode", "speed")  # `mode` never changes
STATE, STATE_UNITS = ("x", "speed", "mode"), ("px", "px/s", "1")
Fused = tuple[np.ndarray, np.ndarray, np.ndarray]  # frames [T,2,h,w,3], actions [T,a], states [T,4]


@cache
def fused_episode(seed: int, length: int = 40) -> Fused:
    """A square that the front camera sees from above and the wrist camera as a bar."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-3.0, 3.0, (length, 2)).astype(np.float32)
    tiles = rng.integers(0, 200, (length, 2, 4, 4, 3), dtype=np.uint8)
    frames = tiles.repeat(SIDE // 4, axis=2).repeat(SIDE // 4, axis=3)
    states = np.zeros((length, len(COLUMNS)), np.float32)
    place, before = rng.uniform(4, SIDE - 4, 2), np.zeros(2)
    for tick in range(length):
        y, x = np.round(place).astype(int)
        frames[tick, 0, y - 3 : y + 3, x - 3 : x + 3] = (250, 120, 60)
        frames[tick, 1, :, SIDE - x - 2 : SIDE - x + 2] = (30, 60, 250)
        states[tick] = (*place, 2.0, np.hypot(*(place - before)) * FPS if tick else 0.0)
        before = place
        place = np.clip(place + actions[tick], 3, SIDE - 3)
    return frames, actions, states


def fused_recipe(steps: int = 6, *, shared: bool = True, **changes: object) -> Recipe:
    """Recipe of a model of a few thousand parameters for `fused_dataset`."""
    fields: dict[str, object] = {
        "name": "fused",
        "license": "Apache-2.0",
        "model": config_of(shared=shared),
        "frame": FrameRecipe((SIDE, SIDE), (SIDE, SIDE), CAMERAS),
        "timing": TimingSpec(float(FPS), BLOCK),
        "action": ActionRecipe(NAMES, ("px", "px"), (-3.0, -3.0), (3.0, 3.0), None, (0.0, 0.0)),
        "objective": ObjectiveConfig("vicreg"),
        "optimiser": OptimiserConfig(steps, 8, learning_rate=3e-3, warmup_steps=5),
        "state": StateRecipe(STATE, STATE_UNITS, 16),
    }
    return Recipe(**{**fields, **changes})  # type: ignore[arg-type]


def config_of(*, vit: bool = False, shared: bool = True, conv: ConvConfig = CONV) -> ModelConfig:
    predictor = PredictorConfig(2, 2, 8, 24, 16, 0, 0.1)
    encoder = {"vit": VIT} if vit else {"conv": conv}
    return ModelConfig(LATENT, HISTORY, HORIZON, predictor, shared_trunk=shared, **encoder)


def model_states(states: np.ndarray) -> np.ndarray:
    """The columns that the model reads, in its order."""
    return np.ascontiguousarray(states[:, [COLUMNS.index(name) for name in STATE]])


def fused_recording(episodes: int = 4, length: int = 40, first: int = 0) -> Recording:
    """The same as `fused_dataset` in memory, without a codec."""
    each = [fused_episode(first + seed, length) for seed in range(episodes)]
    frames, actions, states = (np.concatenate(parts) for parts in zip(*each, strict=True))
    return Recording(
        frames_u8=frames,
        actions=actions,
        states=states,
        starts=np.arange(0, len(frames) + 1, length),
        fps=float(FPS),
        action_names=NAMES,
        state_names=COLUMNS,
        digest="fused",
        name="fused",
        cameras=KEYS,
    )


def fused_dataset(target: Path, episodes: int = 4, length: int = 40) -> Path:
    """A LeRobot dataset of both cameras and all state columns."""
    content = [fused_episode(seed, length) for seed in range(episodes)]
    return write_fused(target, content)


def write_fused(target: Path, episodes: list[Fused]) -> Path:
    """Write these episodes as a dataset with a video for each camera."""
    staging = target.with_name(f"{target.name}-staging")
    staging.mkdir(parents=True)
    about = DatasetDescription(
        "push", "fused", FPS, (SIDE, SIDE), COLUMNS, NAMES, cameras=KEYS, extra=()
    )
    for index, (frames, actions, states) in enumerate(episodes):
        write_episode(staging, index, EpisodeRows(actions, states), frames, about)
    with new_directory(target) as folder:
        assemble(folder, staging, range(len(episodes)), about)
    return target
