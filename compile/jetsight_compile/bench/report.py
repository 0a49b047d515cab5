"""Text report of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jetsight.cli.table import table
from jetsight_compile.bench.contestants import EAGER
from jetsight_compile.bench.requirements import BenchRow
from jetsight_compile.bench.timing import CallTimes

_BUSY = 0.3  # load per core above which other programs disturb the times


def header(machine: Mapping[str, Any], versions: Mapping[str, str], threads: int) -> Iterator[str]:
    """Describe the machine, and warn if its numbers are unreliable."""
    has = [name for name, present in machine["instructions"].items() if present]
    yield (
        f"{machine['processor']} ({machine['architecture']}), {machine['cores']} cores, "
        f"{threads} threads per contestant"
    )
    yield f"instructions: {', '.join(has) or 'unknown'}"
    if not machine["instructions"]["vnni"] and machine["architecture"] == "x86_64":
        yield "no VNNI: INT8 products take three instructions here; the int8 bars assume VNNI"
    if machine["load_per_core"] > _BUSY:
        yield (
            f"BUSY: load was {machine['load_per_core']:g} per core before the start; neither times "
            "nor ratios can be trusted, repeat on a quiet machine"
        )
    yield "  ".join(f"{name} {version}" for name, version in versions.items())


def race_table(
    timings: Mapping[str, CallTimes], flop: int, peaks: Mapping[str, float]
) -> Iterator[str]:
    """Format one line per contestant; the first call has a separate column."""
    times = ("min ms", "p50 ms", "p99 ms", "max ms")
    head = ("", "calls", *times, "x eager", "GFLOP/s", "of peak", "load+first ms")
    eager = timings[EAGER].calls_ms.percentile(50) if EAGER in timings else 0.0
    rows, failed = [], []
    for name, timing in timings.items():
        if timing.failed is not None:
            failed.append(f"{name}: not measured, {timing.failed}")
            continue
        summary = timing.calls_ms.summary()
        rate = flop / summary["p50"] / 1e6
        peak = peaks.get("int8" if name.endswith("int8") else "fp32", 0.0)
        rows.append(
            (
                name,
                str(timing.calls_ms.count),
                f"{timing.calls_ms.min:.2f}",
                *(f"{summary[key]:.2f}" for key in ("p50", "p99", "max")),
                f"{eager / summary['p50']:.2f}" if eager else "-",
                f"{rate:.1f}",
                f"{100 * rate / peak:.0f} %" if peak else "-",
                f"{timing.prepare_ms + timing.first_ms:.0f}",
            )
        )
    yield from table(head, rows)
    yield from failed


def bar_table(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Format every requirement with its verdict, and count the missed ones in the last line."""
    cells = []
    for row in rows:
        sign = ">=" if row.direction == "min" else "<="
        bar = "-" if row.bar is None else f"{sign} {row.bar:g}"
        cells.append((row.what, f"{row.value:.4g} {row.unit}", bar, row.verdict, row.note))
    yield from table(("", "value", "bar", "", "how"), cells)
    missed = [row.what.strip() for row in rows if row.met is False]
    judged = sum(row.bar is not None for row in rows)
    yield f"{judged - len(missed)} of {judged} bars met" + (
        f"; MISSED: {'; '.join(missed)}" if missed else ""
    )
