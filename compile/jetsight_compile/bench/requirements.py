"""The promises of the project as rows: value, bar, and whether it was met. Nothing is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Ratios of medians to torch eager in the same run, by model and precision.
ENCODE_BARS = {("lewm", "fp32"): 1.5, ("lewm", "int8"): 2.5}
OVERHEAD_P99_MS = 1.0
OVERHEAD_SHARE = 0.05
IMPORT_MS = 150.0
RESIDENT_MB = 250.0
KEPT_BYTES = 0


@dataclass(frozen=True)
class Row:
    """One measured number and what was promised.

    Args:
        what: measured.
        value: in `unit`.
        unit: e.g. `"ms"`.
        bar: promised; None where nothing was.
        direction: `"min"` when larger is better.
        note: how it was measured, in a few words.
    """

    what: str
    value: float
    unit: str
    bar: float | None = None
    direction: Literal["min", "max"] = "max"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar was met; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.direction == "min" else self.value <= self.bar

    @property
    def verdict(self) -> str:
        """What the table says: `met`, `MISSED`, or nothing without a bar."""
        return {True: "met", False: "MISSED", None: ""}[self.met]
