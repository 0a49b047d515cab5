"""Policies that drive the robot while it is recorded: scripted, random, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight.simulators import differential_drive
from jetsight.simulators.environment import Environment
from jetsight.simulators.policies import UserPolicy, bounded
from jetsight.simulators.registry import PUSHT
from jetsight.simulators.spec import Observation
from jetsight_train.record.diffdrive import DiffDriveDriver
from jetsight_train.record.pusht import PushTDriver, Scene

Policy = Callable[[], NDArray[np.float32]]
Driver = Callable[[Any], NDArray[np.float64]]  # of the unwrapped simulator
_SCRIPTED = "jetsight_train.record.policies:ScriptedPolicy"


def _pusht(rng: np.random.Generator) -> Driver:
    driver = PushTDriver(rng)
    return lambda simulator: driver.act(Scene.of(simulator))


def _diffdrive(rng: np.random.Generator) -> Driver:
    driver = DiffDriveDriver(rng)
    return lambda simulator: driver.act(simulator.pose)


# Environment id without its module -> maker of the driver of one episode.
DRIVERS: dict[str, Callable[[np.random.Generator], Driver]] = {
    PUSHT: _pusht,
    differential_drive.ENV_ID: _diffdrive,
}


def make_policy(name: str, environment: Environment, rng: np.random.Generator) -> Policy:
    """Make the policy `name` for one episode; call it once per tick for an action [a].

    Args:
        name: `random`, `scripted`, or that of a function, see `UserPolicy`.
        environment: open and reset; the policy reads its newest observation.
        rng: generator of all random choices.

    Raises:
        UsageError: there is no such policy, or no scripted one for this environment.
    """
    if name == "random":
        return SmoothRandom(environment.action_low, environment.action_high, rng)
    if name == "scripted":
        _driver_of(environment.env_id)
        return UserPolicy(_SCRIPTED, environment, rng)
    if ":" not in name:
        raise UsageError(
            f"there is no policy {name!r}; expected random, scripted, MODULE:FUNCTION or "
            "FILE.py:FUNCTION"
        )
    return UserPolicy(name, environment, rng)


class ScriptedPolicy:
    """Scripted driver of an environment that has one, for one episode."""

    def __init__(self) -> None:
        self._driver: Driver | None = None

    def __call__(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.float64]:
        """Choose the action [a] of the next tick.

        Raises:
            UsageError: the environment has no scripted driver.
        """
        simulator = observation.simulator
        if self._driver is None:
            self._driver = _driver_of(simulator.spec.id)(rng)
        return self._driver(simulator)


def _driver_of(env_id: str) -> Callable[[np.random.Generator], Driver]:
    found = DRIVERS.get(env_id.rpartition(":")[2])
    if found is None:
        raise UsageError(
            f"no scripted policy for {env_id!r}; there is one for {', '.join(DRIVERS)}, so use "
            "--policy random here, or your own as --policy MODULE:FUNCTION"
        )
    return found


class SmoothRandom:
    """Mean-reverting random walk through the action box.

    Independent draws per tick would average out to no motion; here the correlation time is about
    ten ticks and the standard deviation covers the box. An unbounded side counts as +-1.
    """

    _KEEP = 0.9

    def __init__(
        self, low: NDArray[np.float32], high: NDArray[np.float32], rng: np.random.Generator
    ) -> None:
        self._low, self._high = bounded(low, high)
        self._rng = rng
        self._middle, self._spread = (self._low + self._high) / 2, (self._high - self._low) / 2
        self._walk = rng.normal(0.0, 0.7, low.shape)

    def __call__(self) -> NDArray[np.float32]:
        """Draw the next action [a], inside the box."""
        # Keeps the stationary standard deviation at 0.7, that of the first draw.
        kick = 0.7 * np.sqrt(1.0 - self._KEEP**2)
        self._walk = self._KEEP * self._walk + self._rng.normal(0.0, kick, self._walk.shape)
        action = np.clip(self._middle + self._walk * self._spread, self._low, self._high)
        return action.astype(np.float32)
