"""The race as a terminal shows it, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jetsight.cli.table import table
from jetsight_compile.bench.report import bar_table
from jetsight_compile.bench.requirements import BenchRow
from planrace.profiles import Shares, products_share
from planrace.run import Contestant, Results

SPEED_BARS, STRETCH = {"fp32": 2.5, "int8": 5.0}, {"fp32": 3.0, "int8": 8.0}
MEAN_BAR, RANK_BAR = 1e-4, 0.99
_SHOWN = 10  # operators of a profile; the others are summed


def rows(results: Results) -> list[BenchRow]:
    """Every bar: the best backend of each precision has to be fast enough, all have to agree."""
    eager, *others = results.contestants
    ran = [c for c in others if c.failed is None and c.name.startswith("jetsight")]
    found = []
    for precision, bar in SPEED_BARS.items():
        mine = [c for c in ran if c.precision == precision]
        if mine:
            found.append(_speed(eager, max(mine, key=lambda c: ratio(eager, c)), bar))
        found += [row for c in mine for row in _agreement(c)]
    return found


def ratio(eager: Contestant, other: Contestant) -> float:
    """Compute how many times faster it is: the smallest of three ratios.

    Of the medians, of the fastest plans, and of the least processor time: what disturbs eager more
    than others (it waits for all its threads) must not flatter them.
    """
    medians = eager.plans_ms.percentile(50) / other.plans_ms.percentile(50)
    fastest = eager.plans_ms.min / other.plans_ms.min
    return min(medians, fastest, eager.busy_ms.min / other.busy_ms.min)


def _speed(eager: Contestant, best: Contestant, bar: float) -> BenchRow:
    value, stretch = ratio(eager, best), STRETCH[best.precision]
    note = f"{best.name}; stretch {stretch:g}: {'reached' if value >= stretch else 'missed'}"
    return BenchRow(f"plan, {best.precision}", value, "x eager", bar, "min", note)


def _agreement(contestant: Contestant) -> list[BenchRow]:
    assert contestant.agreed is not None
    name, agreed = contestant.name.removeprefix("jetsight "), contestant.agreed
    rank = BenchRow(
        f"rank correlation, {name}",
        agreed.rank,
        "",
        RANK_BAR,
        "min",
        f"elites in common {agreed.elites:.2f}, cost of the plan {agreed.plan_cost:.3f} of theirs",
    )
    if contestant.precision == "int8":
        return [rank]
    return [
        BenchRow(
            f"same plan, {name}",
            agreed.mean,
            "std",
            MEAN_BAR,
            "max",
            "largest difference of the final means, in standard deviations of the actions",
        )
    ]


def lines(results: Results) -> Iterator[str]:
    """Everything as text."""
    peaks = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in results.peaks.items())
    yield f"stable-worldmodel: found its {_api(results.api)}"
    yield f"peak in this run, 1024 x 1024 x 1024 product: {peaks}"
    yield ""
    yield from table(HEAD, [_line(results, c) for c in results.contestants if c.failed is None])
    yield from (f"{c.name}: not measured, {c.failed}" for c in results.contestants if c.failed)
    for name, shares in results.profiles.items():
        yield ""
        yield f"one iteration of jetsight {name} by operator; {products_share(shares):.0%} products"
        yield from profile_table(shares)
    yield ""
    yield from bar_table(rows(results))


HEAD = (
    "one plan",
    "plans",
    "min ms",
    "p50 ms",
    "p99 ms",
    "max ms",
    "CPU ms",
    "x eager",
    "iteration min ms",
    "GFLOP",
    "GFLOP/s",
    "of peak",
    "load+first ms",
)


def _line(results: Results, contestant: Contestant) -> tuple[str, ...]:
    plans, iteration = contestant.plans_ms, contestant.iterations_ms.min  # as peaks are measured
    rate = contestant.flop / iteration / 1e6
    peak = results.peaks.get(contestant.precision, 0.0)
    return (
        contestant.name,
        str(plans.count),
        *(f"{ms:.0f}" for ms in (plans.min, *(plans.percentile(p) for p in (50, 99)), plans.max)),
        f"{contestant.busy_ms.min:.0f}",
        f"{ratio(results.contestants[0], contestant):.2f}",
        f"{iteration:.1f}",
        f"{contestant.flop / 1e9:.1f}",
        f"{rate:.0f}",
        f"{rate / peak:.0%}" if peak else "-",
        f"{contestant.first_ms:.0f}",
    )


def profile_table(shares: Shares) -> Iterator[str]:
    """List the operators that cost most; the others in one line."""
    total = max(sum(ms for ms, _ in shares.values()), 1e-9)
    top = list(shares.items())[:_SHOWN]
    rest = list(shares.values())[_SHOWN:]
    if rest:
        top.append(("others", (sum(ms for ms, _ in rest), sum(count for _, count in rest))))
    yield from table(
        ("operator", "kernels", "ms", "share"),
        [(name, str(count), f"{ms:.2f}", f"{ms / total:.1%}") for name, (ms, count) in top],
    )


def as_dict(results: Results) -> dict[str, Any]:
    """Numbers for `--json`."""
    return {
        "api": results.api,
        "peak_gflops": dict(results.peaks),
        "contestants": {c.name: _facts(results, c) for c in results.contestants},
        "profiles": {
            name: {op: {"ms": ms, "kernels": count} for op, (ms, count) in shares.items()}
            for name, shares in results.profiles.items()
        },
        "bars": [{**dataclasses.asdict(row), "met": row.met} for row in rows(results)],
    }


def _facts(results: Results, contestant: Contestant) -> Mapping[str, Any]:
    if contestant.failed is not None:
        return {"failed": contestant.failed}
    return {
        "plans": contestant.plans_ms.count,
        "min_ms": contestant.plans_ms.min,
        "plan_ms": contestant.plans_ms.summary(),
        "iteration_ms": contestant.iterations_ms.summary(),
        "cpu_min_ms": contestant.busy_ms.min,
        "first_ms": contestant.first_ms,
        "flop_per_iteration": contestant.flop,
        "x_eager": ratio(results.contestants[0], contestant),
        "agreement": None if contestant.agreed is None else contestant.agreed.as_dict(),
    }


def _api(name: str) -> str:
    return {
        "solver": "released interface, stable_worldmodel.solver.CEMSolver(model=...)",
        "planning": "main branch's interface, stable_worldmodel.planning.CEMSolver(cost=...)",
    }[name]
