"""Text report of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from jetsight.cli.table import table
from jetsight_compile.closed_loop.results import BUNDLE, FREE, ArmSummary, EvalResults
from jetsight_compile.closed_loop.statistics import Rate
from jetsight_compile.closed_loop.tasks.task import Measure

_NONE = "-"


def report_lines(results: EvalResults) -> Iterator[str]:
    """Format the success of every arm, the planners, the paired comparisons and violations."""
    task = results.settings["task"]
    measures = [Measure(*each) for each in task["measures"]]
    rates = ("success %", "95 %", *(f"{name} %" for name in (*task["also"], *task["kinds"])))
    head = ("arm", *rates, *(_heading(measure) for measure in measures))
    arms = results.summary.arms.items()
    yield from table(head, ([name, *_success_cells(arm, measures)] for name, arm in arms))
    yield from _uncomputed(results)
    yield from _planners(results)
    yield from _pairs(results)
    yield from _keep_out(results)


def _heading(measure: Measure) -> str:
    return f"{measure.name} {shown_unit(measure)}".rstrip()


def shown_unit(measure: Measure) -> str:
    """Return the unit of `format_measure`."""
    return "deg" if measure.unit == "rad" else measure.unit


def _success_cells(arm: ArmSummary, measures: Sequence[Measure]) -> list[str]:
    return [
        _percent(arm.success),
        _interval(arm.success.low, arm.success.high),
        *(_percent(rate) for rate in arm.also.values()),
        *(f"{_percent(rate)} of {rate.of}" for rate in arm.by_kind.values()),
        *(format_measure(measure, arm.mean_off[measure.key]) for measure in measures),
    ]


def format_measure(measure: Measure, value: float | None) -> str:
    """Format a distance to the goal, angles in degrees; `-` for one that is unknown."""
    if value is None:
        return _NONE
    if measure.unit == "rad":
        value = math.degrees(value)
    # A tenth of a pixel or degree is fine enough; of a metre or a newton it may be all there is.
    return f"{value:.1f}" if measure.unit in ("px", "deg", "rad") else f"{value:.3g}"


def _uncomputed(results: EvalResults) -> Iterator[str]:
    for name, arm in results.summary.arms.items():
        if arm.uncomputed_ticks:
            yield (
                f"{name}: success could not be computed on {arm.uncomputed_ticks} ticks, where a "
                "part of the formula is no finite number; they count as no success"
            )


def _planners(results: EvalResults) -> Iterator[str]:
    planning = {name: arm for name, arm in results.summary.arms.items() if arm.plans}
    if not planning:
        return
    yield ""
    times = ("p50 ms", "p90 ms", "p99 ms", "max ms")
    head = ("planner", "plans", "valid %", *times, "ticks held", "no plan because")
    yield from table(head, ([name, *_planner_cells(arm)] for name, arm in planning.items()))


def _planner_cells(arm: ArmSummary) -> list[str]:
    latency, reasons = arm.plan_ms, arm.no_plan_reasons
    times = [_NONE] * 4
    if latency is not None:
        times = [f"{v:.1f}" for v in (latency.p50, latency.p90, latency.p99, latency.max)]
    return [
        str(arm.plans),
        f"{100 * arm.valid_plans / arm.plans:.1f}",
        *times,
        str(arm.held_ticks),
        ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or _NONE,
    ]


def _pairs(results: EvalResults) -> Iterator[str]:
    if not results.summary.pairs:
        return
    yield ""
    rows = []
    for pair in results.summary.pairs:
        c = pair.comparison
        discordant = f"{c.only_first} : {c.only_second}"
        change = (f"{100 * c.difference:+.1f}", _interval(c.low, c.high))
        rows.append([f"{pair.first} - {pair.second}", *change, discordant, f"{c.p_value:.2g}"])
    yield from table(("success", "points", "95 %", "only one solved", "McNemar p"), rows)


def _keep_out(results: EvalResults) -> Iterator[str]:
    watched = {name: arm for name, arm in results.summary.arms.items() if arm.violation}
    if not watched:
        return
    yield ""
    rows = []
    for name, arm in watched.items():
        assert arm.violation is not None
        assert arm.violation_ticks is not None
        rate, ticks = arm.violation, arm.violation_ticks
        episodes = (_percent(rate), _interval(rate.low, rate.high))
        share = (f"{100 * ticks.rate:.2f}", _interval(ticks.low, ticks.high))
        rows.append([name, *episodes, *share])
    yield from table(("violations", "episodes %", "95 %", "ticks %", "95 %"), rows)
    keep_out = results.summary.keep_out
    if keep_out is None:
        return
    cut = keep_out.episodes
    if cut.reduction is None or cut.low is None or cut.high is None:
        yield f"{FREE} never entered the region, so there is nothing to reduce"
        return
    yield (
        f"{BUNDLE} enters the region in {100 * cut.reduction:.1f} % fewer episodes than without "
        f"the constraint (95 %: {_interval(cut.low, cut.high)})"
    )


def _percent(rate: Rate) -> str:
    return f"{100 * rate.rate:.1f}" if rate.of else _NONE


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"
