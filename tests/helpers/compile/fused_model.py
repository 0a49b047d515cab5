"""A random model of two cameras and a state, with nothing left at its default."""

from __future__ import annotations

import torch

from helpers.compile.tiny_model import randomise_weights, settle_norms
from helpers.train.two_cameras import (
    BLOCK,
    CAMERAS,
    FPS,
    NAMES,
    SIDE,
    STATE,
    STATE_UNITS,
    config_of,
    fused_episode,
    model_states,
)
from jetsight.bundle.model_spec import ActionSpec, StateSpec, TimingSpec
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.model.world_model import WorldModel


def fused_model(
    *,
    cameras: tuple[str, ...] = CAMERAS,
    state: bool = True,
    camera: tuple[int, int] = (SIDE, SIDE),
    **config: object,
) -> WorldModel:
    """A random fused model in which every weight, bias, norm and statistic has its own value."""
    torch.manual_seed(0)
    action = ActionSpec(
        NAMES, ("px", "px"), (-3.0, -3.0), (3.0, 3.0), None, (0.0, 0.0), (0.3, -0.2), (1.7, 1.4)
    )
    spec = StateSpec(STATE, STATE_UNITS, (12.0, 20.0, 2.0), (6.0, 12.0, 1.0)) if state else None
    model = WorldModel(
        config_of(**config),  # type: ignore[arg-type]
        whole_frame(camera, (SIDE, SIDE), cameras),
        TimingSpec(float(FPS), BLOCK),
        action,
        state=spec,
        state_hidden=16,
    )
    randomise_weights(model)
    frames, _, states = fused_episode(99, length=80)
    high, wide = (-(-side // SIDE) for side in camera)
    frames = frames.repeat(high, axis=2).repeat(wide, axis=3)[:, :, : camera[0], : camera[1]]
    seen = frames if len(cameras) > 1 else frames[:, 0]
    given = torch.from_numpy(model_states(states)) if state else None
    return settle_norms(model, lambda: model.encode(torch.from_numpy(seen.copy()), given))
