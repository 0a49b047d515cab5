"""Gymnasium environments with one oddity each; importing this module registers them.

`odd("Chw")` is the id of the class `Chw`. All but those that are odd in it draw `scene(tick)`: a
square that moves over a light ground, another in each corner, so that flips and axes are seen.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple

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


# Pictures


class Chw(Odd):
    observation_space = Box(0, 255, (3, H, W), np.uint8)

    def observe(self) -> Any:
        return np.ascontiguousarray(scene(self.tick).transpose(2, 0, 1))


class Grey(Odd):
    observation_space = Box(0, 255, (H, W), np.uint8)

    def observe(self) -> Any:
        return scene(self.tick)[..., 0]


class GreyFirst(Odd):
    observation_space = Box(0, 255, (1, H, W), np.uint8)

    def observe(self) -> Any:
        return scene(self.tick)[None, ..., 0]


class Padded(Odd):
    observation_space = Box(0, 255, (1, H, W, 3), np.uint8)

    def observe(self) -> Any:
        return scene(self.tick)[None]


class Unit(Odd):
    observation_space = Box(0.0, 1.0, (H, W, 3), np.float32)

    def observe(self) -> Any:
        return scene(self.tick).astype(np.float32) / 255


class Signed(Odd):
    observation_space = Box(-1.0, 1.0, (3, H, W), np.float32)

    def observe(self) -> Any:
        return scene(self.tick).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


class FloatByte(Odd):
    observation_space = Box(0.0, 255.0, (H, W, 3), np.float64)

    def observe(self) -> Any:
        return scene(self.tick).astype(np.float64)


class Deep(Odd):
    observation_space = Box(0, 65535, (H, W, 3), np.uint16)

    def observe(self) -> Any:
        return scene(self.tick).astype(np.uint16) * 257


class Wider(Odd):
    observation_space = Box(0, 255, (H, W, 3), np.int64)

    def observe(self) -> Any:
        return scene(self.tick).astype(np.int64)


class Large(Odd):
    observation_space = Box(0, 255, (120, 160, 3), np.uint8)

    def observe(self) -> Any:
        return scene(self.tick, 120, 160)


class SharedMemory(Odd):
    """Draws every picture and every state into the same arrays."""

    observation_space = Dict(pixels=PIXELS, state=VECTOR)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.shared = {"pixels": scene(0), "state": np.zeros(2, np.float32)}

    def observe(self) -> Any:
        self.shared["pixels"][:] = scene(self.tick)
        self.shared["state"][:] = self.tick
        return self.shared


class DepthAndPixels(Odd):
    observation_space = Dict(cam_depth=Box(0, 255, (H, W, 3), np.uint8), pixels=PIXELS)

    def observe(self) -> Any:
        return {"cam_depth": mask(self.tick), "pixels": scene(self.tick)}


class MaskOnly(Odd):
    observation_space = Dict(mask=PIXELS)

    def observe(self) -> Any:
        return {"mask": mask(self.tick)}


class TwoViews(Odd):
    observation_space = Dict(
        pixels=Dict(top=PIXELS, wrist=Box(0, 255, (3, H, W), np.uint8)), agent_pos=VECTOR
    )

    def observe(self) -> Any:
        wrist = scene(self.tick)[::-1].transpose(2, 0, 1)
        return {
            "pixels": {"top": scene(self.tick), "wrist": np.ascontiguousarray(wrist)},
            "agent_pos": np.array([self.tick, -1.0], np.float32),
        }


class Pair(Odd):
    observation_space = Tuple((VECTOR, PIXELS))

    def observe(self) -> Any:
        return np.zeros(2, np.float32), scene(self.tick)


class Stack(Odd):
    observation_space = Box(0, 255, (4, H, W, 3), np.uint8)

    def observe(self) -> Any:
        return np.stack([scene(max(self.tick - age, 0)) for age in (3, 2, 1, 0)])


class GreyStack(Odd):
    observation_space = Box(0, 255, (4, H, W), np.uint8)

    def observe(self) -> Any:
        return np.stack([scene(max(self.tick - age, 0))[..., 0] for age in (3, 2, 1, 0)])


class Codes(Odd):
    observation_space = Dict(
        image=Box(0, 255, (7, 7, 3), np.uint8), direction=Discrete(4), mission=Text(20)
    )

    def observe(self) -> Any:
        return {"image": np.zeros((7, 7, 3), np.uint8), "direction": 2, "mission": "go"}


class LowCodes(Odd):
    observation_space = Box(0, 10, (H, W, 3), np.uint8)

    def observe(self) -> Any:
        return np.full((H, W, 3), self.tick % 10, np.uint8)


class Vector(Odd):
    """Observes no picture, so the frame is the render."""

    observation_space = VECTOR

    def observe(self) -> Any:
        return np.array([self.tick, -self.tick], np.float32) / 10


class WideRender(Vector):
    def render(self) -> Any:
        return scene(self.tick, 240, 320)


class FloatRender(Vector):
    def render(self) -> Any:
        return scene(self.tick).astype(np.float32) / 255


class RgbaRender(Vector):
    def render(self) -> Any:
        return np.dstack([scene(self.tick), np.full((H, W), 7, np.uint8)])


class GreyRender(Vector):
    def render(self) -> Any:
        return scene(self.tick)[..., 0]


class ListRender(Vector):
    def render(self) -> Any:
        return [scene(self.tick)]


class NoRender(Vector):
    def render(self) -> Any:
        return None


class TinyRender(Vector):
    def render(self) -> Any:
        return scene(self.tick)[:9, :9]


class ChangingRender(Vector):
    def render(self) -> Any:
        return scene(self.tick) if self.tick < 3 else scene(self.tick).transpose(2, 0, 1)


class BlackRender(Vector):
    def render(self) -> Any:
        return np.zeros((H, W, 3), np.uint8)


class BlackStart(Odd):
    def observe(self) -> Any:
        return scene(self.tick) * np.uint8(self.tick > 0)


class GoesBlack(Odd):
    def observe(self) -> Any:
        return scene(self.tick) * np.uint8(self.tick < 5)


class WrongScale(Odd):
    """Declares 0 to 1 and returns 0 to 255."""

    observation_space = Box(0.0, 1.0, (H, W, 3), np.float32)

    def observe(self) -> Any:
        return scene(self.tick).astype(np.float32)


class WrongType(Odd):
    """Declares bytes and returns floats."""

    def observe(self) -> Any:
        return scene(self.tick).astype(np.float32) / 255


class NanPixel(Unit):
    def observe(self) -> Any:
        picture = super().observe()
        picture[3, 3] = np.nan if self.tick == 4 else 0.0
        return picture


class WithoutRenderMode(Odd):
    """Written without the argument that Gymnasium passes."""

    def __init__(self) -> None:
        super().__init__(None)

    def render(self) -> Any:
        raise RuntimeError("cannot draw")


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


for _kind in _all(Odd):
    gymnasium.register(
        f"{_kind.__name__}-v0", entry_point=f"{__name__}:{_kind.__name__}", max_episode_steps=9
    )


# Policies, for `--policy helpers.runtime.odd_environments:forward`


def forward(observation: Any, rng: np.random.Generator) -> Any:
    return [0.5, rng.uniform(-0.1, 0.1)]


class Remembers:
    """Turns a little more in every tick of its episode, and uses what the simulator knows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, observation: Any, rng: np.random.Generator) -> Any:
        self.calls += 1
        assert observation.simulator.tick == self.calls - 1
        return np.array([0.0, self.calls / 100])


def too_many(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, 0.0, 0.0]


def too_far(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, 1.5]


def not_a_number(observation: Any, rng: np.random.Generator) -> Any:
    return [math.nan, 0.0]


def nan_later(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, math.nan if observation.simulator.tick == 4 else 0.0]


def wrong_signature(observation: Any) -> Any:
    return [0.0, 0.0]


A_NUMBER = 3
