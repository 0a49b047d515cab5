"""Contact sheet of a dataset: frames of some episodes over time, with the actions below them.

Shapes: T rows of an episode, a action size, h, w frame size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import StorageError
from jetsight.plan_report import style
from jetsight.storage import atomic
from jetsight_train.curation.survey import SHOWN_TICKS, DatasetSurvey, SheetEpisode

_PURPOSE = "a contact sheet"
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY)
_DPI, _MOST_ROWS = 110, 6
_NAMED = len(_COLOURS)  # more lines than colours cannot be distinguished, so they are not named
# Lengths in inches; parts are placed by hand, because frames must touch the traces below them.
_WIDTH, _MARGIN, _GAP = 11.0, 0.3, 0.05
_TITLE, _LABEL, _TRACES, _TIMES = 0.52, 0.2, 0.6, 0.32
_FRAME = (_WIDTH - 2 * _MARGIN - (SHOWN_TICKS - 1) * _GAP) / SHOWN_TICKS


def check_target(path: Path) -> None:
    """Refuse what `draw_sheet` would refuse, before minutes of decoding.

    Raises:
        MissingDependency: matplotlib is not installed.
        StorageError: `path` is a folder.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder, expected a file name; choose another --picture")
    style.context(_PURPOSE)


def draw_sheet(survey: DatasetSurvey, episodes: Sequence[SheetEpisode], path: Path) -> None:
    """Write the contact sheet as a PNG file.

    Raises:
        MissingDependency: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    with style.context(_PURPOSE):
        data = io.BytesIO()
        _Sheet(survey, episodes).draw().savefig(
            data, format="png", dpi=_DPI, metadata=style.METADATA["png"]
        )
    atomic.write_file(path, data.getvalue())


@dataclass(frozen=True)
class _Scale:
    """Centre and half range of each action, over 1 to 99 % of the shown values."""

    centre: NDArray[np.float64]
    half: NDArray[np.float64]

    @classmethod
    def of(cls, episodes: Sequence[SheetEpisode]) -> _Scale:
        joined = np.concatenate([each.rows.actions for each in episodes]).astype(np.float64)
        low, high = np.quantile(joined, [0.01, 0.99], axis=0)
        return cls((low + high) / 2, np.maximum((high - low) / 2, 1e-9))

    def levels(self, actions: NDArray[np.float32]) -> NDArray[np.float64]:
        """Bring actions into -1..1, and outliers into -1.2..1.2."""
        return np.asarray(np.clip((actions - self.centre) / self.half, -1.2, 1.2))


class _Sheet:
    """Figure in the making; lengths are inches from the top left corner."""

    def __init__(self, survey: DatasetSurvey, episodes: Sequence[SheetEpisode]) -> None:
        # So many rows of frames are taken in at a glance.
        rows = max(2, _MOST_ROWS // max(1, len(survey.pictures)))
        self._survey, self._episodes = survey, episodes[:rows]
        sizes = {camera.key: camera.height / max(camera.width, 1) for camera in survey.cameras}
        self._heights = {key: _FRAME * sizes[key] for key in survey.pictures}
        self._hz = survey.timing.declared_hz
        frames_in = sum(height + _GAP for height in self._heights.values())
        self._block = _LABEL + frames_in + _TRACES + _TIMES
        self._height = _TITLE + self._block * len(self._episodes)

    def draw(self) -> Any:
        """Draw everything and return the figure."""
        self._figure = style.figure(_WIDTH, self._height)
        self._figure.set_layout_engine("none")
        self._draw_title()
        scale = _Scale.of(self._episodes)
        for number, episode in enumerate(self._episodes):
            self._draw_episode(episode, _TITLE + number * self._block, scale)
        return self._figure

    def _axis(self, left: float, top: float, width: float, height: float) -> Any:
        return self._figure.add_axes(
            (
                left / _WIDTH,
                1 - (top + height) / self._height,
                width / _WIDTH,
                height / self._height,
            )
        )

    def _text(self, left: float, top: float, text: str, **options: Any) -> None:
        self._figure.text(left / _WIDTH, 1 - top / self._height, text, va="baseline", **options)

    def _draw_title(self) -> None:
        survey = self._survey
        name = survey.path.resolve().name
        facts = [
            survey.robot,
            survey.format,
            f"{self._hz:g} Hz",
            f"{len(survey.lengths)} episodes, {sum(survey.lengths)} frames",
        ]
        self._text(_MARGIN, 0.26, name, fontsize=12, fontweight="bold", color=style.INK)
        line = "  ·  ".join(fact for fact in facts if fact)
        self._text(_MARGIN, 0.43, line, fontsize=8.5, color=style.GREY)
        actions = survey.actions
        if 0 < len(actions) <= _NAMED:
            self._name_lines([dimension.name for dimension in actions])
        elif actions:
            text = f"{len(actions)} actions, one row each: blue low, orange high in its own range"
            self._text(_WIDTH - _MARGIN, 0.43, text, fontsize=8, color=style.GREY, ha="right")

    def _name_lines(self, names: Sequence[str]) -> None:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], color=colour, linewidth=1.4, label=name)
            for colour, name in zip(_COLOURS, names, strict=False)
        ]
        self._figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=(1 - _MARGIN / _WIDTH, 1 - 0.25 / self._height),
            ncols=len(names),
            borderpad=0.0,
            borderaxespad=0.0,
            handlelength=1.4,
            columnspacing=1.4,
        )

    def _draw_episode(self, episode: SheetEpisode, top: float, scale: _Scale) -> None:
        count = len(episode.rows.timestamps_s)
        ticks = np.linspace(0, count - 1, min(SHOWN_TICKS, count)).round().astype(int)
        down = top + _LABEL
        for column, tick in enumerate(ticks):
            left = _MARGIN + column * (_FRAME + _GAP)
            label = f"{tick / self._hz:.1f} s" if column else f"episode {episode.episode}"
            weight = "normal" if column else "bold"
            self._text(left, down - 0.05, label, fontsize=7.5, fontweight=weight)
        for key, height in self._heights.items():
            for column, tick in enumerate(ticks):
                axis = self._axis(_MARGIN + column * (_FRAME + _GAP), down, _FRAME, height)
                _show(axis, episode.frames.get(key, {}).get(int(tick)))
                if column == 0 and len(self._heights) > 1:
                    axis.set_ylabel(re.split("[./]", key)[-1], fontsize=7, labelpad=2)
            down += height + _GAP
        axis = self._axis(_MARGIN, down, _WIDTH - 2 * _MARGIN, _TRACES)
        self._draw_actions(axis, scale.levels(episode.rows.actions), ticks / self._hz)

    def _draw_actions(
        self, axis: Any, levels: NDArray[np.float64], marks_s: NDArray[np.float64]
    ) -> None:
        end_s = max((len(levels) - 1) / self._hz, 1e-6)
        axis.set_xlim(0, end_s)
        axis.set_yticks([])
        axis.tick_params(axis="x", labelsize=7, length=2, pad=1.5)
        axis.spines["left"].set_visible(False)
        axis.spines["bottom"].set_color(style.FAINT)
        if 0 < levels.shape[1] <= _NAMED:
            _draw_lines(axis, levels, self._hz)
        elif levels.shape[1]:
            _draw_rows(axis, levels, end_s)
        else:
            style.note(
                axis, "no actions", (0.5, 0.5), align="center center", coords="axes fraction"
            )
            return
        for mark in marks_s:
            axis.axvline(mark, color=style.FAINT, linewidth=0.8, zorder=0)


def _draw_lines(axis: Any, levels: NDArray[np.float64], hz: float) -> None:
    axis.set_ylim(-1.3, 1.3)
    times_s = np.arange(len(levels)) / hz
    for level, colour in zip(levels.T, _COLOURS, strict=False):
        axis.step(times_s, level, where="post", color=colour, linewidth=1.1)


def _draw_rows(axis: Any, levels: NDArray[np.float64], end_s: float) -> None:
    """Draw many actions as rows of colours, where lines would cover each other."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("low-high", [style.BLUE, "#ffffff", style.ORANGE])
    axis.imshow(
        levels.T,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-1.2,
        vmax=1.2,
        extent=(0, end_s, levels.shape[1], 0),
    )


def _show(axis: Any, frame: NDArray[np.uint8] | None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=style.FAINT, linewidth=0.6)
    if frame is not None:
        axis.imshow(frame, interpolation="antialiased", aspect="auto")
        return
    axis.set_facecolor(style.FAINT)
    style.note(axis, "not decoded", (0.5, 0.5), align="center center", coords="axes fraction")
