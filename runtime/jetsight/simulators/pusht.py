"""`gym_pusht/PushT-v0` with its full state, names and units, and without an end on success."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

STATE_NAMES = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")


class PushTWrapper:
    """PushT that observes pixels and the poses of agent and block.

    Success does not end an episode, since the physics goes on. State: agent x, y, block x, y in px
    of 512, block angle in [0, 2 pi).

    Args:
        env: the environment of gym-pusht, observing pixels.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self.action_space = env.action_space
        self.unwrapped = env.unwrapped
        # As a plain object, because this module must load without gymnasium.
        state = SimpleNamespace(shape=(len(STATE_NAMES),), dtype=np.dtype(np.float64))
        self.observation_space = SimpleNamespace(
            spaces={"pixels": env.observation_space, "state": state}
        )
        self.metadata = {
            **env.metadata,
            "action_names": ["target_x", "target_y"],
            "action_units": ["px", "px"],
            "state_names": list(STATE_NAMES),
            "state_units": ["px", "px", "px", "px", "rad"],
        }

    def reset(self, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of `seed`."""
        pixels, info = self._env.reset(seed=seed)
        return self._observed(pixels), info

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Advance one tick of 0.1 s."""
        pixels, reward, _, _, info = self._env.step(action)
        return self._observed(pixels), reward, False, False, info

    def render(self) -> Any:
        """Draw the scene."""
        return self._env.render()

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()

    def exact_state(self) -> bytes:
        """Serialize poses and velocities of agent and block."""
        bodies = (self.unwrapped.agent, self.unwrapped.block)
        parts = [value for body in bodies for value in (*body.position, *body.velocity)]
        block = self.unwrapped.block
        return np.array([*parts, block.angle, block.angular_velocity]).tobytes()

    def _observed(self, pixels: Any) -> dict[str, Any]:
        agent, block = self.unwrapped.agent, self.unwrapped.block
        # The simulator's angle goes on counting after a whole turn.
        angle = block.angle % (2 * math.pi)
        return {"pixels": pixels, "state": np.array([*agent.position, *block.position, angle])}
