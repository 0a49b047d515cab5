"""One picture of one plan: the candidates, the search, the actions, and what the path looks like.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart.

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

from jetsight import atomic
from jetsight.engine import NDArray
from jetsight.errors import MissingDependency, StorageError, UsageError
from jetsight.plan_report import BROKEN_COST, PlanReport

INK, GREY, FAINT = "#22262b", "#7b818a", "#d9dce1"
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"
_LINES = (BLUE, ORANGE, GREEN, PURPLE, RED, INK)
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
_WIDE = 20.0  # a range of more than this ratio is drawn on a logarithmic axis
_METADATA: dict[str, dict[str, None]] = {  # equal plans, equal files
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_STYLE = {
    "text.parse_math": False,  # a path may hold dollar signs
    "svg.hashsalt": "jetsight",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@dataclass(frozen=True)
class Shown:
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
    """Refuse now what would fail once the plan is there.

    Raises:
        UsageError: the file is of a kind that is not drawn.
        StorageError: it cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    if path.suffix[1:].lower() not in _METADATA:
        raise UsageError(f"--picture is {str(path)!r}, expected a name with .png, .svg or .pdf")
    if path.is_dir():
        raise StorageError(f"{path} is a folder, expected a file name for --picture")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {folder}; give --picture a folder of yours")
    _matplotlib()


def write(path: Path, report: PlanReport, shown: Shown) -> None:
    """Draw a plan into a file.

    Raises:
        StorageError: it cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    atomic.write_file(path, draw(report, shown, path.suffix[1:].lower()))


def draw(report: PlanReport, shown: Shown, kind: str = "png") -> bytes:
    """A plan as the bytes of a picture; `kind` is png, svg or pdf.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    matplotlib = _matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 8.4), layout="constrained")
        search, actions, strip = figure.subfigures(3, 1, height_ratios=[1.25, 1.0, 0.8])
        _title(figure, report)
        left, right = search.subfigures(1, 2, width_ratios=[1.15, 1.0])
        _candidates(left.subplots(), report)
        _iterations(right.subplots(2, 1, sharex=True), report)
        _actions(actions.subplots(), report)
        _strip(strip, report, shown)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=_METADATA[kind])
        return buffer.getvalue()


def _title(figure: Any, report: PlanReport) -> None:
    name, backend, family, _ = report.ran_on
    plan = report.plan
    found = f"cost {plan.cost:.4g}" if plan.valid else f"no plan: {plan.reason}"
    words = (
        f"{name}: {report.facts.graph} on {backend} {family}, {plan.iterations} iterations in "
        f"{plan.planned_ms:.1f} ms, {found}"
    )
    figure.suptitle(words, x=0.01, ha="left", fontsize=11, color=INK)


def _candidates(axis: Any, report: PlanReport) -> None:
    """Costs in order, by what is known of each."""
    plan = report.plan
    axis.set(title="Candidates of the last iteration", xlabel="rank by cost", ylabel="cost")
    if not plan.iterations:
        _nothing(axis, "no iteration was run")
        return
    order = np.argsort(plan.candidate_costs, kind="stable")
    costs, rank = plan.candidate_costs[order].astype(float), np.arange(1, len(order) + 1)
    broken, refused = costs >= BROKEN_COST, report.refused[order]
    valid = ~broken & ~refused
    known = "valid" if report.constrained and plan.violation <= 0 else "feasible"
    _log_if_wide(axis, costs[~broken])
    for mask, color, marker, label in (
        (valid, BLUE, "o", known),
        (refused, RED, "D", "infeasible"),
    ):
        if mask.any():
            label = f"{label} ({mask.sum()})"
            axis.plot(rank[mask], costs[mask], marker, color=color, ms=3.2, alpha=0.8, label=label)
    if broken.any():
        axis.plot(
            rank[broken], np.full(broken.sum(), 0.97), "x", color=INK, ms=4, clip_on=False,
            transform=axis.get_xaxis_transform(), label=f"invalid ({broken.sum()})",
        )  # fmt: skip
    if plan.cost < BROKEN_COST:
        _mark_best(axis, report, costs, rank)
    axis.set_xlim(0.5 - 0.02 * len(rank), len(rank) + 0.5)
    axis.legend(loc="upper left", ncols=2)


def _mark_best(axis: Any, report: PlanReport, costs: NDArray, rank: NDArray) -> None:
    """The plan; its candidate may have come in an earlier iteration."""
    cost = report.plan.cost
    axis.axhline(cost, color=ORANGE, lw=1.0, ls=(0, (4, 3)), zorder=0)
    same = np.flatnonzero(np.isclose(costs, cost, rtol=1e-5))
    where = "" if len(same) else ", of an earlier iteration"
    at = rank[same[0]] if len(same) else 0.5
    word = "the plan" if report.plan.valid else "best"
    axis.plot(
        [at], [cost], "*", ms=13, color=ORANGE, mec=INK, mew=0.6, zorder=5,
        label=f"{word}: {cost:.4g}{where}",
    )  # fmt: skip


def _iterations(axes: Any, report: PlanReport) -> None:
    """The best so far, and how wide the search still is."""
    plan = report.plan
    top, bottom = axes
    top.set(title="The search, iteration by iteration", ylabel="best cost")
    bottom.set(xlabel="iteration", ylabel="spread (% of start)")
    if not plan.iterations:
        _nothing(top, "no iteration was run")
        _nothing(bottom, "")
        return
    number = np.arange(1, plan.iterations + 1)
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
    """What was done, and what the plan does, with its bounds."""
    plan, past, (low, high) = report.plan, report.past, report.bounds
    seconds = report.facts.horizon * report.block / report.hz
    axis.set(title="Actions", xlabel="seconds from now", xlim=(-len(past) / report.hz, seconds))
    one_scale = len(set(report.action.units)) == 1 and np.ptp(low) == 0 and np.ptp(high) == 0
    if one_scale:
        axis.set_ylabel(report.action.units[0] or "robot units")
        floor, scale = np.zeros_like(low), np.ones_like(low)
    else:
        axis.set_ylabel("share of bounds")
        floor, scale = low, np.maximum(high - low, 1e-12)
    for i, name in enumerate(report.action.names):
        unit = report.action.units[i]
        range_of = "" if one_scale else f" ({low[i]:g} to {high[i]:g} {unit}".rstrip() + ")"
        how = {"color": _LINES[i % len(_LINES)], "ls": _DASHES[i // len(_LINES) % len(_DASHES)]}
        before = (past[:, i] - floor[i]) / scale[i]
        _held(axis, before, -len(past), report.hz, alpha=0.45, **how)
        after = before[:0] if plan.actions is None else (plan.actions[:, i] - floor[i]) / scale[i]
        _held(axis, after, 0, report.hz, label=name + range_of, lw=1.8, **how)
    edges = (low[0], high[0]) if one_scale else (0.0, 1.0)
    _frame_of(axis, report, edges)


def _held(axis: Any, values: NDArray, first: int, hz: float, **how: Any) -> None:
    """Values that are each held for one tick, from tick `first` on."""
    if len(values):
        edges = (first + np.arange(len(values) + 1)) / hz
        axis.plot(edges, np.append(values, values[-1]), drawstyle="steps-post", **how)


def _frame_of(axis: Any, report: PlanReport, edges: tuple[float, float]) -> None:
    """Bounds, block borders, and where the past ends."""
    low, high = edges
    room = 0.1 * (high - low) or 1.0
    axis.set_ylim(low - room, high + room)
    for start, end in ((low - room, low), (high, high + room)):
        axis.axhspan(start, end, color=FAINT, alpha=0.6, lw=0, zorder=0)
    for block in range(report.facts.horizon):
        axis.axvline(block * report.block / report.hz, color=FAINT, lw=0.8, zorder=0)
    axis.axvline(0, color=INK, lw=1.0)
    axis.annotate(
        "out of bounds", (0.995, high + room / 2), xycoords=axis.get_yaxis_transform(),
        ha="right", va="center", fontsize=7.5, color=GREY,
    )  # fmt: skip
    for x, ha, word in ((-4, "right", "done"), (4, "left", "planned")):
        axis.annotate(
            word, (0, low - room / 2), xytext=(x, 0), textcoords="offset points", ha=ha,
            va="center", fontsize=7.5, color=GREY,
        )  # fmt: skip
    if report.plan.actions is None:
        axis.text(
            0.6, 0.5, f"no plan: {report.plan.reason}", transform=axis.transAxes, color=RED,
            ha="center", va="center", fontsize=11,
        )  # fmt: skip
        return
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderpad=0.0)


def _strip(figure: Any, report: PlanReport, shown: Shown) -> None:
    """Now, the recorded frames nearest to the imagined latents, the goal."""
    count, far = len(shown.nearest), report.distances
    axes = figure.subplots(1, count + 2 if count else 3, squeeze=False)[0]
    now = "" if report.distance_now is None else f"to goal {report.distance_now:.4g}"
    _panel(axes[0], shown.now, "now", now, INK)
    for k, (image, near) in enumerate(zip(shown.nearest, report.neighbours, strict=True)):
        seconds = (k + 1) * report.block / report.hz
        lines = [f"to goal {far[k]:.4g}"] if far is not None else []
        lines += [f"frame {near.distance:.2f} off"]
        _panel(axes[k + 1], image, f"imagined, +{seconds:.3g} s", "\n".join(lines), BLUE)
    if not count:
        note = "name a dataset with --library to see\nrecorded frames along the imagined path"
        _nothing(axes[1], note if report.plan.valid else "nothing was imagined that may be done")
    if shown.goal is not None:
        _panel(axes[-1], shown.goal, "goal", "", GREEN)
    else:
        wanted = "\n".join(f"{name} = {value:g}" for name, value in report.targets.items())
        _nothing(axes[-1], wanted, "goal")


def _panel(axis: Any, image: NDArray, title: str, below: str, color: str) -> None:
    axis.imshow(image, interpolation="nearest" if max(image.shape) < 64 else "antialiased")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, loc="center", color=color, fontsize=8.5)
    axis.set_xlabel(below, fontsize=7.5, color=GREY)
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, lw=1.5)


def _nothing(axis: Any, words: str, title: str = "") -> None:
    """An axis without data says why."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(title, loc="center", color=GREEN, fontsize=8.5)
    axis.text(
        0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", color=GREY,
        fontsize=9,
    )  # fmt: skip


def _log_if_wide(axis: Any, values: NDArray) -> bool:
    """A logarithmic y axis where the values ask for one."""
    wide = len(values) > 0 and values.min() > 0 and values.max() > _WIDE * values.min()
    if wide:
        axis.set_yscale("log")
    return bool(wide)


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as problem:
        raise MissingDependency("matplotlib", "train", "the picture of a plan") from problem
    return matplotlib
