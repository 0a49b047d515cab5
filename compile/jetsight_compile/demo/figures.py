"""The charts of the demo's report, as inline SVG that sets its text in the page's own font.

Shapes: F forecasts, H horizon.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.histogram import Histogram
from jetsight_compile.demo.metrics import HorizonErrors, SurpriseReport
from jetsight_compile.demo.scenario import Watched

INK, GREY, FAINT = "#22262b", "#8a8f98", "#d9dce1"
BLUE, TEAL, RED = "#1f5fa8", "#2a9d8f", "#c0392b"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: the browser sets it in the font of the page
    "svg.hashsalt": "jetsight",  # equal data, equal bytes
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def latency_figure(watched: Watched, period_ms: float) -> str:
    """Histograms of encode, forecast and frame age on one logarithmic axis, with the period."""
    rows: tuple[tuple[str, NDArray, str], ...] = (
        ("encode", watched.encode_ms, BLUE),
        ("forecast", watched.forecast_ms[np.isfinite(watched.forecast_ms)], TEAL),
        ("frame age when published", watched.age_ms, GREY),
    )
    low = 0.7 * min(values.min() for _, values, _ in rows)
    high = 1.6 * max(period_ms, *(values.max() for _, values, _ in rows))
    bins = np.geomspace(low, high, 90)
    with _style():
        figure, axes = _subplots(3, 1, (9.4, 3.5), sharex=True)
        for axis, (name, values, color) in zip(axes, rows, strict=True):
            axis.hist(values, bins=bins, color=color, alpha=0.85)
            axis.set(xscale="log", xlim=(low, high), yticks=[], ylabel="")
            axis.spines["left"].set_visible(False)
            axis.axvline(period_ms, color=RED, lw=1.0, ls=(0, (4, 3)))
            _percentile_marks(axis, values)
            axis.set_title(name)
        axes[0].annotate(
            f"camera period {period_ms:.3g} ms",
            (period_ms, 1.0),
            xytext=(0, 2),
            color=RED,
            xycoords=axes[0].get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )
        axes[-1].set_xlabel("milliseconds (logarithmic)")
        axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return _svg(figure)


def _percentile_marks(axis: Any, values: NDArray) -> None:
    top = axis.get_ylim()[1]
    axis.set_ylim(0, 1.35 * top)
    recorder = Histogram()  # so that the marks are the numbers of the report
    for value in values:
        recorder.add(float(value))
    for percent, align, shift in ((50, "right", -3), (99, "left", 3)):
        value = recorder.percentile(percent)
        axis.axvline(value, ymax=0.8, color=INK, lw=0.8)
        axis.annotate(
            f"p{percent} {value:.2f} ms",
            (value, 0.8),
            xytext=(shift, -1),
            fontsize=8,
            color=INK,
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            ha=align,
        )


def error_figure(
    watched: Watched, errors: HorizonErrors, change: int, hz: float, block_s: float
) -> str:
    """Forecast error over the stream for the longest horizon, and its mean for every horizon."""
    horizon = errors.model.shape[1]
    seconds = watched.index / hz
    with _style():
        figure, (over_time, by_step) = _subplots(1, 2, (9.4, 2.9), width_ratios=[2.4, 1])
        for values, color, name in (
            (errors.persistence, GREY, "copy the last latent"),
            (errors.model, BLUE, "forecast"),
        ):
            over_time.plot(seconds, np.sqrt(values[:, -1]), color=color, lw=1.2, label=name)
            means = np.nanmean(values, axis=0)
            by_step.plot(range(1, horizon + 1), means, color=color, marker="o", ms=4, lw=1.2)
        over_time.axvline(change / hz, color=RED, lw=1.0, ls=(0, (4, 3)))
        over_time.set(
            title=f"error {horizon} blocks ({horizon * block_s:g} s) ahead",
            xlabel="seconds since the stream began",
            ylabel="distance in latent space",
            ylim=(0, None),
            xlim=(0, seconds[-1]),
        )
        over_time.legend(loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0), borderpad=0.0)
        for step, mean, skill in zip(
            range(1, horizon + 1), np.nanmean(errors.model, axis=0), errors.skill, strict=True
        ):
            by_step.annotate(
                f"{skill:.2f}",
                (step, mean),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=BLUE,
            )
        by_step.set(
            title="mean squared error (number: skill)",
            xlabel="action blocks ahead",
            ylim=(0, None),
            xlim=(0.6, horizon + 0.4),
            xticks=range(1, horizon + 1),
        )
        return _svg(figure)


def surprise_figure(
    watched: Watched,
    control: Watched,
    report: SurpriseReport,
    starts: Sequence[int],
    hz: float,
    p99: float,
) -> str:
    """Surprise over the stream: the limit, the planted change, and the same moment without it."""
    seconds, change_s = watched.index / hz, report.change_frame / hz
    with _style():
        figure, (axis,) = _subplots(1, 1, (9.4, 2.9))
        shown = control.index >= control.index.max() - (watched.index.max() - starts[-1])
        shift = report.change_frame - control.index[shown][0]
        axis.plot(
            (control.index[shown] + shift) / hz,
            control.surprise[shown],
            color=GREY,
            lw=1.1,
            ls=(0, (2, 1.5)),
            label="the same moment without the change",
        )
        axis.plot(seconds, watched.surprise, color=BLUE, lw=1.2, label="surprise")
        flagged = watched.surprising
        axis.plot(
            seconds[flagged],
            watched.surprise[flagged],
            ls="none",
            marker="o",
            ms=3.5,
            color=RED,
            label="flagged",
        )
        for value, name, side in ((p99, "p99", "top"), (report.limit, "p99.9: limit", "bottom")):
            axis.axhline(value, color=INK, lw=0.7, ls=(0, (1, 2)))
            axis.annotate(
                name,
                (1.0, value),
                xytext=(4, 0),
                xycoords=axis.get_yaxis_transform(),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
                va=side,
            )
        _scene_marks(axis, starts, hz)
        top = 1.22 * float(np.nanmax(watched.surprise))
        axis.set(
            xlabel="seconds since the stream began",
            ylabel="surprise (1 is typical)",
            xlim=(0, seconds[-1]),
            ylim=(0, max(top, 1.3 * report.limit)),
        )
        axis.annotate(
            "planted change",
            (change_s, 0.985),
            xytext=(4, 0),
            ha="left",
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=RED,
        )
        axis.legend(loc="lower left", ncols=3, bbox_to_anchor=(0.0, 1.0), borderpad=0.2)
        return _svg(figure)


def _scene_marks(axis: Any, starts: Sequence[int], hz: float) -> None:
    """A line where each scene begins; the last one is the planted change."""
    for start in starts[1:-1]:
        axis.axvline(start / hz, color=FAINT, lw=1.0)
        axis.annotate(
            "new episode, announced",
            (start / hz, 0.985),
            xytext=(-4, 0),
            ha="right",
            va="top",
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
    axis.axvline(starts[-1] / hz, color=RED, lw=1.0, ls=(0, (4, 3)))


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _subplots(rows: int, columns: int, size: tuple[float, float], **how: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    ratios = {key: how.pop(key) for key in ("width_ratios",) if key in how}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios, **how)
    return figure, axes.ravel()


def _svg(figure: Any) -> str:
    """The `<svg>` element alone: no prolog, no metadata, no font of its own, nothing to load."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
