"""Forecasts as pictures: recorded frames near the forecast latents beside the frames that came.

Shapes: H horizon, h, w frame size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jetsight.datasets.dataset import RecordedDataset
from jetsight.engine import NDArray
from jetsight.plan_report.nearest_frames import FrameIndex, pictures
from jetsight_compile.demo.metrics import HorizonErrors
from jetsight_compile.demo.watch import Watched

# From a latent `[D]` to the places of things, in % of the picture from left and top.
Marker = Callable[[NDArray], list[tuple[float, float]]]


@dataclass(frozen=True)
class ForecastExample:
    """One forecast as pictures; steps beyond the end of the stream are left out.

    Args:
        index: frame the forecast was made from.
        across_change: the planted change is within what is forecast.
        now: `[h, w, 3]` that frame.
        expected: `[h, w, 3]` per step, the recorded frame nearest to the forecast latent.
        came: `[h, w, 3]` per step, the camera's frame at that time.
        marks: per step, the forecast places of things, see `Marker`; None without a marker.
        ratio: per step, distance of the forecast to the latent that came, as a share of the
            distance of the last latent; NaN where that frame was dropped.
    """

    index: int
    across_change: bool
    now: NDArray
    expected: list[NDArray]
    came: list[NDArray]
    marks: list[list[tuple[float, float]]] | None
    ratio: list[float]


def choose_rows(errors: HorizonErrors, count: int) -> list[int]:
    """One row of each of `count` equal stretches of the stream: the one before most change.

    The choice looks at what the camera saw, never at how good the forecast was.
    """
    judged = np.flatnonzero(np.isfinite(errors.persistence[:, -1]))
    stretches = np.array_split(judged, min(count, len(judged)))
    return [int(rows[np.argmax(errors.persistence[rows, -1])]) for rows in stretches]


def forecast_examples(
    watched: Watched,
    errors: HorizonErrors,
    library: FrameIndex,
    data: RecordedDataset,
    marker: Marker | None = None,
    count: int = 3,
) -> list[ForecastExample]:
    """Show `count` forecasts of much motion, and the last one before the planted change.

    Args:
        watched: the stream.
        errors: of its forecasts.
        library: index of recorded frames, none of the stream.
        data: dataset of the library.
        marker: locates things in a forecast.
        count: of stretches to choose from.
    """
    rows, change = choose_rows(errors, count), watched.replay.scenario.change
    if change is not None:
        rows += np.flatnonzero(watched.valid & (watched.index < change))[-1:].tolist()
    return [_example(watched, row, library, data, marker) for row in rows]


def _example(
    watched: Watched, row: int, library: FrameIndex, data: RecordedDataset, marker: Marker | None
) -> ForecastExample:
    replay, spec, index = watched.replay, watched.spec, int(watched.index[row])
    ahead = [index + (k + 1) * spec.action_block for k in range(spec.horizon)]
    ahead = [i for i in ahead if i < replay.scenario.frames]
    change, future = replay.scenario.change, watched.z_future[row, : len(ahead)]
    return ForecastExample(
        index=index,
        across_change=change is not None and index < change <= ahead[-1],
        now=replay.frame(index),
        expected=pictures(data, library.nearest(future)),
        came=[replay.frame(i) for i in ahead],
        marks=None if marker is None else [marker(z) for z in future],
        ratio=[_ratio(watched, row, k) for k in range(len(ahead))],
    )


def _ratio(watched: Watched, row: int, k: int) -> float:
    target = int(watched.rows_ahead(k)[row])
    if target < 0:
        return float("nan")
    came = watched.z[target]
    copied = float(np.linalg.norm(watched.z[row] - came))
    return float(np.linalg.norm(watched.z_future[row, k] - came)) / max(copied, 1e-12)
