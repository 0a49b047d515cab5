"""What the model expects to see: chosen moments, forecast frames beside the frames that came.

Shapes: H horizon, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.datasets.lerobot import Episode
from jetsight.engine import NDArray
from jetsight_compile.demo.library import DatasetFrames
from jetsight_compile.demo.metrics import HorizonErrors
from jetsight_compile.demo.scenario import Scenario, Watched

Marker = Callable[[NDArray], list[tuple[float, float]]]


@dataclass(frozen=True)
class ForecastExample:
    """One forecast as pictures.

    Args:
        index: frame the forecast was made from.
        across_change: the planted change lies within what is forecast.
        now: `[h, w, 3]` that frame.
        expected: `[H, h, w, 3]` recorded frames nearest to the forecast latents.
        came: `[H, h, w, 3]` what the camera really showed then.
        marks: per step, where the forecast has each thing, in % of the picture from left and top;
            None where states are no places in the picture.
        ratio: `[H]` distance of the forecast to the latent that came, as a share of the distance
            that copying the last latent has.
    """

    index: int
    across_change: bool
    now: NDArray
    expected: NDArray
    came: NDArray
    marks: list[list[tuple[float, float]]] | None
    ratio: list[float]


def choose_rows(errors: HorizonErrors, count: int) -> list[int]:
    """One row of each of `count` equal stretches of the stream: where most changes happens next.

    The choice looks at what the camera saw, never at how good the forecast was.
    """
    judged = np.flatnonzero(np.isfinite(errors.persistence[:, -1]))
    stretches = np.array_split(judged, min(count, len(judged)))
    return [int(rows[np.argmax(errors.persistence[rows, -1])]) for rows in stretches]


def show_moments(
    watched: Watched,
    errors: HorizonErrors,
    scenario: Scenario,
    spec: StreamSpec,
    library: DatasetFrames,
    footage: Mapping[int, Episode],
    marker: Marker | None = None,
    count: int = 3,
) -> list[ForecastExample]:
    """`count` moments of much motion, and the last one before the planted change.

    `marker` says where a latent `[D]` has things, see `ForecastExample.marks`.
    """
    rows = choose_rows(errors, count)
    if scenario.change is not None:
        before = np.flatnonzero(watched.valid & (watched.index < scenario.change))
        rows += [int(before[-1])] if len(before) else []
    return [_moment(row, watched, scenario, spec, library, footage, marker) for row in rows]


def _moment(
    row: int,
    watched: Watched,
    scenario: Scenario,
    spec: StreamSpec,
    library: DatasetFrames,
    footage: Mapping[int, Episode],
    marker: Marker | None,
) -> ForecastExample:
    index = int(watched.index[row])
    ahead = [index + (k + 1) * spec.action_block for k in range(spec.horizon)]
    ahead = [i for i in ahead if i < scenario.frames]
    at = {int(i): r for r, i in enumerate(watched.index)}
    ratio = [_ratio(watched, row, at.get(i), k) for k, i in enumerate(ahead)]
    change, future = scenario.change, watched.z_future[row, : len(ahead)]
    return ForecastExample(
        index=index,
        across_change=change is not None and index < change <= ahead[-1],
        now=_frame(scenario, footage, index),
        expected=library.frames_u8[library.nearest(future)],
        came=np.stack([_frame(scenario, footage, i) for i in ahead]),
        marks=None if marker is None else [marker(z) for z in future],
        ratio=ratio,
    )


def _ratio(watched: Watched, row: int, target: int | None, k: int) -> float:
    """NaN where the frame was dropped, so nothing was encoded."""
    if target is None:
        return float("nan")
    came = watched.z[target]
    copied = float(np.linalg.norm(watched.z[row] - came))
    return float(np.linalg.norm(watched.z_future[row, k] - came)) / max(copied, 1e-12)


def _frame(scenario: Scenario, footage: Mapping[int, Episode], index: int) -> NDArray:
    episode, place = scenario.place(index)
    frame: NDArray = footage[episode].frames[place]
    return frame
