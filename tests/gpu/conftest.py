"""What the GPU tests share: a reason where they cannot run, and one table at the end.

The table's rows are those of `docs/hardware.md`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.gpu_rows import HEAD, ROWS

from jetsight.backends.registry import available
from jetsight.machine import system


def why_not() -> str | None:
    """Why nothing can be tested on a GPU here; None if it can."""
    problem = system.cuda(Path("/")).problem
    if problem is not None:
        return f"no NVIDIA GPU can be used ({problem}); see: jetsight doctor"
    return next(info.reason for info in available() if info.name == "tensorrt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all GPU tests with the reason, where there is one."""
    reason = why_not() if any(item.get_closest_marker("gpu") for item in items) else None
    for item in items:
        if reason is not None and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, ready for docs/hardware.md."""
    if ROWS:
        terminalreporter.section("measured; rows for docs/hardware.md")
        for line in (HEAD, *ROWS):
            terminalreporter.write_line(line)
