"""Clock of a session; injected, so that tests drive time themselves."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time in integer nanoseconds."""

    def now_ns(self) -> int:
        """Return nanoseconds since an arbitrary start; never goes backwards."""
        ...

    def sleep_ns(self, duration_ns: int) -> None:
        """Wait at least `duration_ns`; return at once for zero or less."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, the one V4L2 drivers stamp frames with."""

    def now_ns(self) -> int:
        """Return nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()  # noqa: TID251 - the only place that may

    def sleep_ns(self, duration_ns: int) -> None:
        """Sleep `duration_ns` nanoseconds."""
        if duration_ns > 0:
            time.sleep(duration_ns / 1e9)
