"""Gymnasium environments with one oddity each; importing this module registers them.

`odd("Chw")` is the id of the class `Chw`. All but those that are odd in it draw `scene(tick)`: a
square that moves over a light ground below a mark in one corner, so that flips and swapped axes are
seen.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple

from helpers.simulators.base import PIXELS, VECTOR, H, Odd, W, scene
from helpers.simulators.pictures import TwoViews, Vector

# Actions


class Choices(Odd):
    action_space = Discrete(4)


class ManyChoices(Odd):
    action_space = MultiDiscrete([3, 3])


class WholeNumbers(Odd):
    action_space = Box(0, 5, (2,), np.int64)


class Arm(Odd):
    action_space = Dict(arm=Box(-1.0, 1.0, (2,), np.float32), gripper=Box(0.0, 1.0, (), np.float64))


class ArmAndMode(Odd):
    action_space = Dict(arm=Box(-1.0, 1.0, (2,), np.float32), mode=Discrete(3))


class Both(Odd):
    action_space = Tuple((Box(-1.0, 1.0, (1,), np.float32), Box(-2.0, 2.0, (2,), np.float32)))


class Matrix(Odd):
    action_space = Box(-1.0, 1.0, (2, 3), np.float32)


class Unbounded(Odd):
    action_space = Box(-np.inf, np.array([np.inf, -5.0], np.float32), (2,), np.float32)


# States, info, rewards


class Nested(Odd):
    observation_space = Dict(
        pixels=PIXELS,
        obj=Dict(pos=Box(-9.0, 9.0, (2,), np.float32), held=Discrete(2)),
        clock=Box(0.0, 99.0, (), np.float32),
        name=Text(9),
    )

    def observe(self) -> Any:
        return {
            "pixels": scene(self.tick),
            "obj": {"pos": np.array([1.0, 2.0]), "held": 1},
            "clock": np.float32(self.tick),
            "name": "cup",
        }


class SameNames(Odd):
    observation_space = Dict(pixels=PIXELS, a=VECTOR, a_0=Box(-1.0, 1.0, (), np.float32))

    def observe(self) -> Any:
        return {"pixels": scene(self.tick), "a": np.zeros(2), "a_0": 0.0}


class NanState(Vector):
    def observe(self) -> Any:
        return np.array([0.0, math.nan if self.tick == 3 else 0.0], np.float32)


class NanReward(Odd):
    def reward(self) -> Any:
        return math.nan if self.tick == 3 else 0.0


class MissingPart(TwoViews):
    def observe(self) -> Any:
        return {"pixels": super().observe()["pixels"]} if self.tick == 2 else super().observe()


class Rover(Odd):
    """Declares everything there is to declare."""

    metadata: ClassVar[dict[str, Any]] = {
        **Odd.metadata,
        "action_names": ["v", "w"],
        "action_units": ["m/s", "rad/s"],
        "state_names": ["x", "y"],
        "state_units": ["m", "m"],
        "keep": ["info.hit"],
    }
    observation_space = Dict(pixels=PIXELS, state=VECTOR)

    def observe(self) -> Any:
        return {"pixels": scene(self.tick), "state": np.array([self.tick, 0.5], np.float32)}

    def info(self) -> dict[str, Any]:
        wheels = {"left": np.float64(self.tick / 4)}
        return {"wheels": wheels} | ({"hit": self.tick > 3, "gap": 0.1} if self.tick else {})


class NanInfo(Odd):
    def info(self) -> dict[str, Any]:
        return {"gap": math.nan if self.tick == 3 else 1.0, "note": "text"}


class BadNames(Odd):
    metadata: ClassVar[dict[str, Any]] = {**Odd.metadata, "action_names": 2}


class OwnBox(Box):
    """A space of one's own, as wrappers bring them."""


class OwnSpaces(Odd):
    action_space = OwnBox(-1.0, 1.0, (2,), np.float32)
    observation_space = OwnBox(0, 255, (H, W, 3), np.uint8)


class Misnamed(Odd):
    metadata: ClassVar[dict[str, Any]] = {**Odd.metadata, "state_names": ["x", "y"]}


# Time


class OneStep(Odd):
    def over(self) -> tuple[bool, bool]:
        return False, True


class OneStepLater(Odd):
    """Ends after one step in every episode but the first few."""

    resets = 0

    def reset(self, **options: Any) -> tuple[Any, Any]:
        self.resets += 1
        return super().reset(**options)

    def over(self) -> tuple[bool, bool]:
        return self.tick >= 5 or self.resets > 3, False


class HalfRate(Odd):
    metadata: ClassVar[dict[str, Any]] = {**Odd.metadata, "render_fps": 12.5}


class NoRate(Odd):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}


class BadRate(Odd):
    metadata: ClassVar[dict[str, Any]] = {**Odd.metadata, "render_fps": "fast"}


# Failures


class FailsInInit(Odd):
    def __init__(self, render_mode: str | None = None) -> None:
        raise OSError("no licence\nfor this robot")


class FailsInReset(Odd):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        raise KeyError("seed")


class FailsLater(Odd):
    def observe(self) -> Any:
        if self.tick == 4:
            raise RuntimeError("the wheel\nfell off")
        return super().observe()


def odd(name: str) -> str:
    """Return the id of the environment of the class `name`."""
    return f"{__name__}:{name}-v0"


def _all(kind: type[Odd]) -> list[type[Odd]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _all(child))]


KINDS = [kind.__name__ for kind in _all(Odd)]

for _kind in _all(Odd):
    gymnasium.register(f"{_kind.__name__}-v0", entry_point=_kind, max_episode_steps=9)
