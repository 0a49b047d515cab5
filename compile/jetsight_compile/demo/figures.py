"""The charts of the demo's report, as inline SVG; the style sheet of the page sets their font.

Shapes: F forecasts, H horizon.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.histogram import Histogram
from jetsight.plan_report import style
from jetsight.plan_report.style import BLUE, DASHED, DOTTED, FAINT, GREEN, GREY, INK, RED, note
from jetsight_compile.demo.metrics import HorizonErrors, SurpriseReport
from jetsight_compile.demo.watch import Watched

_WIDTH_IN = 9.4
_PURPOSE = "the demo's report"


def latency_figure(watched: Watched, period_ms: float) -> str:
    """Histograms of encode, forecast and frame age on one logarithmic axis, with the period."""
    rows: tuple[tuple[str, NDArray, str], ...] = (
        ("encode", watched.encode_ms, BLUE),
        ("forecast", watched.forecast_ms[np.isfinite(watched.forecast_ms)], GREEN),
        ("frame age when published", watched.age_ms, GREY),
    )
    low = 0.7 * min(values.min() for _, values, _ in rows)
    high = 1.6 * max(period_ms, *(values.max() for _, values, _ in rows))
    with style.context(_PURPOSE):
        figure = style.figure(_WIDTH_IN, 3.5)
        axes = figure.subplots(3, 1, sharex=True)
        for axis, (name, values, color) in zip(axes, rows, strict=True):
            axis.hist(values, bins=np.geomspace(low, high, 90), color=color, alpha=0.85)
            axis.set(xscale="log", xlim=(low, high), yticks=[], title=name)
            axis.spines["left"].set_visible(False)
            axis.axvline(period_ms, color=RED, lw=1.0, ls=DASHED)
            _percentile_marks(axis, values)
        period = f"camera period {period_ms:.3g} ms"
        where = (period_ms, 1.0)
        note(axes[0], period, where, (0, 2), align="center bottom", coords="x", color=RED)
        axes[-1].set_xlabel("milliseconds (logarithmic)")
        axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return _svg(figure)


def _percentile_marks(axis: Any, values: NDArray) -> None:
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    recorder = Histogram()  # so that the marks are the numbers of the report
    for value in values:
        recorder.add(float(value))
    for percent, side, shift in ((50, "right", -3), (99, "left", 3)):
        value = recorder.percentile(percent)
        axis.axvline(value, ymax=0.8, color=INK, lw=0.8)
        text, align = f"p{percent} {value:.2f} ms", f"{side} baseline"
        note(axis, text, (value, 0.8), (shift, -1), align=align, coords="x")


def error_figure(watched: Watched, errors: HorizonErrors) -> str:
    """Forecast error over the stream for the longest horizon, and its mean for every horizon."""
    with style.context(_PURPOSE):
        figure = style.figure(_WIDTH_IN, 2.9)
        over_time, by_step = figure.subplots(1, 2, width_ratios=[2.4, 1])
        _error_over_time(over_time, watched, errors)
        _error_by_step(by_step, errors)
        return _svg(figure)


def _curves(errors: HorizonErrors) -> tuple[tuple[NDArray, str, str], ...]:
    return (errors.persistence, GREY, "copy the last latent"), (errors.model, BLUE, "forecast")


def _error_over_time(axis: Any, watched: Watched, errors: HorizonErrors) -> None:
    hz, change = watched.spec.camera_hz, watched.replay.scenario.change
    horizon, seconds = watched.spec.horizon, watched.index / hz
    ahead_s = horizon * watched.spec.action_block / hz
    for values, color, name in _curves(errors):
        axis.plot(seconds, np.sqrt(values[:, -1]), color=color, lw=1.2, label=name)
    if change is not None:
        axis.axvline(change / hz, color=RED, lw=1.0, ls=DASHED)
    axis.set(
        title=f"error {horizon} blocks ({ahead_s:g} s) ahead",
        xlabel="seconds since the stream began",
        ylabel="distance in latent space",
        ylim=(0, None),
        xlim=(0, seconds[-1]),
    )
    axis.legend(loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0), borderpad=0.0)


def _error_by_step(axis: Any, errors: HorizonErrors) -> None:
    steps = np.arange(1, errors.model.shape[1] + 1)
    for values, color, _ in _curves(errors):
        axis.plot(steps, np.nanmean(values, axis=0), color=color, marker="o", ms=4, lw=1.2)
    means = np.nanmean(errors.model, axis=0)
    for step, mean, skill in zip(steps, means, errors.skill, strict=True):
        note(axis, f"{skill:.2f}", (step, mean), (0, 6), color=BLUE)
    axis.set(
        title="mean squared error, and skill",
        xlabel="action blocks ahead",
        ylim=(0, None),
        xlim=(0.6, steps[-1] + 0.4),
        xticks=steps,
    )


def surprise_figure(watched: Watched, control: Watched, report: SurpriseReport, p99: float) -> str:
    """Surprise over the stream: the limit, the planted change, and the same frames without it."""
    seconds = watched.index / watched.spec.camera_hz
    with style.context(_PURPOSE):
        figure = style.figure(_WIDTH_IN, 2.9)
        axis = figure.subplots()
        _surprise_curves(axis, watched, control, report.change_frame)
        for value, name, side in ((p99, "p99", "top"), (report.limit, "p99.9: limit", "bottom")):
            axis.axhline(value, color=INK, lw=0.7, ls=DOTTED)
            note(axis, name, (1.0, value), (4, 0), align=f"left {side}", coords="y", size=7.5)
        _scene_marks(axis, watched)
        axis.set(
            xlabel="seconds since the stream began",
            ylabel="surprise (1 is typical)",
            xlim=(0, seconds[-1]),
            ylim=(0, max(1.22 * float(np.nanmax(watched.surprise)), 1.3 * report.limit)),
        )
        axis.legend(loc="lower left", ncols=3, bbox_to_anchor=(0.0, 1.0), borderpad=0.2)
        return _svg(figure)


def _surprise_curves(axis: Any, watched: Watched, control: Watched, change: int) -> None:
    """Surprise, what was flagged, and the control laid over the frames after the change."""
    hz = watched.spec.camera_hz
    seconds, flagged = watched.index / hz, watched.surprising
    shown = control.index >= control.index.max() - (watched.index.max() - change)
    shift = change - control.index[shown][0]
    axis.plot(
        (control.index[shown] + shift) / hz,
        control.surprise[shown],
        color=GREY,
        lw=1.1,
        ls=(0, (2, 1.5)),
        label="the same frames without the change",
    )
    axis.plot(seconds, watched.surprise, color=BLUE, lw=1.2, label="surprise")
    axis.plot(seconds[flagged], watched.surprise[flagged], "o", ms=3.5, color=RED, label="flagged")


def _scene_marks(axis: Any, watched: Watched) -> None:
    """Draw a line at the start of each scene; the last one is the planted change."""
    *announced, change = (
        start / watched.spec.camera_hz for start in watched.replay.scenario.starts
    )
    for start in announced[1:]:
        axis.axvline(start, color=FAINT, lw=1.0)
        text, where = "new episode, announced", (start, 0.985)
        note(axis, text, where, (-4, 0), align="right top", coords="x", color=GREY)
    axis.axvline(change, color=RED, lw=1.0, ls=DASHED)
    where = (change, 0.985)
    note(axis, "planted change", where, (4, 0), align="left top", coords="x", color=RED)


def _svg(figure: Any) -> str:
    """Extract the `<svg>` element: no prolog, no metadata, nothing to load."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=style.METADATA["svg"])
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
