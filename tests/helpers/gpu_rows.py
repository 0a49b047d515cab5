"""Rows of the table in `docs/hardware.md`, filled by the tests and printed when they have ended."""

from __future__ import annotations

ROWS: list[str] = []
HEAD = (
    "| date | GPU, driver | TensorRT | model, family | encode p50 / p99 / max ms "
    "| forecast p50 / p99 / max ms | graph against enqueue, p50 |"
)
