"""Requirements on an environment, and what it delivers in one tick.

Shapes: C cameras, h, w frame size, s state size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError


@dataclass(frozen=True)
class EnvironmentSpec:
    """Environment to open, and the camera, names and rate to give it.

    Args:
        env_id: Gymnasium id, e.g. `"gym_pusht/PushT-v0"`; `module:id` or `file.py:id` imports one
            first.
        size_hw: height and width of a frame; pictures of another size are area-resampled to it.
        cameras: observations to take frames from, by dotted name (`"pixels.top"`), or `"render"`;
            empty for the only colour picture that is observed, else the render.
        action_names: of the action's dimensions; empty for those of the environment's metadata,
            else made-up ones.
        action_units: one per action name; empty for those of the metadata.
        keep: entries of `info` to keep, as `"info.hit"`; empty for those of the metadata.
        hz: ticks per second, compared with the metadata's `render_fps`; None for that rate.
        steps: longest episode in ticks, before which no time limit ends it; None for no limit.

    Raises:
        UsageError: the size, the rate or a name is unusable.
    """

    env_id: str
    size_hw: tuple[int, int]
    cameras: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    hz: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1:
            raise UsageError(f"frame size (height, width) is {self.size_hw}, expected 1 or more")
        if self.hz is not None and not 0.01 <= self.hz <= 1000:
            raise UsageError(f"rate is {self.hz} Hz, expected 0.01 to 1000 ticks per second")
        for option in ("cameras", "keep"):
            values = getattr(self, option)
            if len(set(values)) != len(values):
                raise UsageError(f"{option} {list(values)} repeat themselves; give each once")


@dataclass(frozen=True)
class Observation:
    """Observation of one tick.

    Args:
        frame_hwc_u8: `uint8 [h,w,3]` RGB, or `[C,h,w,3]` with several cameras.
        state: `float32 [s]`, in the order of the environment's `state_names`.
        kept: entries of `info` that the spec keeps, by name.
        raw: the environment's own observation.
        info: the environment's own `info`.
        simulator: the unwrapped Gymnasium environment, for a policy that reads what no sensor sees.
    """

    frame_hwc_u8: NDArray[np.uint8]
    state: NDArray[np.float32]
    kept: Mapping[str, bool | float] = field(default_factory=dict)
    raw: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)
    simulator: Any = None
