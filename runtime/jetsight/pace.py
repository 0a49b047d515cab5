"""How long a planner's iterations take, and how many more of them a deadline leaves time for."""

from __future__ import annotations

import math
from array import array

_REMEMBERED = 4
# A refusal brings no new measurement. Without fading, a machine that was busy for a moment would
# be refused for ever; with it, one twice too slow is tried once in 69 plans.
_FADE = 0.99


class Pace:
    """The last few measured times of one iteration.

    A plan begins if the fastest of them fits, since any of them may have been disturbed, and goes
    on while the slowest does.
    """

    def __init__(self) -> None:
        self._times_ns = array("d", [math.nan] * _REMEMBERED)
        self._count = 0

    def add(self, elapsed_ns: int, iterations: int) -> None:
        """Note how long some iterations took together."""
        self._times_ns[self._count % _REMEMBERED] = elapsed_ns / iterations
        self._count += 1

    def affordable(self, left_ns: int, *, started: bool) -> int | None:
        """How many iterations end within `left_ns`; None for any number.

        Args:
            left_ns: until the deadline.
            started: the plan has an iteration already.
        """
        if left_ns <= 0:
            return 0
        known = self._times_ns[: min(self._count, _REMEMBERED)]
        if not known:
            return None if started else 1
        expected = max(known) if started else min(known)
        if expected <= 0:
            return None
        count = int(left_ns // expected)
        if count == 0 and not started:
            for i in range(len(known)):
                self._times_ns[i] *= _FADE
        return count
