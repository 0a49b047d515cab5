"""Memory of a planner: its last valid plan, and the convergence of the running one.

Shapes: T ticks of the horizon, a size of one robot action, Q kept elites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from jetsight.engine import NDArray

# Inputs that define the purpose of a plan: it must not be handed on when any of them differs.
_PURPOSE = ("z_goal", "probe_target", "probe_given", "probe_weight", "weights", "hazard_limit")

_CONVERGED = 0.05  # mean spread, as a share of the first iteration's
_NARROW = 0.3  # above this spread, no gain only means that the search has just begun
_PATIENCE = 4  # iterations that together improve the plan by less than `_IMPROVEMENT`
_IMPROVEMENT = 1e-3


class PlanMemory:
    """Actions of the last valid plan, their first tick, and their purpose.

    Args:
        ticks: T.
        step_size: a.
        kept: Q.
        inputs: the planner's, by name.

    Attributes:
        cost: predicted for it.
        violation: predicted for it.
    """

    def __init__(self, ticks: int, step_size: int, kept: int, inputs: Mapping[str, NDArray]):
        self._actions = np.zeros((ticks, step_size), np.float32)
        self._kept = np.zeros((kept, ticks, step_size), np.float32)
        self._inputs = {name: inputs[name] for name in _PURPOSE if name in inputs}
        self._purpose = {name: values.copy() for name, values in self._inputs.items()}
        self._tick: int | None = None
        self.cost = self.violation = float("nan")

    def keep(
        self, tick: int, actions: NDArray, kept: NDArray, cost: float, violation: float
    ) -> None:
        """Remember a plan `actions [T, a]` made at `tick` with the elites `kept [Q, T, a]`."""
        self._tick, self.cost, self.violation = tick, cost, violation
        self._actions[:], self._kept[:] = actions, kept
        for name, values in self._inputs.items():
            # Copied, because the planner's inputs are overwritten by the next request.
            self._purpose[name][:] = values

    def forget(self) -> None:
        """Drop the plan."""
        self._tick = None

    def age(self, tick: int) -> int | None:
        """Count ticks since the plan was made; None if no action of it is left at `tick`."""
        # A negative age means that the time line of the stream was set back.
        if self._tick is None or not 0 <= tick - self._tick < len(self._actions):
            return None
        return tick - self._tick

    @property
    def same_purpose(self) -> bool:
        """The planner's goal, weights and constraints are still those of the plan."""
        return all(np.array_equal(self._purpose[n], v) for n, v in self._inputs.items())

    def shifted(self, age: int, actions: NDArray, kept: NDArray) -> None:
        """Copy the plan shifted by `age` ticks; its last action is repeated at the end."""
        for source, out in ((self._actions, actions), (self._kept, kept)):
            left = len(self._actions) - age
            out[..., :left, :] = source[..., age:, :]
            out[..., left:, :] = source[..., -1:, :]


class ConvergenceTrace:
    """Best plan and spread after each iteration.

    Args:
        iterations: I.
        std_start: `[H, A]` standard deviation of the first iteration.
        free: `[H, A]` true where plans may differ; the spread of the others is no measure.

    Attributes:
        cost: `[I]` best cost.
        violation: `[I]` of that best.
        invalid: `[I]` candidates that were not finite.
        std: `[I, H, A]` standard deviation of the next iteration.
        spread: `[I]` the same as one number, a share of the first iteration's; see `note`.
    """

    def __init__(self, iterations: int, std_start: NDArray, free: NDArray | None = None) -> None:
        self.cost = np.zeros(iterations, np.float32)
        self.violation = np.zeros(iterations, np.float32)
        self.invalid = np.zeros(iterations, np.float32)
        self.std: NDArray = np.zeros((iterations, *std_start.shape), np.float32)
        self.spread = np.zeros(iterations, np.float32)
        self._start, self._share = std_start, np.zeros_like(std_start)
        self._free: NDArray | Literal[True] = True if free is None else free

    def note(self, done: int, count: int) -> int:
        """Compute the spread of `count` iterations after `done`; returns the new total."""
        for iteration in range(done, done + count):
            np.divide(self.std[iteration], self._start, out=self._share)
            self.spread[iteration] = self._share.mean(where=self._free)
        return done + count

    def has_converged(self, done: int) -> bool:
        """Decide whether more than `done` iterations would change little: no spread, or no gain."""
        now, then = done - 1, done - 1 - _PATIENCE
        if self.spread[now] < _CONVERGED:
            return True
        if then < 0 or self.spread[now] > _NARROW:
            return False
        # Python floats: NumPy would warn where a broken engine returns infinity.
        broken_now, broken_then = float(self.violation[now]), float(self.violation[then])
        if broken_now > 0:
            # In this form a NaN counts as no gain, so a broken engine ends the search.
            return not broken_now < broken_then * (1 - _IMPROVEMENT)
        # The plan has just become feasible; its cost was not minimized before that.
        if broken_then > 0:
            return False
        cost_now, cost_then = float(self.cost[now]), float(self.cost[then])
        return not cost_now < cost_then - _IMPROVEMENT * abs(cost_then)
