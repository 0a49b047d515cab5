"""Scripted driver of `jetsight/DiffDrive-v0` that goes everywhere in every way.

It does not solve a task. It travels to random places around the pillars, forwards or backwards,
drives arcs drawn from the whole action box, turns on the spot and rests, with smooth noise on top,
so that recordings hold every place, heading and pair of speeds, and some contact.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from jetsight.simulators.differential_drive import (
    ACTION_HIGH,
    ACTION_LOW,
    PILLARS,
    ROBOT_M,
    Pose,
    random_pose,
)

Vector = NDArray[np.float64]

_LOW, _HIGH = np.array(ACTION_LOW), np.array(ACTION_HIGH)
_MODES, _SHARES = ("travel", "arc", "turn", "rest"), (0.55, 0.30, 0.11, 0.04)
_TICKS = {"travel": (10, 45), "arc": (4, 18), "turn": (3, 12), "rest": (2, 6)}
_NEAR_M = 0.08  # a target this close is reached
_SIGHT_M = 0.25  # pillars nearer than this bend the way
_KEEP = 0.8  # of the noise from tick to tick


class DiffDriveDriver:
    """Behaviour for one episode; every choice is drawn from `rng`.

    Args:
        rng: generator of all random choices, so that an episode is a function of its seed.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise = np.zeros(2)
        # Uniform in the logarithm: calm episodes are as frequent as rough ones.
        self._spread = float(np.exp(rng.uniform(np.log(0.02), np.log(0.25))))
        # Some episodes do not look out for pillars, so that contact is recorded too.
        self._careful = bool(rng.random() < 0.7)
        self._ticks_left = 0
        self._mode, self._command, self._target, self._back = (
            "rest",
            np.zeros(2),
            np.zeros(2),
            False,
        )

    def act(self, pose: Pose) -> Vector:
        """Return the action [v, w] of the next tick."""
        if self._ticks_left <= 0:
            self._choose()
        self._ticks_left -= 1
        command = self._travel(pose) if self._mode == "travel" else self._command
        scale = self._spread * (_HIGH - _LOW)
        self._noise = _KEEP * self._noise + self._rng.normal(0.0, (1 - _KEEP**2) ** 0.5, 2)
        return np.clip(command + self._noise * scale, _LOW, _HIGH)

    def _choose(self) -> None:
        rng = self._rng
        self._mode = str(rng.choice(_MODES, p=_SHARES))
        self._ticks_left = int(rng.integers(*_TICKS[self._mode]))
        self._command = rng.uniform(_LOW, _HIGH)
        if self._mode == "turn":
            self._command[0] = 0.0
        if self._mode == "rest":
            self._command[:] = 0.0
        place = random_pose(rng)
        self._target, self._back = np.array([place.x, place.y]), bool(rng.random() < 0.25)
        self._speed = rng.uniform(0.4, 1.0)

    def _travel(self, pose: Pose) -> Vector:
        way = self._target - (pose.x, pose.y)
        if np.linalg.norm(way) < _NEAR_M:
            self._ticks_left = 0
        if self._careful:
            way = _bent(way, pose)
        heading = pose.heading + (math.pi if self._back else 0.0)
        off = math.remainder(math.atan2(way[1], way[0]) - heading, 2 * math.pi)
        v = self._speed * max(math.cos(off), 0.0) * (_LOW[0] if self._back else _HIGH[0])
        return np.array([v, float(np.clip(3.0 * off, _LOW[1], _HIGH[1]))])


def _bent(way: Vector, pose: Pose) -> Vector:
    """Bend the direction `way` around pillars that are close."""
    direction = way / max(float(np.linalg.norm(way)), 1e-9)
    for x, y, radius in PILLARS:
        off = np.array([pose.x - x, pose.y - y])
        gap = float(np.linalg.norm(off)) - radius - ROBOT_M
        if gap < _SIGHT_M and float(off @ direction) < 0.0:
            # Along the side that the way already leans to, the more the closer.
            side = np.array([-off[1], off[0]])
            side *= np.sign(float(side @ direction)) or 1.0
            strength = 1.0 - max(gap, 0.0) / _SIGHT_M
            direction = direction + 2.0 * strength * side / max(float(np.linalg.norm(side)), 1e-9)
    return np.asarray(direction)
