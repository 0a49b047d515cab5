"""Environments whose observation or render is odd as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

from helpers.simulators.base import PIXELS, VECTOR, H, Odd, W, mask, scene


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


class OneBlackView(TwoViews):
    def observe(self) -> Any:
        seen = super().observe()
        seen["pixels"]["wrist"] = np.zeros((3, H, W), np.uint8)
        return seen


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
