"""Small Gymnasium environments for tests; importing this module registers them.

`gym_factory:jetsight/Fade-v0` draws a square whose place follows the action, shows pixels and a
joint vector in a dictionary, and ends after twelve ticks. It costs microseconds per step.
"""

from __future__ import annotations

import time
from typing import ClassVar

import gymnasium
import numpy as np
import pytest

from jetsight.errors import JetsightError
from jetsight.simulators.environment import Environment
from jetsight.simulators.registry import PUSHT
from jetsight.simulators.spec import EnvironmentSpec

FADE = "helpers.train.gym_factory:jetsight/Fade-v0"
BROKEN = "helpers.train.gym_factory:jetsight/Broken-v0"
SLOW = "helpers.train.gym_factory:jetsight/Slow-v0"
NAMELESS = "helpers.train.gym_factory:jetsight/Nameless-v0"
LAST_TICK = 12


class Fade(gymnasium.Env):
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = gymnasium.spaces.Dict(
        {
            "pixels": gymnasium.spaces.Box(0, 255, (32, 48, 3), np.uint8),
            "joint": gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 2)
        self.tick = 0
        return self._observe(), {}

    def step(self, action):
        self.place = 0.8 * self.place + 0.2 * np.asarray(action, dtype=np.float64)
        self.tick += 1
        return self._observe(), float(self.place[0]), self.tick >= LAST_TICK, False, {}

    def _observe(self):
        frame = np.full((32, 48, 3), 200, np.uint8)
        row, column = ((self.place + 1) / 2 * (20, 36)).astype(int)
        frame[row : row + 12, column : column + 12] = (30, 60, 90)
        return {"pixels": frame, "joint": np.array([*self.place, self.tick / 100], np.float32)}


class Broken(Fade):
    """Environment that fails in the third tick if `place[0]` is positive, so for some seeds."""

    def step(self, action):
        if self.tick == 2 and self.place[0] > 0:
            raise RuntimeError("the gripper\nfell off")
        return super().step(action)


class Slow(Fade):
    """Environment with 20 ms per tick, so that a test can interrupt it."""

    def step(self, action):
        time.sleep(0.02)
        return super().step(action)


class Nameless(Fade):
    metadata: ClassVar = {"render_modes": ["rgb_array"]}


for kind in (Fade, Broken, Slow, Nameless):
    gymnasium.register(f"jetsight/{kind.__name__}-v0", entry_point=kind)


def why_no_pusht() -> str | None:
    """Return the reason why gym-pusht cannot run here (its OpenCV needs libGL), or None."""
    try:
        Environment.open(EnvironmentSpec(PUSHT, (16, 16))).close()
    except JetsightError as problem:
        return str(problem)
    return None


_WHY = why_no_pusht()
needs_pusht = pytest.mark.skipif(_WHY is not None, reason=str(_WHY))
