"""World that is linear in its latent, so that heads learn it exactly in few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight_train import checkpoint
from jetsight_train.collapse import MonitorConfig
from jetsight_train.data.encoded import Tracks
from jetsight_train.data.windows import Recording
from jetsight_train.heads.recipe import (
    HazardRecipe,
    HeadOptimiserConfig,
    HeadsRecipe,
    ProbeColumn,
    SplitRecipe,
)
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig
from jetsight_train.model.hazard_rules import Disc
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.model.world_model import WorldModel
from jetsight_train.objectives import ObjectiveConfig
from jetsight_train.recipe import ActionRecipe, FrameRecipe, OptimiserConfig, Recipe

D, K, H, B, SIDE, FPS = 8, 2, 3, 2, 8, 10.0
A = 2 * B
ROOM = 10.0  # positions are in [0, ROOM] metres
KEEP_OUT = HazardRecipe("keep_out", disc=Disc(("x", "y"), (6.0, 4.0), 2.0), miss_rate=0.05)
LATENT_OF = np.random.default_rng(7).normal(size=(2, D)).astype(np.float32)

WORLD_RECIPE = Recipe(
    "linear",
    "Apache-2.0",
    ModelConfig(
        D, K, H, PredictorConfig(1, 1, 8, 16, 8, 0, 0.0), conv=ConvConfig((4,), (4,), (4,), 8)
    ),
    FrameRecipe((SIDE, SIDE), (SIDE, SIDE)),
    TimingSpec(FPS, B),
    ActionRecipe(("dx", "dy"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    ObjectiveConfig("vicreg"),
    OptimiserConfig(1, 1),
    MonitorConfig(),
)


def heads_recipe(steps: int = 150, **changes: object) -> HeadsRecipe:
    """Make a small recipe of all heads."""
    whole = HeadsRecipe(
        "toy-heads",
        probe=(ProbeColumn("x", "m"), ProbeColumn("heading", "rad")),
        hazard=(KEEP_OUT,),
        hidden=(32,),
        windows=400,
        split=SplitRecipe(0.3, 0.2),
        optimiser=HeadOptimiserConfig(steps, 128, 1e-2, 1e-3),
    )
    return replace(whole, **changes)


class LinearWorld(WorldModel):
    """World model whose latents are linear in a position, which actions move."""

    def predict(self, z: Tensor, a: Tensor) -> Tensor:
        moved = a[:, -1].reshape(len(a), B, 2).sum(1)
        return z[:, -1] + moved @ torch.from_numpy(LATENT_OF)


def world(kind: type[WorldModel] = LinearWorld) -> WorldModel:
    names = ("dx", "dy")
    action = ActionSpec(
        names, ("m", "m"), (-1.0,) * 2, (1.0,) * 2, None, (0.0,) * 2, (0.0,) * 2, (0.5,) * 2
    )
    frame = whole_frame((SIDE, SIDE), (SIDE, SIDE))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(WORLD_RECIPE.model, frame, TimingSpec(FPS, B), action).eval()


def recording(episodes: int = 20, length: int = 40, seed: int = 0, **changes: object) -> Recording:
    """Record a point that moves through a room; its heading is seen from the centre."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0.0, ROOM, (episodes, 2))
    states, actions = [], []
    for _ in range(length):
        step = np.clip(rng.normal(0.0, 0.5, (episodes, 2)), -1.0, 1.0)
        step = np.clip(place + step, 0.0, ROOM) - place  # actions never lead out of the room
        heading = np.arctan2(place[:, 1] - ROOM / 2, place[:, 0] - ROOM / 2)
        states.append(np.column_stack([place, heading]))
        actions.append(step)
        place = place + step
    state_rows, action_rows = (
        np.stack(part, 1).reshape(episodes * length, -1).astype(np.float32)
        for part in (states, actions)
    )
    frames = rng.integers(0, 256, (episodes * length, SIDE, SIDE, 3), np.uint8)
    whole = Recording(
        frames,
        actions=action_rows,
        states=state_rows,
        starts=np.arange(0, episodes * length + 1, length),
        fps=FPS,
        action_names=("dx", "dy"),
        state_names=("x", "y", "heading"),
        digest=f"{seed:064x}",
        name=f"toy-{seed}",
    )
    return replace(whole, **changes)


def tracks(episodes: int = 20, length: int = 40, seed: int = 0, noise: float = 0.02) -> Tracks:
    """Make the same recording with the latents of `LinearWorld`."""
    whole = recording(episodes, length, seed)
    rng = np.random.default_rng((seed, 1))
    z = (whole.states[:, :2] - ROOM / 2) @ LATENT_OF
    z = (z + rng.normal(0.0, noise, z.shape)).astype(np.float32)
    columns = dict(zip(whole.state_names, whole.states.T, strict=True))
    return Tracks(replace(whole, frames_u8=whole.frames_u8[:0]), torch.from_numpy(z), columns)


def saved(folder: Path) -> tuple[WorldModel, checkpoint.CheckpointDescription, Path]:
    """Write a checkpoint of the same sizes without heads, and read it back."""
    model = world(WorldModel)
    latent = checkpoint.LatentSpec((0.0,) * D, (1.0,) * D)
    how = checkpoint.Trained(1, "0" * 64, "toy", torch.__version__, 0.0)
    checkpoint.save(folder, model, WORLD_RECIPE, latent, how)
    return (*checkpoint.load(folder), folder)
