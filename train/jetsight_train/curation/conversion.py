"""The plan of a conversion: which episodes and cameras, at which rate and size, by which rules.

Everything that can be refused is refused here, before a frame is decoded.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import rates_agree
from jetsight.datasets.open import open_dataset
from jetsight.datasets.resample import Crop, ResampleRule, TickRows, centred_crop
from jetsight.errors import DataError, StorageError, UsageError
from jetsight_train.curation.timing import survey_timing
from jetsight_train.record.description import DatasetDescription

CAMERA_PREFIX = "observation.images."
Times = Literal["recorded", "even"]
_LEAST_PX = 16
_TIMES_TOLERANCE = 0.05  # a recorder that is later by more than this has another rate
_STORED_BYTES_PER_PX = {"video": 0.15, "png": 2.0}  # at most, with the copies of the last step


@dataclass(frozen=True)
class ConversionOptions:
    """Wanted form of the converted dataset; every default keeps what is recorded.

    Args:
        features: which features are actions, states and frames, where that is not clear.
        hz: rate of the result; None for that of the source.
        actions: rule that reduces the actions of one tick, `"hold"` or `"mean"`.
        size_hw: frame height and width of the result; None for those of the source.
        crop: `"center"` for the largest region of the new shape, `"full"` for the whole frame,
            or `(top, left, height, width)` in pixels of the source.
        episodes: spans such as `"0:50,60"`; None for all.
        hold_out: share of the episodes that go into a second dataset.
        times: `"recorded"` places rows by their time stamps, `"even"` by the declared rate.
        lossless: store PNG pictures instead of a video.
    """

    features: FeatureMap
    hz: float | None = None
    actions: ResampleRule = "hold"
    size_hw: tuple[int, int] | None = None
    crop: Literal["center", "full"] | Crop = "center"
    episodes: str | None = None
    hold_out: float = 0.0
    times: Times = "recorded"
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
        times: see `ConversionOptions`.
        size_hw: frame height and width of the result.
        lossless: see `ConversionOptions`.
        episodes: episodes of the source, in the order of the result.
    """

    source: dict[str, Any]
    features: FeatureMap
    cameras: tuple[ConvertedCamera, ...]
    hz: float
    actions: ResampleRule
    times: Times
    size_hw: tuple[int, int]
    lossless: bool
    episodes: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


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


def open_views(path: Path, features: FeatureMap) -> list[RecordedDataset]:
    """Open a source once for each camera, because cameras may differ in size.

    Raises:
        UsageError: there are several cameras and none was chosen.
        DataError: the source has no actions, or cannot be opened.
    """
    described = open_dataset(
        path,
        features if len(features.cameras) == 1 else replace(features, cameras=()),
        describe=True,
    )
    if not described.action_names:
        raise DataError(f"{path}: {described.missing.get('action', 'no actions are recorded')}")
    keys = features.cameras
    if keys == ("all",):
        keys = tuple(camera.key for camera in described.cameras if camera.kind == "colour")
    if len(keys) < 2:
        described.check_cameras()
        return [described]
    return [open_dataset(path, replace(features, cameras=(key,))) for key in keys]


def plan_conversion(path: Path, options: ConversionOptions) -> ConversionPlan:
    """Check the options against the source and settle every open question.

    Raises:
        UsageError: the options contradict each other or the source.
        DataError: the source cannot be read, or its times do not fit its rate.
    """
    views = open_views(path, options.features)
    first = views[0]
    chosen = choose_episodes(options.episodes, len(first))
    kept, held_out = hold_out(chosen, options.hold_out)
    hz = first.fps if options.hz is None else options.hz
    size_hw = options.size_hw or (first.height, first.width)
    _check_size(size_hw, views, options)
    cameras = tuple(
        ConvertedCamera(view.camera_keys[0], key, _crop(options.crop, view, size_hw))
        for view, key in zip(views, _camera_keys(views), strict=True)
    )
    _check_times(first, chosen, hz, options.times)
    recipe = ConversionRecipe(
        source=_facts(first),
        features=replace(options.features, cameras=tuple(camera.source for camera in cameras)),
        cameras=cameras,
        hz=hz,
        actions=options.actions,
        times=options.times,
        size_hw=size_hw,
        lossless=options.lossless,
        episodes=kept,
    )
    return ConversionPlan(path, recipe, held_out, _description(first, recipe))


def choose_episodes(spans: str | None, count: int) -> tuple[int, ...]:
    """Choose episodes by spans such as `"0:50,60,70:"`, without repetition and in order.

    Raises:
        UsageError: not of that form, or no such episode.
    """
    if spans is None:
        return tuple(range(count))
    found: set[int] = set()
    for span in spans.split(","):
        parts = span.strip().split(":")
        numbers = [int(part) if part.isascii() and part.isdigit() else None for part in parts]
        bad = [part for part, number in zip(parts, numbers, strict=True) if part and number is None]
        if bad or len(parts) > 2 or parts == [""]:
            raise UsageError(f"--episodes {spans!r} is not usable; expected for example 0:50,60")
        first = numbers[0] or 0
        last = first + 1 if len(parts) == 1 else (count if numbers[1] is None else numbers[1])
        if not first < last <= count:
            raise UsageError(
                f"--episodes {span.strip()} selects none of the {count} episodes 0..{count - 1}; "
                f"choose a span inside of 0:{count}"
            )
        found.update(range(first, last))
    return tuple(sorted(found))


def hold_out(episodes: Sequence[int], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split episodes into those kept and those held out, which are spread evenly over them.

    Neighbouring episodes are alike, so a block at the end would be of another day; at least one is
    held out, and one is kept.

    Raises:
        UsageError: there are too few episodes.
    """
    if share == 0.0:
        return tuple(episodes), ()
    if len(episodes) < 2:
        raise UsageError(
            f"--hold-out needs at least two episodes, but {len(episodes)} is selected; leave it out"
        )
    count = min(max(1, round(share * len(episodes))), len(episodes) - 1)
    places = {int((i + 0.5) * len(episodes) / count) for i in range(count)}
    held = tuple(episode for i, episode in enumerate(episodes) if i in places)
    return tuple(episode for i, episode in enumerate(episodes) if i not in places), held


def tick_rows(view: RecordedDataset, index: int, hz: float, times: Times) -> TickRows:
    """Place the ticks of one episode.

    Raises:
        DataError: the times do not ascend, or frames are missing; names the episode.
    """
    rows = view.rows(index)
    try:
        if times == "even":
            return TickRows.even(len(rows.timestamps_s), view.fps, hz)
        return TickRows.of(rows.timestamps_s, view.fps, hz)
    except DataError as problem:
        raise DataError(f"{view.path}: episode {index}: {problem}") from problem


def _check_times(view: RecordedDataset, episodes: Sequence[int], hz: float, times: Times) -> None:
    """Read all rows once, so that a bad episode is found before hours of decoding."""
    stamps = {i: view.rows(i).timestamps_s for i in episodes}
    if hz > view.fps and not rates_agree(view.fps, hz):
        raise UsageError(
            f"--hz {hz:g} is above the rate of {view.path}, {view.fps:g} Hz; frames cannot be "
            f"invented, so choose at most --hz {view.fps:g}"
        )
    if times == "recorded":
        timing = survey_timing(stamps, view.fps)
        if abs(timing.deviation) > _TIMES_TOLERANCE and timing.measured_hz is not None:
            raise DataError(
                f"{view.path} declares {view.fps:g} Hz, but its time stamps say "
                f"{timing.measured_hz:.4g} Hz; add --map rate={timing.measured_hz:.4g} --times even"
                " if the stamps are right, or --times even if the declared rate is"
            )
    if rates_agree(view.fps, hz):
        return  # every row is kept, so stamps decide nothing
    for i in episodes:
        tick_rows(view, i, hz, times)


def _check_size(
    size_hw: tuple[int, int], views: Sequence[RecordedDataset], options: ConversionOptions
) -> None:
    sizes = sorted({(view.width, view.height) for view in views})
    if options.size_hw is None and len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise UsageError(
            f"{views[0].path} has cameras of {listed}; one dataset has one size, so give it with "
            "for example --size 96x96"
        )
    height, width = size_hw
    if min(size_hw) < _LEAST_PX:
        raise UsageError(f"--size {width}x{height} is too small; give at least 16x16")
    if not options.lossless and (height % 2 or width % 2):
        raise UsageError(
            f"frames of {width}x{height} cannot be stored as H.264, whose colour has half the "
            f"resolution; give --size {width - width % 2}x{height - height % 2}, or --lossless"
        )


def _crop(
    crop: Literal["center", "full"] | Crop, view: RecordedDataset, size_hw: tuple[int, int]
) -> Crop:
    if crop == "full":
        return (0, 0, view.height, view.width)
    if crop == "center":
        return centred_crop((view.height, view.width), size_hw)
    top, left, height, width = crop
    if (
        min(top, left) < 0
        or min(height, width) < 1
        or top + height > view.height
        or left + width > view.width
    ):
        raise UsageError(
            f"--crop {','.join(map(str, crop))} (top, left, height, width) is outside of the "
            f"{view.height}x{view.width} frames of {view.camera_keys[0]!r} (height x width)"
        )
    return crop


def _camera_keys(views: Sequence[RecordedDataset]) -> list[str]:
    """Name the cameras of the result as LeRobot does, `observation.images.NAME`."""
    keys = [view.camera_keys[0] for view in views]
    names = [
        key.removeprefix(CAMERA_PREFIX)
        if key.startswith(CAMERA_PREFIX)
        else key.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
        for key in keys
    ]
    if len(set(names)) < len(names):
        names = [key.replace("/", ".") for key in keys]
    return [CAMERA_PREFIX + name for name in names]


def _facts(view: RecordedDataset) -> dict[str, Any]:
    return {
        "name": view.path.resolve().name,
        "format": view.format,
        "robot": view.robot,
        "hz": view.fps,
        "episodes": len(view),
        "sha256": view.digest(),
    }


def _description(view: RecordedDataset, recipe: ConversionRecipe) -> DatasetDescription:
    return DatasetDescription(
        task=recipe.source["name"],
        robot_type=view.robot,
        fps=recipe.hz,
        size_hw=recipe.size_hw,
        state_names=view.state_names,
        action_names=view.action_names,
        cameras=tuple(camera.key for camera in recipe.cameras),
        extra=(),
    )


def check_space(plan: ConversionPlan, target: Path) -> None:
    """Refuse a target whose disk cannot hold the result.

    Raises:
        StorageError: too little is free.
    """
    view = open_views(plan.path, plan.recipe.features)[0]
    ratio = min(1.0, plan.recipe.hz / view.fps)
    lengths = [view.episode_lengths[i] for i in (*plan.recipe.episodes, *plan.held_out)]
    pixels = sum(lengths) * ratio * math.prod(plan.recipe.size_hw) * len(plan.recipe.cameras)
    needed = pixels * _STORED_BYTES_PER_PX["png" if plan.recipe.lossless else "video"]
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise StorageError(
            f"{parent} has {free / 1e9:.1f} GB free, but the converted dataset needs up to "
            f"{needed / 1e9:.1f} GB while it is written; free space or choose another disk"
        )


def frame_offset_s(ticks: TickRows) -> float:
    """Largest time between a tick and the frame that stands for it, in seconds."""
    return float(np.abs(ticks.edges_s[ticks.frames] - ticks.borders_s[:-1]).max())
