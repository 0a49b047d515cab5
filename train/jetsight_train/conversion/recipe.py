"""Settings of a conversion: what a user wants, and everything that determines the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jetsight.bundle.model_spec import ResampleRule
from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.resample import Crop, TickRows
from jetsight.errors import UsageError
from jetsight_train.record.description import DatasetDescription


@dataclass(frozen=True)
class ConversionOptions:
    """Wanted form of the converted dataset; every default keeps what is recorded.

    Args:
        features: which features are actions, states and frames, where that is not clear; with a
            rate, rows are evenly spaced, whatever their time stamps say.
        hz: rate of the result; None for that of the source.
        actions: rule that reduces the actions of one tick, `"hold"` or `"mean"`.
        size_hw: frame height and width of the result; None for those of the source.
        crop: `"center"` for the largest region of the new shape, `"full"` for the whole frame,
            or `(top, left, height, width)` in pixels of the source.
        episodes: spans such as `"0:50,60"`; None for all.
        hold_out: share of the episodes that go into a second dataset.
        shift: rows of the source by which actions are moved later; negative for earlier.
        lossless: store PNG pictures instead of a video.
    """

    features: FeatureMap
    hz: float | None = None
    actions: ResampleRule = "hold"
    size_hw: tuple[int, int] | None = None
    crop: Literal["center", "full"] | Crop = "center"
    episodes: str | None = None
    hold_out: float = 0.0
    shift: int = 0
    lossless: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.hold_out <= 0.9:
            raise UsageError(
                f"--hold-out is {self.hold_out:g}, expected a share from 0 to 0.9, e.g. 0.1"
            )
        if self.hz is not None and not 0.01 <= self.hz <= 1000:
            raise UsageError(f"--hz is {self.hz:g}, expected 0.01 to 1000 frames per second")


@dataclass(frozen=True)
class ConvertedCamera:
    """One camera: its feature in the source and in the result, and the region in use."""

    source: str
    key: str
    crop: Crop


@dataclass(frozen=True)
class ConversionRecipe:
    """Settings that determine a converted dataset; stored in it, and beside unfinished ones.

    Attributes:
        source: facts about the source: name, format, robot, rate, SHA-256 of its files.
        features: which features of the source are read.
        cameras: in order.
        hz: rate of the result.
        actions: see `ConversionOptions`.
        shift: see `ConversionOptions`.
        columns: further columns that are kept.
        size_hw: frame height and width of the result.
        lossless: see `ConversionOptions`.
        episodes: episodes of the source, in the order of the result.
    """

    source: dict[str, Any]
    features: FeatureMap
    cameras: tuple[ConvertedCamera, ...]
    hz: float
    actions: ResampleRule
    shift: int
    columns: tuple[str, ...]
    size_hw: tuple[int, int]
    lossless: bool
    episodes: tuple[int, ...]

    def as_text(self, *, episodes: bool) -> str:
        """Return the settings as JSON, with or without the choice of episodes."""
        plain = asdict(self)
        if not episodes:
            del plain["episodes"]
        return json.dumps(plain, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class ConversionPlan:
    """A conversion that can be run: of `path`, into one or two datasets.

    Attributes:
        path: the source.
        recipe: with the episodes that are kept.
        held_out: episodes of the source for the second dataset; may be empty.
        description: of the result.
    """

    path: Path
    recipe: ConversionRecipe
    held_out: tuple[int, ...]
    description: DatasetDescription

    def of(self, episodes: Sequence[int]) -> ConversionRecipe:
        """Return the recipe of one of the two datasets."""
        return replace(self.recipe, episodes=tuple(episodes))


def tick_rows(stamps_s: NDArray[np.float64], fps: float, recipe: ConversionRecipe) -> TickRows:
    """Place the ticks of one episode of a source of rate `fps`.

    Raises:
        DataError: its times do not ascend, or frames are missing.
    """
    if recipe.features.rate_hz is not None:  # a rate that is given overrules the stamps
        return TickRows.even(len(stamps_s), fps, recipe.hz)
    return TickRows.of(stamps_s, fps, recipe.hz)
