"""The plan that a robot is executing, by tick.

Shapes: T ticks of a plan, a size of one robot action.
"""

from __future__ import annotations

import numpy as np

from jetsight.engine import NDArray


class RunningPlan:
    """Actions `[T, a]` from some tick on; which one is next follows from the tick alone.

    Attributes:
        made_tick: of the frame that it was planned from.
    """

    def __init__(self, step_size: int) -> None:
        self._actions: NDArray = np.zeros((0, step_size), np.float32)
        self._first = self.made_tick = 0

    def replace(self, tick: int, actions: NDArray, made_tick: int) -> None:
        """Execute a copy of `actions` from `tick` on."""
        self._actions, self._first, self.made_tick = actions.copy(), tick, made_tick

    def drop(self) -> None:
        """Execute nothing more of it."""
        self._actions = self._actions[:0]

    def left(self, tick: int) -> NDArray:
        """Return what is left of it at `tick`, `[n, a]`, n from 0."""
        return self._actions[max(tick - self._first, 0) :]
