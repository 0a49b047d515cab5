"""Tiny world with exact physics, and recipes that learn it in seconds."""

from __future__ import annotations

import numpy as np

from jetsight.bundle.model_spec import TimingSpec
from jetsight_train.collapse import MonitorConfig
from jetsight_train.data.windows import Recording
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig
from jetsight_train.objectives import ObjectiveConfig
from jetsight_train.recipe import ActionRecipe, FrameRecipe, OptimiserConfig, Recipe

SIDE, BLOCK, HISTORY, HORIZON = 24, 2, 3, 2


def toy_recording(episodes: int = 6, length: int = 40, seed: int = 0) -> Recording:
    """Record a bright square that actions move: position += action, inside the frame."""
    rng = np.random.default_rng(seed)
    total = episodes * length
    actions = rng.uniform(-3.0, 3.0, (total, 2)).astype(np.float32)
    states = np.empty((total, 2), np.float32)
    frames = np.zeros((total, SIDE, SIDE, 3), np.uint8)
    for row in range(total):
        if row % length == 0:
            place = rng.uniform(4, SIDE - 4, 2)
        states[row] = place
        y, x = np.round(place).astype(int)
        frames[row, y - 3 : y + 3, x - 3 : x + 3] = (250, 120, 60)
        place = np.clip(place + actions[row], 3, SIDE - 3)
    name = f"toy-{seed}"
    return Recording(
        frames_u8=frames,
        actions=actions,
        states=states,
        starts=np.arange(0, total + 1, length),
        fps=10.0,
        action_names=("dy", "dx"),
        state_names=("y", "x"),
        digest=name,
        name=name,
    )


def toy_recipe(steps: int = 6, batch: int = 8, **objective: object) -> Recipe:
    """Make the recipe of a model of a few thousand parameters for `toy_recording`."""
    return Recipe(
        name="toy",
        license="Apache-2.0",
        model=ModelConfig(
            latent_size=16,
            history=HISTORY,
            horizon=HORIZON,
            predictor=PredictorConfig(
                depth=2, heads=2, head_size=8, mlp=32, action_hidden=16, projector=0, dropout=0.1
            ),
            conv=ConvConfig((8, 16), (4, 3), (4, 2), 32),
        ),
        frame=FrameRecipe((SIDE, SIDE), (SIDE, SIDE)),
        timing=TimingSpec(10.0, BLOCK),
        action=ActionRecipe(("dy", "dx"), ("px", "px"), (-3.0, -3.0), (3.0, 3.0)),
        objective=ObjectiveConfig(**{"kind": "vicreg", **objective}),  # type: ignore[arg-type]
        optimiser=OptimiserConfig(steps, batch, learning_rate=3e-3, warmup_steps=5),
        monitor=MonitorConfig(warmup_steps=40, every_steps=5, patience=3),
    )
