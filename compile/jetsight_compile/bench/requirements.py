"""Requirements of the project as rows: value, bar and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jetsight.testing.overhead import Overhead
from jetsight_compile.bench.contestants import EAGER
from jetsight_compile.bench.timing import CallTimes

# The bars; docs/results.md has them beside measured values. Those of encoders are ratios to torch
# eager in the same run, by model and precision.
ENCODE_BARS = {("lewm", "fp32"): 1.5, ("lewm", "int8"): 2.5}
OVERHEAD_P99_MS = 1.0
OVERHEAD_SHARE = 0.05
IMPORT_MS = 150.0
RESIDENT_MB = 250.0
KEPT_BYTES = 0


@dataclass(frozen=True)
class BenchRow:
    """One measured number and its requirement.

    Args:
        what: name of the quantity.
        value: in `unit`.
        unit: e.g. `"ms"`.
        bar: required value, in `unit`; None without one.
        direction: `"min"` if larger is better.
        note: details of the measurement.
    """

    what: str
    value: float
    unit: str
    bar: float | None = None
    direction: Literal["min", "max"] = "max"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """True if the bar was met; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.direction == "min" else self.value <= self.bar

    @property
    def verdict(self) -> str:
        """Text for the table: `met`, `MISSED`, or empty without a bar."""
        return {True: "met", False: "MISSED", None: ""}[self.met]


def encode_rows(model: str, timings: Mapping[str, CallTimes]) -> list[BenchRow]:
    """Rate each contestant of one race: how many times faster than torch eager.

    The value is the smaller of two ratios, of the medians and of the fastest calls: a disturbance
    that slows eager more than the others (it waits for all its threads) must not favour them.
    """
    eager = timings[EAGER]
    if eager.failed is not None:
        return []
    rows = []
    for name, timing in timings.items():
        if name == EAGER or timing.failed is not None:
            continue
        medians = eager.calls_ms.percentile(50) / timing.calls_ms.percentile(50)
        fastest = eager.calls_ms.min / timing.calls_ms.min
        note = f"medians {medians:.2f}, fastest calls {fastest:.2f}"
        if timing.remembers:
            note += "; REMEMBERS: faster on a repeated frame"
        bar = ENCODE_BARS.get((model, name.rpartition("cpu-")[2])) if "cpu-" in name else None
        value = min(medians, fastest)
        rows.append(BenchRow(f"encode {model}, {name}", value, "x eager", bar, "min", note))
    return rows


def overhead_rows(overhead: Overhead) -> list[BenchRow]:
    """Rate the cost of the loop without its engines."""
    p99 = overhead.overhead_ms["p99"]
    frames = f"{overhead.frames} frames, null engines"
    percent, period = 100 * overhead.share_of_period, f"of {overhead.period_ms:.1f} ms"
    kept = f"kept after {overhead.frames} frames; a frame borrows up to {overhead.peak_bytes} B"
    kept_bytes, bar = float(overhead.kept_bytes), 100 * OVERHEAD_SHARE
    return [
        BenchRow("loop overhead p99, 224 px", p99, "ms", OVERHEAD_P99_MS, note=frames),
        BenchRow("loop overhead p99 / period", percent, "%", bar, note=period),
        BenchRow("steady-state allocation", kept_bytes, "B", float(KEPT_BYTES), note=kept),
    ]


def import_rows(times: Mapping[str, Mapping[str, float]]) -> list[BenchRow]:
    """Rate the import time of a robot's program."""
    return [
        BenchRow("import jetsight, p50", times["import"]["p50"], "ms", IMPORT_MS),
        BenchRow("  with Bundle, Camera, Session", times["import_streaming"]["p50"], "ms"),
    ]


def memory_rows(memory: Mapping[str, Mapping[str, Any]]) -> list[BenchRow]:
    """Rate the resident memory of a process that streams, by `backend family`."""
    rows = []
    for name, facts in memory.items():
        note = f"peak {facts['peak_mb']:.0f} MB while loading"
        if facts["heavy"]:
            note += f"; imported {', '.join(facts['heavy'])}"
        resident = float(facts["resident_mb"])
        rows.append(BenchRow(f"resident memory, {name}", resident, "MB", RESIDENT_MB, note=note))
    return rows
