"""Contact sheet of a dataset: frames of some episodes over time, with the actions below them.

Shapes: T rows of an episode, a action size, h, w frame size.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.plan_report import style
from jetsight.storage import atomic
from jetsight_train.curation.survey import SHOWN_TICKS, DatasetSurvey, SheetEpisode

_PURPOSE = "a contact sheet"
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY)
_WIDTH_IN, _DPI = 11.0, 110
_TRACES_IN = 0.62  # height of the plot of the actions
_NAMED = 6  # more lines than colours cannot be told apart, so they are not named


def draw_sheet(survey: DatasetSurvey, episodes: Sequence[SheetEpisode], path: Path) -> None:
    """Write the contact sheet as a PNG file.

    Raises:
        MissingDependency: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    with style.context(_PURPOSE):
        figure = _figure(survey, episodes)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=_DPI, metadata=style.METADATA["png"])
    atomic.write_file(path, data.getvalue())


def _figure(survey: DatasetSurvey, episodes: Sequence[SheetEpisode]) -> Any:
    keys = list(survey.pictures)
    frame_in = (_WIDTH_IN - 0.8) / SHOWN_TICKS
    heights = []
    for key in keys:
        camera = next(c for c in survey.cameras if c.key == key)
        heights.append(frame_in * camera.height / max(camera.width, 1))
    row_in = sum(heights) + _TRACES_IN + 0.42
    figure = style.figure(_WIDTH_IN, 0.75 + row_in * len(episodes))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)
    figure.suptitle(_title(survey), x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    parts = figure.subfigures(len(episodes), 1, squeeze=False)[:, 0]
    scale = _scale(episodes)
    for part, episode in zip(parts, episodes, strict=True):
        _draw_episode(part, survey, episode, (heights, scale))
    if len(survey.actions) <= _NAMED and episodes:
        _name_lines(parts[0], survey)
    return figure


def _title(survey: DatasetSurvey) -> str:
    parts = [
        survey.path.resolve().name,
        survey.robot,
        survey.format,
        f"{survey.timing.declared_hz:g} Hz",
        f"{len(survey.lengths)} episodes",
    ]
    return "   ".join(part for part in parts if part)


def _scale(episodes: Sequence[SheetEpisode]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centre and half range of each action, over 1 to 99 % of its values."""
    joined = np.concatenate([each.rows.actions for each in episodes]).astype(np.float64)
    low, high = np.quantile(joined, [0.01, 0.99], axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-9)


def _draw_episode(
    part: Any,
    survey: DatasetSurvey,
    episode: SheetEpisode,
    layout: tuple[Sequence[float], tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    heights, scale = layout
    keys = list(survey.pictures)
    count = len(episode.rows.timestamps_s)
    ticks = np.unique(np.round(np.linspace(0, count - 1, min(SHOWN_TICKS, count))).astype(int))
    grid = part.add_gridspec(
        len(keys) + 1, SHOWN_TICKS, height_ratios=[*heights, _TRACES_IN], hspace=0.04, wspace=0.02
    )
    hz = survey.timing.declared_hz
    for row, key in enumerate(keys):
        for column, tick in enumerate(ticks):
            axis = part.add_subplot(grid[row, column])
            frame = episode.frames.get(key, {}).get(int(tick))
            if row == 0:
                label = f"{tick / hz:.1f} s" if column else f"episode {episode.episode}    0 s"
                axis.set_title(
                    label, fontsize=7.5, fontweight="normal" if column else "bold", pad=2
                )
            _show(axis, frame)
            if column == 0 and len(keys) > 1:
                axis.set_ylabel(key.rsplit(".", 1)[-1], fontsize=7)
    axis = part.add_subplot(grid[len(keys), :])
    _draw_actions(axis, episode, ticks / hz, (hz, scale))


def _show(axis: Any, frame: NDArray[np.uint8] | None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=style.FAINT, linewidth=0.6)
    if frame is None:
        axis.set_facecolor(style.FAINT)
        style.note(axis, "not decoded", (0.5, 0.5), align="center center", coords="axes fraction")
        return
    axis.imshow(frame, interpolation="antialiased")


def _draw_actions(
    axis: Any,
    episode: SheetEpisode,
    marks_s: NDArray[np.float64],
    layout: tuple[float, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    hz, (centre, half) = layout
    actions = episode.rows.actions
    times_s = np.arange(len(actions)) / hz
    axis.set_xlim(0, max(times_s[-1] if len(times_s) else 0.0, 1e-6))
    axis.set_ylim(-1.25, 1.25)
    axis.set_yticks([])
    axis.tick_params(axis="x", labelsize=7, length=2, pad=1)
    axis.spines["left"].set_visible(False)
    for mark in marks_s:
        axis.axvline(mark, color=style.FAINT, linewidth=0.8, zorder=0)
    few = actions.shape[1] <= _NAMED
    for i in range(actions.shape[1]):
        level = np.clip((actions[:, i] - centre[i]) / half[i], -1.2, 1.2)
        colour = _COLOURS[i % len(_COLOURS)]
        axis.step(
            times_s,
            level,
            where="post",
            color=colour,
            linewidth=1.0 if few else 0.6,
            alpha=1.0 if few else 0.55,
        )
    if not actions.shape[1]:
        style.note(axis, "no actions", (0.5, 0.5), align="center center", coords="axes fraction")


def _name_lines(part: Any, survey: DatasetSurvey) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=_COLOURS[i], linewidth=1.2, label=dimension.name)
        for i, dimension in enumerate(survey.actions)
    ]
    if lines:
        part.axes[-1].legend(
            handles=lines,
            loc="lower right",
            bbox_to_anchor=(1.0, 0.98),
            ncols=len(lines),
            fontsize=7,
            handlelength=1.2,
            borderpad=0.0,
            columnspacing=1.2,
        )
