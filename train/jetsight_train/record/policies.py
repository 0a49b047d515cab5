"""Policies that drive the robot while it is recorded: scripted, or random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight.simulators import differential_drive
from jetsight_train.record.diffdrive import DiffDriveDriver
from jetsight_train.record.environments import PixelEnvironment, PushT
from jetsight_train.record.pusht import PushTDriver

Policy = Callable[[], NDArray[np.float32]]
NAMES = ("scripted", "random")


def make_policy(name: str, environment: PixelEnvironment, rng: np.random.Generator) -> Policy:
    """Make the policy `name` for one episode; call it once per tick for an action [a].

    Raises:
        UsageError: there is no scripted policy for this environment.
    """
    if name == "random":
        return SmoothRandom(environment.action_low, environment.action_high, rng)
    if environment.env_id == differential_drive.ENV_ID:
        pilot, world = DiffDriveDriver(rng), environment.unwrapped
        return lambda: pilot.act(world.pose).astype(np.float32)
    if not isinstance(environment, PushT):
        raise UsageError(
            f"no scripted policy for {environment.env_id!r}; "
            "there is one for gym_pusht/PushT-v0 and jetsight/DiffDrive-v0, so use --policy random "
            "here"
        )
    driver, scene = PushTDriver(rng), environment.scene
    return lambda: driver.act(scene()).astype(np.float32)


class SmoothRandom:
    """Mean-reverting random walk through the action box.

    Independent draws per tick would average out to no motion; here the correlation time is about
    ten ticks and the standard deviation covers the box. An unbounded side counts as +-1.
    """

    _KEEP = 0.9

    def __init__(
        self, low: NDArray[np.float32], high: NDArray[np.float32], rng: np.random.Generator
    ) -> None:
        low = np.where(np.isfinite(low), low, -1.0)
        high = np.where(np.isfinite(high), high, 1.0)
        self._low, self._high, self._rng = low, high, rng
        self._middle, self._spread = (low + high) / 2, (high - low) / 2
        self._walk = rng.normal(0.0, 0.7, low.shape)

    def __call__(self) -> NDArray[np.float32]:
        """Draw the next action [a], inside the box."""
        # Keeps the stationary standard deviation at 0.7, that of the first draw.
        kick = 0.7 * np.sqrt(1.0 - self._KEEP**2)
        self._walk = self._KEEP * self._walk + self._rng.normal(0.0, kick, self._walk.shape)
        action = np.clip(self._middle + self._walk * self._spread, self._low, self._high)
        return action.astype(np.float32)
