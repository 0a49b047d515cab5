"""One picture of one plan: the candidates, the search, the actions, and what the path looks like.

Shapes: N samples, I iterations, H horizon, B ticks per block, T = H * B ticks, a size of one robot
action, n past ticks, h, w frame size.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import StorageError, UsageError
from jetsight.plan_report import style
from jetsight.plan_report.report import PlanReport
from jetsight.plan_report.style import (
    BLUE,
    DASHED,
    FAINT,
    GREEN,
    GREY,
    INK,
    METADATA,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    note,
)
from jetsight.plan_report.tiles import side_by_side
from jetsight.planning.plan import BROKEN_COST
from jetsight.storage import atomic

_LINES = (BLUE, ORANGE, GREEN, PURPLE, RED, INK)
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
_WIDE = 5.0  # a range of more than this ratio is drawn on a logarithmic axis
_PURPOSE = "the picture of a plan"


@dataclass(frozen=True)
class FigureImages:
    """The pictures that go with a report, `uint8 [h, w, 3]`.

    Args:
        now: newest frame.
        goal: None for a goal of targets alone.
        nearest: recorded frames along the imagined path; empty without a library.
    """

    now: NDArray
    goal: NDArray | None = None
    nearest: Sequence[NDArray] = ()


def check(path: Path) -> None:
    """Refuse a file that could not be written, before anything is planned.

    Raises:
        UsageError: the file is of a kind that is not drawn.
        StorageError: it cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    if path.suffix[1:].lower() not in METADATA:
        raise UsageError(f"--picture is {str(path)!r}, expected a name with .png, .svg or .pdf")
    if path.is_dir():
        raise StorageError(f"{path} is a folder, expected a file name for --picture")
    # The nearest folder that exists, because writing makes those below it.
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {folder}; give --picture a folder of yours")
    style.context(_PURPOSE)


def write(path: Path, report: PlanReport, shown: FigureImages) -> None:
    """Draw a plan into a file.

    Raises:
        StorageError: it cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    # Drawn in memory first: a failed drawing leaves an older picture in place.
    atomic.write_file(path, draw(report, shown, path.suffix[1:].lower()))


def draw(report: PlanReport, shown: FigureImages, kind: str = "png") -> bytes:
    """Draw a plan as the bytes of a picture; `kind` is png, svg or pdf.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    with style.context(_PURPOSE):
        figure = style.figure(11.0, 8.8)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.07)
        search, actions, strip = figure.subfigures(3, 1, height_ratios=[1.2, 1.0, 0.95])
        _title(figure, report)
        left, right = search.subfigures(1, 2, width_ratios=[1.15, 1.0])
        _candidates(left.subplots(), report)
        _iterations(right.subplots(2, 1, sharex=True), report)
        _actions(actions.subplots(), report)
        _strip(strip, report, shown)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=METADATA[kind])
        return buffer.getvalue()


def _title(figure: Any, report: PlanReport) -> None:
    name, backend, family, _ = report.ran_on
    plan = report.plan
    found = f"cost {plan.cost:.4g}" if plan.valid else f"no plan: {plan.reason}"
    words = (
        f"{name}: {report.facts.graph} on {backend} {family}, {plan.iterations} iterations in "
        f"{plan.planned_ms:.1f} ms, {found}\nfrom {report.told[0]}\nto {report.told[1]}"
    )
    figure.suptitle(words, x=0.012, ha="left", fontsize=9.5, color=INK, linespacing=1.4)


def _candidates(axis: Any, report: PlanReport) -> None:
    """Costs in the order in which the planner prefers them, which is not that of cost alone."""
    plan = report.plan
    axis.set_title("Candidates of the last iteration")
    if not plan.iterations:
        _nothing(axis, "no iteration was run")
        return
    axis.set(xlabel="rank: feasible by cost, infeasible by violation", ylabel="cost")
    order = report.ranking
    costs, rank = plan.candidate_costs[order].astype(float), np.arange(1, len(order) + 1)
    broken, refused = costs >= BROKEN_COST, report.refused[order]
    _log_if_wide(axis, costs[~broken])
    for mask, color, marker, label in (
        (~broken & ~refused, BLUE, "o", "feasible"),
        (refused, RED, "D", "infeasible"),
    ):
        if mask.any():
            label = f"{label} ({mask.sum()})"
            axis.plot(rank[mask], costs[mask], marker, color=color, ms=3.2, alpha=0.8, label=label)
    if broken.any():
        axis.plot(
            rank[broken],
            np.full(broken.sum(), 0.97),
            "x",
            color=INK,
            ms=4,
            clip_on=False,
            transform=axis.get_xaxis_transform(),
            label=f"invalid ({broken.sum()})",
        )
    if report.facts.elites:
        count = report.facts.elites
        how = {"color": SKY, "alpha": 0.25, "lw": 0, "zorder": 0}
        axis.axvspan(0.5, count + 0.5, label=f"elites ({count})", **how)
    if plan.cost < BROKEN_COST:
        _mark_best(axis, report, costs, rank)
    axis.set_xlim(0.5 - 0.02 * len(rank), 0.5 + 1.02 * len(rank))
    axis.legend(loc="upper left", handletextpad=0.4)  # feasible costs ascend: nothing is there


def _mark_best(axis: Any, report: PlanReport, costs: NDArray, rank: NDArray) -> None:
    """Draw the plan; its candidate may have come in an earlier iteration."""
    cost = report.plan.cost
    axis.axhline(cost, color=ORANGE, lw=1.0, ls=DASHED, zorder=0)
    # Close, not equal: the costs of samples and the best one are separate outputs of the graph.
    same = np.flatnonzero(np.isclose(costs, cost, rtol=1e-5))
    where = "" if len(same) else ", of an earlier iteration"
    at = rank[same[0]] if len(same) else 0.5
    word = "the plan" if report.plan.valid else "refused"
    word = "least violation" if report.plan.violation > 0 else word
    axis.plot(
        [at],
        [cost],
        "*",
        ms=13,
        color=ORANGE,
        mec=INK,
        mew=0.6,
        zorder=5,
        label=f"{word}: {cost:.4g}{where}",
    )


def _iterations(axes: Any, report: PlanReport) -> None:
    """Draw the best cost so far and the remaining spread of the search."""
    plan = report.plan
    top, bottom = axes
    top.set_title("The search")
    if not plan.iterations:
        _nothing(top, "no iteration was run")
        _nothing(bottom, "")
        return
    top.set_ylabel("best cost")
    bottom.set(xlabel="iteration", ylabel="spread (% of start)")
    number = np.arange(1, plan.iterations + 1)
    # Matplotlib leaves a gap for NaN, while 3e38 would stretch the axis.
    costs = np.where(plan.costs < BROKEN_COST, plan.costs, np.nan).astype(float)
    spread = 100.0 * plan.spread.astype(float)
    for axis, values, color in ((top, costs, BLUE), (bottom, spread, GREEN)):
        size = 4.0 if plan.iterations <= 40 else 0.0
        axis.plot(number, values, color=color, marker="o", ms=size, lw=1.4)
        finite = values[np.isfinite(values)]
        if len(finite) and not _log_if_wide(axis, finite):
            axis.set_ylim(0, 1.12 * finite.max() or 1.0)
    bottom.xaxis.get_major_locator().set_params(integer=True)


def _actions(axis: Any, report: PlanReport) -> None:
    """Draw executed and planned actions within their bounds."""
    plan, past, action = report.plan, report.past, report.action
    low, high = report.bounds
    seconds = report.facts.horizon * report.block / report.hz
    axis.set(title="Actions", xlabel="seconds from now", xlim=(-len(past) / report.hz, seconds))
    own_low, own_high = np.asarray(action.low), np.asarray(action.high)
    # Quantities of different units or bounds share an axis only as shares of their bounds.
    together = len(set(action.units)) == 1 and not any(
        np.ptp(b) for b in (low, high, own_low, own_high)
    )
    axis.set_ylabel((action.units[0] or "robot units") if together else "share of bounds")
    floor = 0.0 * own_low if together else low
    # Both bounds of an action may be equal, and 0 divides nothing.
    scale = 1.0 + floor if together else np.maximum(high - low, 1e-12)
    past = (past - floor) / scale
    for i, (name, unit) in enumerate(zip(action.names, action.units, strict=True)):
        label = name if together else f"{name} ({low[i]:g} to {high[i]:g} {unit})"
        how = {"color": _LINES[i % len(_LINES)], "ls": _DASHES[i // len(_LINES) % len(_DASHES)]}
        _held(axis, past[:, i], -len(past), report.hz, alpha=0.45, **how)
        if plan.actions is not None:
            planned = (plan.actions[:, i] - floor[i]) / scale[i]
            _held(axis, planned, 0, report.hz, label=label, lw=1.8, **how)
    shown = (own_low[0], own_high[0]) if together else (0.0, 1.0)
    _surroundings(axis, report, shown, (low[0], high[0]) if together else shown)


def _held(axis: Any, values: NDArray, first: int, hz: float, **how: Any) -> None:
    """Values that are each held for one tick, from tick `first` on."""
    if len(values):
        edges = (first + np.arange(len(values) + 1)) / hz
        axis.plot(edges, np.append(values, values[-1]), drawstyle="steps-post", **how)


def _surroundings(
    axis: Any, report: PlanReport, shown: tuple[float, float], bounds: tuple[float, float]
) -> None:
    """Bounds, block borders, and where the past ends."""
    low, high = shown
    room = 0.1 * (high - low)
    axis.set_ylim(low - room, high + room)
    for start, end in ((low - room, bounds[0]), (bounds[1], high + room)):
        axis.axhspan(start, end, color=FAINT, alpha=0.6, lw=0, zorder=0)
    for block in range(report.facts.horizon):
        axis.axvline(block * report.block / report.hz, color=FAINT, lw=0.8, zorder=0)
    axis.axvline(0, color=INK, lw=1.0)
    small: dict[str, Any] = {"color": GREY, "size": 7.5}
    above, below = high + room / 2, low - room / 2
    note(axis, "out of bounds", (0.995, above), align="right center", coords="y", **small)
    note(axis, "done", (0, below), (-4, 0), align="right center", **small)
    note(axis, "planned", (0, below), (4, 0), align="left center", **small)
    if report.plan.actions is None:
        middle = (report.facts.horizon * report.block / report.hz / 2, (low + high) / 2)
        words = f"no plan: {report.plan.reason}"
        note(axis, words, middle, align="center center", color=RED, size=11)
        return
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        borderpad=0.0,
        borderaxespad=0.3,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def _strip(figure: Any, report: PlanReport, shown: FigureImages) -> None:
    """Now, the recorded frames nearest to the imagined latents, the goal."""
    count, far = len(shown.nearest), report.distances
    axes = figure.subplots(1, count + 2 if count else 3, squeeze=False)[0]
    _strip_title(figure, report, count > 0)
    now = "" if report.distance_now is None else f"to goal {report.distance_now:.4g}"
    _panel(axes[0], shown.now, "now", now, INK)
    for k, (image, near) in enumerate(zip(shown.nearest, report.neighbours, strict=True)):
        seconds = (k + 1) * report.block / report.hz
        below = [] if far is None else [f"to goal {far[k]:.4g}"]
        below.append(f"frame {near.distance:.2f} off")
        _panel(axes[k + 1], image, f"imagined, +{seconds:.3g} s", "\n".join(below), BLUE)
    if not count:
        hint = "name a dataset with --library to see\nrecorded frames along the imagined path"
        _nothing(axes[1], hint if report.plan.valid else "there is no plan, and so no path")
    wanted = "\n".join(f"{name} = {value:g}" for name, value in report.targets.items())
    if shown.goal is not None:
        _panel(axes[-1], shown.goal, "goal", wanted, GREEN)
        return
    _panel(axes[-1], np.full_like(shown.now, 255), "goal", "", GREEN)
    _centred(axes[-1], wanted, INK, 8.5)


def _strip_title(figure: Any, report: PlanReport, has_library: bool) -> None:
    of = f": frames of {report.library} nearest to the imagined latents" if has_library else ""
    figure.suptitle(
        f"The imagined path{of}", x=0.012, ha="left", fontsize=9.5, weight="bold", color=INK
    )
    words = ["to goal: squared latent distance"] * (report.z_goal is not None)
    words += ["off: RMS, in spreads of the latent"] * has_library
    figure.text(0.988, 0.975, "; ".join(words), ha="right", va="top", fontsize=7.5, color=GREY)


def _panel(axis: Any, image: NDArray, title: str, below: str, color: str) -> None:
    image = side_by_side(image)
    axis.imshow(image, interpolation="nearest" if max(image.shape) < 64 else "antialiased")
    axis.set(xticks=[], yticks=[], anchor="N")
    axis.set_title(title, loc="center", color=color, fontsize=8.5)
    axis.set_xlabel(below, fontsize=7.5, color=GREY)
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, lw=1.5)


def _nothing(axis: Any, words: str) -> None:
    """Leave an axis empty, with the reason on it."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    _centred(axis, words, GREY, 9)


def _centred(axis: Any, words: str, color: str, size: float) -> None:
    middle = (0.5, 0.5)
    note(axis, words, middle, align="center center", coords="axes fraction", color=color, size=size)


def _log_if_wide(axis: Any, values: NDArray) -> bool:
    """Make the y axis logarithmic if the values span a wide range; true if it was made so."""
    wide = len(values) > 0 and values.min() > 0 and values.max() > _WIDE * values.min()
    if wide:
        from matplotlib.ticker import LogLocator, NullFormatter

        axis.set_yscale("log")
        steps = (1.0, 2.0, 5.0) if values.max() < 100 * values.min() else (1.0,)
        axis.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    return bool(wide)
