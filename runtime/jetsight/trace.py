"""What is remembered of every iteration of a plan, and whether the search has come to its end.

Shapes: I iterations, H horizon, A action-block size.
"""

from __future__ import annotations

import numpy as np

from jetsight.engine import NDArray

_CONVERGED = 0.05  # mean spread, as a share of the first iteration's
_NARROW = 0.3  # a wider search that finds nothing better has only just begun
_PATIENCE = 4  # iterations that together improve the plan by less than `_IMPROVEMENT`
_IMPROVEMENT = 1e-3


class Trace:
    """Best plan and spread after each iteration.

    Args:
        iterations: I.
        std_start: `[H, A]` standard deviation of the first iteration.

    Attributes:
        cost: `[I]` best cost.
        violation: `[I]` of that best.
        invalid: `[I]` candidates that were not finite.
        std: `[I, H, A]` standard deviation of the next iteration.
        spread: `[I]` the same as one number, a share of the first iteration's; see `note`.
    """

    def __init__(self, iterations: int, std_start: NDArray) -> None:
        self.cost = np.zeros(iterations, np.float32)
        self.violation = np.zeros(iterations, np.float32)
        self.invalid = np.zeros(iterations, np.float32)
        self.std: NDArray = np.zeros((iterations, *std_start.shape), np.float32)
        self.spread = np.zeros(iterations, np.float32)
        self._start, self._share = std_start, np.zeros_like(std_start)

    def note(self, done: int, count: int) -> int:
        """Work out the spread of `count` iterations after the first `done`; how many there are."""
        for iteration in range(done, done + count):
            np.divide(self.std[iteration], self._start, out=self._share)
            self.spread[iteration] = self._share.mean()
        return done + count

    def has_converged(self, done: int) -> bool:
        """Whether more than `done` iterations would change little: no spread, or no gain."""
        now, then = done - 1, done - 1 - _PATIENCE
        if self.spread[now] < _CONVERGED:
            return True
        if then < 0 or self.spread[now] > _NARROW:
            return False
        # As Python floats, which know no warnings where a broken engine says infinity.
        broken_now, broken_then = float(self.violation[now]), float(self.violation[then])
        if broken_now > 0:
            return not broken_now < broken_then * (1 - _IMPROVEMENT)
        if broken_then > 0:
            return False
        cost_now, cost_then = float(self.cost[now]), float(self.cost[then])
        return not cost_now < cost_then - _IMPROVEMENT * abs(cost_then)
