"""What a model takes and gives: sizes, frame, timing and action, as checkpoints and bundles say it.

Constructing one checks it. D latent size, K history, H horizon, B action block, a per-step action
size, A = B * a model action size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jetsight.errors import ArtefactError

_FLOAT32_MAX = 3.4e38  # the graphs and the forecaster compute in float32


@dataclass(frozen=True)
class ModelSpec:
    """What the network is: architecture name, parameter count and the sizes D, K, H, A."""

    architecture: str
    parameters: int
    latent_size: int
    history: int
    horizon: int
    action_size: int

    def __post_init__(self) -> None:
        within("parameters", self.parameters, 1, 10**12)
        within("latent_size", self.latent_size, 1, 1 << 16)
        within("history", self.history, 1, 1024)
        within("horizon", self.horizon, 1, 1024)
        within("action_size", self.action_size, 1, 1 << 12)


@dataclass(frozen=True)
class FrameSpec:
    """The camera frame `encode` takes, and what the graph does with it (for people to read).

    `crop` is (top, left, height, width) in camera pixels, `resize` (height, width) after it;
    `mean` and `std` normalise channel values in 0..1.
    """

    height_px: int
    width_px: int
    channel_order: Literal["rgb"]
    crop: tuple[int, ...]
    resize: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        within("height_px", self.height_px, 1, 1 << 14)
        within("width_px", self.width_px, 1, 1 << 14)
        vector("crop", self.crop, 4)
        top, left, height, width = self.crop
        inside = top >= 0 and left >= 0 and height >= 1 and width >= 1
        if not inside or top + height > self.height_px or left + width > self.width_px:
            raise ArtefactError(
                f"crop {list(self.crop)} (top, left, height, width) is outside the "
                f"{self.height_px}x{self.width_px} frame"
            )
        vector("resize", self.resize, 2)
        for size in self.resize:
            within("resize", size, 1, 1 << 14)
        vector("mean", self.mean, 3)
        vector("std", self.std, 3, positive=True)


@dataclass(frozen=True)
class TimingSpec:
    """Camera rate in Hz, and how many camera frames one model step (action block) spans."""

    camera_hz: float
    action_block: int

    def __post_init__(self) -> None:
        if not 0.01 <= self.camera_hz <= 1000:
            raise ArtefactError(f"camera_hz is {self.camera_hz}, expected 0.01 to 1000")
        within("action_block", self.action_block, 1, 1000)


@dataclass(frozen=True)
class ActionSpec:
    """One per-step action in robot units: names, units, bounds, neutral value, normaliser.

    All tuples have one entry per action dimension. `rate_limit_per_s` is in units per second, or
    None when the robot declares none.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_limit_per_s: tuple[float, ...] | None
    neutral: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        within("number of action names", size, 1, 1 << 10)
        if len(set(self.names)) != size:
            raise ArtefactError(f"names {list(self.names)} repeat themselves")
        length("units", self.units, size)
        for key in ("low", "high", "neutral", "mean"):
            vector(key, getattr(self, key), size)
        vector("std", self.std, size, positive=True)
        if self.rate_limit_per_s is not None:
            vector("rate_limit_per_s", self.rate_limit_per_s, size, positive=True)
        for name, low, neutral, high in zip(
            self.names, self.low, self.neutral, self.high, strict=True
        ):
            if not low < high or not low <= neutral <= high:
                raise ArtefactError(
                    f"{name!r} has low {low}, neutral {neutral}, high {high}; "
                    "expected low < high with neutral between"
                )


def within(key: str, value: int, low: int, high: int) -> None:
    """Raise `ArtefactError` unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ArtefactError(f"{key} is {value}, expected {low} to {high}")


def length(key: str, values: Sequence[object], size: int) -> None:
    """Raise `ArtefactError` unless there are `size` values."""
    if len(values) != size:
        raise ArtefactError(f"{key} has {len(values)} values, expected {size}")


def vector(key: str, values: Sequence[float], size: int, *, positive: bool = False) -> None:
    """Raise `ArtefactError` unless `values` are `size` finite (and positive) float32 numbers."""
    length(key, values, size)
    for value in values:
        if not math.isfinite(value) or abs(value) > _FLOAT32_MAX:
            raise ArtefactError(f"{key} holds {value}, expected finite float32 numbers")
        if positive and value <= 0:
            raise ArtefactError(f"{key} holds {value}, expected numbers above 0")
