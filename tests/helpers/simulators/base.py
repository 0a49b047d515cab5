"""The environment that is odd in nothing, which the odd ones change in one thing each."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box

H, W, HZ = 32, 48, 10
Array = np.ndarray[Any, Any]
PIXELS = Box(0, 255, (H, W, 3), np.uint8)
VECTOR = Box(-9.0, 9.0, (2,), np.float32)


def scene(tick: int, height: int = H, width: int = W) -> Array:
    """Draw `uint8 [height, width, 3]` of one tick."""
    picture = np.full((height, width, 3), (230, 220, 200), np.uint8)
    side, x = height // 4, (5 * tick) % (width - height // 4)
    picture[height // 3 : height // 3 + side, x : x + side] = (20, 60, 220)
    picture[: height // 8, : width // 2] = (220, 20, 20)
    return picture


def mask(tick: int) -> Array:
    """Draw what a segmentation shows: 0 or 255."""
    return np.where(scene(tick) > 128, 255, 0).astype(np.uint8)


class Odd(gymnasium.Env):
    """The environment that is odd in nothing: observes pixels, takes two numbers."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": HZ}
    action_space = Box(-1.0, 1.0, (2,), np.float32)
    observation_space = PIXELS

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.tick = 0
        self.taken: list[Any] = []

    def observe(self) -> Any:
        return scene(self.tick)

    def info(self) -> dict[str, Any]:
        return {}

    def over(self) -> tuple[bool, bool]:
        return False, False

    def reward(self) -> Any:
        return 0.5

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.tick = 0
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        self.tick += 1
        self.taken.append(action)
        return self.observe(), self.reward(), *self.over(), self.info()

    def render(self) -> Any:
        return scene(self.tick)
