"""A clock that moves only when a test advances it."""

from __future__ import annotations


class FakeClock:
    """A clock that stands still until it is moved; sleeping moves it.

    Example:
        >>> clock = FakeClock()
        >>> clock.sleep_ns(5)
        >>> clock.now_ns()
        1000000005
    """

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time that the clock was moved to."""
        return self._now_ns

    def sleep_ns(self, duration_ns: int) -> None:
        """Return at once, `duration_ns` later."""
        self._now_ns += max(0, duration_ns)

    advance = sleep_ns
