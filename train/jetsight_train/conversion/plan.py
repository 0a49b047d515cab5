"""The plan of a conversion: which episodes and cameras, at which rate and size, by which rules.

Everything that can be refused is refused here, before a frame is decoded.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import RecordedDataset
from jetsight.datasets.fit import rates_agree
from jetsight.datasets.labels import RecordingLabels
from jetsight.datasets.pyav import import_av
from jetsight.datasets.resample import Crop, centred_crop
from jetsight.errors import DataError, StorageError, UsageError
from jetsight_train.conversion.episodes import choose_episodes, hold_out, spans
from jetsight_train.conversion.recipe import (
    ConversionOptions,
    ConversionPlan,
    ConversionRecipe,
    ConvertedCamera,
    tick_rows,
)
from jetsight_train.conversion.source import RecordedSource, open_source
from jetsight_train.conversion.timing import survey_timing
from jetsight_train.record.description import DatasetDescription

CAMERA_PREFIX = "observation.images."
_LEAST_PX = 16
_TIMES_TOLERANCE = 0.05  # a recorder that is later by more than this has another rate
_STORED_BYTES_PER_PX = {"video": 0.15, "png": 2.0}  # at most, with the copies of the last step


def plan_conversion(path: Path, options: ConversionOptions) -> ConversionPlan:
    """Check the options against the source and settle every open question.

    Raises:
        UsageError: the options contradict each other or the source.
        DataError: the source cannot be read, or its times do not fit its rate.
    """
    import_av("converting a dataset")  # here, not after the rows of all episodes were read
    source = open_source(path, options.features)
    first = source.first
    if not first.action_names:
        reason = first.missing.get("action", "no actions are recorded")
        raise DataError(f"{path}: {reason}; a dataset to train on needs actions")
    chosen = choose_episodes(options.episodes, len(source))
    kept, held_out = hold_out(chosen, options.hold_out)
    hz = first.fps if options.hz is None else options.hz
    size_hw = options.size_hw or (first.height, first.width)
    _check_size(size_hw, source.views, options)
    cameras = tuple(
        ConvertedCamera(view.camera_keys[0], key, _crop(options.crop, view, size_hw))
        for view, key in zip(source.views, _camera_keys(source.cameras), strict=True)
    )
    labels = source.labels()
    recipe = ConversionRecipe(
        source=_facts(source),
        features=replace(options.features, cameras=source.cameras),
        cameras=cameras,
        hz=hz,
        actions=options.actions,
        shift=options.shift,
        columns=labels.columns,
        size_hw=size_hw,
        lossless=options.lossless,
        episodes=kept,
    )
    _check_episodes(source, recipe, chosen)
    return ConversionPlan(path, recipe, held_out, _description(first, labels, recipe))


def _check_episodes(
    source: RecordedSource, recipe: ConversionRecipe, episodes: Sequence[int]
) -> None:
    """Read all rows once, so that a bad episode is found before hours of decoding."""
    path, fps = source.first.path, source.first.fps
    if recipe.hz > fps and not rates_agree(fps, recipe.hz):
        raise UsageError(
            f"--hz {recipe.hz:g} is above the rate of {path}, {fps:g} Hz; frames cannot be "
            f"invented, so choose at most --hz {fps:g}"
        )
    stamps, bad = {}, {}
    for i in episodes:
        try:
            stamps[i] = source.rows(i).timestamps_s
            if not rates_agree(fps, recipe.hz):
                tick_rows(stamps[i], fps, recipe)
        except DataError as problem:
            bad[i] = str(problem)
    if recipe.features.rate_hz is None:
        _check_rate(path, stamps, fps)
    if bad:
        rest = spans([i for i in episodes if i not in bad])
        leave_out = f"leave out with --episodes {rest}" if rest else "it has no other episode"
        first, reason = next(iter(bad.items()))
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(f"{path}: episode {first}{more}: {reason}; {leave_out}")


def _check_rate(path: Path, stamps_s: Mapping[int, NDArray[np.float64]], fps: float) -> None:
    timing = survey_timing(stamps_s, fps)
    if timing.measured_hz is None or abs(timing.deviation) <= _TIMES_TOLERANCE:
        return
    raise DataError(
        f"{path} declares {fps:g} Hz, but its time stamps say {timing.measured_hz:.4g} Hz; add "
        f"--map rate={timing.measured_hz:.4g} if the stamps are right, or --map rate={fps:g} to "
        "ignore them"
    )


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


def _camera_keys(keys: Sequence[str]) -> list[str]:
    """Name the cameras of the result as LeRobot does, `observation.images.NAME`."""
    names = [
        key.removeprefix(CAMERA_PREFIX) if key.startswith(CAMERA_PREFIX) else _last(key)
        for key in keys
    ]
    if len(set(names)) < len(names):
        names = [key.replace("/", ".") for key in keys]
    return [CAMERA_PREFIX + name for name in names]


def _last(key: str) -> str:
    return re.split(r"[./]", key.rstrip("./"))[-1] or "camera"


def _facts(source: RecordedSource) -> dict[str, Any]:
    view = source.first
    return {
        "name": view.path.resolve().name,
        "format": view.format,
        "robot": view.robot,
        "hz": view.fps,
        "episodes": len(source),
        "sha256": view.digest(),
    }


def _description(
    view: RecordedDataset, labels: RecordingLabels, recipe: ConversionRecipe
) -> DatasetDescription:
    return DatasetDescription(
        task=recipe.source["name"],
        robot_type=view.robot,
        fps=recipe.hz,
        size_hw=recipe.size_hw,
        state_names=view.state_names,
        action_names=view.action_names,
        cameras=tuple(camera.key for camera in recipe.cameras),
        state_units=labels.state_units,
        action_units=labels.action_units,
        extra=recipe.columns,
        action_limits=labels.action_limits,
        pictures="png" if recipe.lossless else "video",
    )


def check_space(plan: ConversionPlan, target: Path) -> None:
    """Refuse a target whose disk cannot hold the result.

    Raises:
        StorageError: too little is free.
    """
    source = open_source(plan.path, plan.recipe.features)
    lengths = source.lengths
    ticks = sum(lengths[i] for i in (*plan.recipe.episodes, *plan.held_out))
    ticks = round(ticks * min(1.0, plan.recipe.hz / source.first.fps))
    pixels = ticks * math.prod(plan.recipe.size_hw) * len(plan.recipe.cameras)
    needed = pixels * _STORED_BYTES_PER_PX["png" if plan.recipe.lossless else "video"]
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise StorageError(
            f"{parent} has {free / 1e9:.1f} GB free, but the converted dataset needs up to "
            f"{needed / 1e9:.1f} GB while it is written; free space or choose another disk"
        )
