"""Model, frame, timing and action specs: one set for recipes, checkpoints and bundles.

The constructors check, so a bundle accepts every recipe that training accepts. A reader of files
puts the file and the key in front of the message.

Shapes: D latent size, K history, H horizon, B action block, a per-step action size, A = B * a model
action size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jetsight.errors import ArtefactError

_FLOAT32_MAX = 3.4e38  # the graphs and the forecaster compute in float32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_PX = 1 << 14
MOST_LATENT, MOST_STEPS, MOST_ACTION = 1 << 16, 1 << 10, 1 << 12
MOST_NAME = 64
ResampleRule = Literal["hold", "mean"]
RESAMPLE_RULES: tuple[ResampleRule, ...] = ("hold", "mean")
MOST_CAMERAS, MOST_STATE = 16, 1 << 10


@dataclass(frozen=True)
class ModelSpec:
    """Network: architecture name, parameter count and the sizes D, K, H, A."""

    architecture: str
    parameters: int
    latent_size: int
    history: int
    horizon: int
    action_size: int

    def __post_init__(self) -> None:
        within("parameters", self.parameters, 1, 10**12)
        within("latent_size", self.latent_size, 1, MOST_LATENT)
        within("history", self.history, 1, MOST_STEPS)
        within("horizon", self.horizon, 1, MOST_STEPS)
        within("action_size", self.action_size, 1, MOST_ACTION)


@dataclass(frozen=True)
class FrameSpec:
    """Camera frame that `encode` takes, and its preprocessing inside the graph.

    Args:
        height_px: camera frame height.
        width_px: camera frame width.
        channel_order: order of the three colour channels.
        crop: `(top, left, height, width)` of the region in use, in camera pixels.
        resize: `(height, width)` of the model's input, after the crop and `via`.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
        cameras: names of the cameras in order, all of this size; empty for one without a name.
        via: `(height, width)` of the frames in training, to which the crop of a larger camera's
            frame is resized first; None where that is the camera of training.

    Raises:
        ArtefactError: a size is out of range, the crop leaves the frame, a number is not finite, or
            a camera's name is unusable or repeated.
    """

    height_px: int
    width_px: int
    channel_order: Literal["rgb"]
    crop: tuple[int, ...]
    resize: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cameras: tuple[str, ...] = ()
    via: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.channel_order != "rgb":  # Python does not enforce `Literal` by itself
            raise ArtefactError(f"channel_order is {self.channel_order!r}, expected 'rgb'")
        within("height_px", self.height_px, 1, MOST_PX)
        within("width_px", self.width_px, 1, MOST_PX)
        vector("crop", self.crop, 4)
        top, left, height, width = self.crop
        inside = top >= 0 and left >= 0 and height >= 1 and width >= 1
        if not inside or top + height > self.height_px or left + width > self.width_px:
            raise ArtefactError(
                f"crop {list(self.crop)} (top, left, height, width) is outside the "
                f"{self.height_px}x{self.width_px} frame"
            )
        image_size("resize", self.resize)
        if self.via is not None:
            image_size("via", self.via)
        vector("mean", self.mean, 3)
        vector("std", self.std, 3, positive=True)
        camera_names(self.cameras)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame: `(h, w, 3)`, or `(C, h, w, 3)` with C > 1 cameras."""
        return frame_shape(self.cameras, self.height_px, self.width_px)

    @property
    def resizes(self) -> bool:
        """True if pixels are interpolated, and not only cropped."""
        steps = (self.resize,) if self.via is None else (self.via, self.resize)
        return any(tuple(step) != tuple(self.crop[2:]) for step in steps)


@dataclass(frozen=True)
class StateSpec:
    """Proprioception that `encode` takes beside the frame; one entry per number in every tuple.

    The graph computes `(state - mean) / std`; a number that never varied in training has the `std`
    1, so that its unit stays that of the robot.

    Args:
        names: of the numbers, each once, printable and at most 64 characters.
        units: of the numbers.
        mean: over the training set.
        std: over the training set, above 0.

    Raises:
        ArtefactError: a name is unusable or repeated, lengths differ, or a number is not finite.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        within("number of state names", size, 1, MOST_STATE)
        labels("names", self.names)
        length("units", self.units, size)
        vector("mean", self.mean, size)
        vector("std", self.std, size, positive=True)


@dataclass(frozen=True)
class TimingSpec:
    """Camera rate in Hz, and camera frames per model step (action block).

    Attributes:
        camera_hz (Hz): rate of the recorded frames and of the robot's actions; 0.01 to 1000.
        action_block (frames): camera frames, and so actions, per model step; the model predicts
            this far ahead at once, so half a second is a good start.

    Raises:
        ArtefactError: the rate is not a number from 0.01 to 1000, or the block not 1 to 1000.
    """

    camera_hz: float
    action_block: int

    def __post_init__(self) -> None:
        if not 0.01 <= self.camera_hz <= 1000:  # this way round NaN is refused too
            raise ArtefactError(
                f"camera_hz is {self.camera_hz}, expected 0.01 to 1000 frames per second"
            )
        within("action_block", self.action_block, 1, 1000)


@dataclass(frozen=True)
class ActionSpec:
    """One per-step action in robot units; every tuple has one entry per action dimension.

    Args:
        names: of the dimensions, each once, printable and at most 64 characters.
        units: of the dimensions.
        low: smallest value the robot accepts.
        high: largest value the robot accepts, above `low`.
        rate_limit_per_s: largest change per second; None if the robot declares none.
        neutral: value assumed while the executed action is unknown, between `low` and `high`.
        mean: over the training set.
        std: over the training set, above 0.
        resample: rule that reduces the actions of a faster recording to the model's rate: `hold`
            takes the one in force at the tick, right for positions and targets, `mean` averages
            over the tick, right for velocities.
        fixed: names of the dimensions that never varied in training, whose effect the model does
            not know; plans hold them at `neutral`.

    Raises:
        ArtefactError: a name is unusable or repeated, lengths differ, a number is not finite, the
            rule is unknown, low, neutral and high are not in order, or no dimension varied.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_limit_per_s: tuple[float, ...] | None
    neutral: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: ResampleRule = "hold"
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = len(self.names)
        if self.resample not in RESAMPLE_RULES:
            raise ArtefactError(
                f"resample is {self.resample!r}, expected one of: {', '.join(RESAMPLE_RULES)}"
            )
        within("number of action names", size, 1, 1 << 10)
        labels("names", self.names)
        length("units", self.units, size)
        for key in ("low", "high", "neutral", "mean"):
            vector(key, getattr(self, key), size)
        vector("std", self.std, size, positive=True)
        if self.rate_limit_per_s is not None:
            vector("rate_limit_per_s", self.rate_limit_per_s, size, positive=True)
        self._check_fixed()
        self._check_order()

    @property
    def held(self) -> tuple[bool, ...]:
        """True for each dimension that plans hold at `neutral`."""
        return tuple(name in self.fixed for name in self.names)

    @property
    def planned_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest action of a plan: the limits, `neutral` where held."""
        low, high = (
            tuple(
                at if held else limit
                for limit, at, held in zip(limits, self.neutral, self.held, strict=True)
            )
            for limits in (self.low, self.high)
        )
        return low, high

    def _check_fixed(self) -> None:
        labels("fixed", self.fixed)
        for name in self.fixed:
            if name not in self.names:
                raise ArtefactError(f"fixed has {name[:80]!r}, expected some of {list(self.names)}")
        if len(self.fixed) == len(self.names):
            raise ArtefactError(
                "fixed has every dimension, but a model learns from actions that vary; record "
                "the robot in motion"
            )

    def _check_order(self) -> None:
        for i, name in enumerate(self.names):
            low, high, neutral = self.low[i], self.high[i], self.neutral[i]
            if not low < high:
                raise ArtefactError(
                    f"{name!r} has low {low} and high {high}, expected low < high; give the range "
                    "that the robot accepts"
                )
            if not low <= neutral <= high:
                raise ArtefactError(
                    f"{name!r} has neutral {neutral} outside of low {low} and high {high}; give an "
                    "action that the robot may be sent"
                )


def frame_shape(cameras: Sequence[str], height_px: int, width_px: int) -> tuple[int, ...]:
    """Return the shape of a frame: `(h, w, 3)`, or `(C, h, w, 3)` with C > 1 cameras."""
    many = (len(cameras),) if len(cameras) > 1 else ()
    return (*many, height_px, width_px, 3)


def camera_names(cameras: Sequence[str]) -> None:
    """Raise `ArtefactError` unless the names of cameras are usable, distinct and few."""
    within("number of cameras", len(cameras), 0, MOST_CAMERAS)
    labels("cameras", cameras)


def is_camera(name: str, key: str) -> bool:
    """Return whether a recorded feature is the camera of that name.

    Example:
        >>> is_camera("wrist", "observation.images.wrist")
        True
    """
    return key == name or key.endswith((f".{name}", f"/{name}"))


def within(key: str, value: int, low: int, high: int) -> None:
    """Raise `ArtefactError` unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ArtefactError(f"{key} is {value}, expected {low} to {high}")


def image_size(key: str, size_hw: Sequence[int]) -> None:
    """Raise `ArtefactError` unless `size_hw` is a height and a width in pixels."""
    length(key, size_hw, 2)
    for value in size_hw:
        within(key, value, 1, MOST_PX)


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


def labels(key: str, names: Sequence[str]) -> None:
    """Raise `ArtefactError` unless the names are distinct, printable and without `=`.

    They are used in messages, tables and options like `--target NAME=VALUE`.
    """
    for name in names:
        usable = name.isprintable() and name == name.strip() and 0 < len(name) <= MOST_NAME
        if not usable or "=" in name:
            raise ArtefactError(
                f"{key} has {name[:80]!r}, expected 1 to {MOST_NAME} printable characters without "
                "'=' and without blanks at the ends"
            )
    if len(set(names)) != len(names):
        raise ArtefactError(f"{key} {list(names)} repeat themselves, expected each name once")


def identifier(key: str, value: str) -> None:
    """Raise `ArtefactError` unless `value` can name a folder and a bundle."""
    if not _NAME.fullmatch(value):
        raise ArtefactError(
            f"{key} is {value[:80]!r}, expected letters, digits, '.', '_' or '-', at most 64"
        )
