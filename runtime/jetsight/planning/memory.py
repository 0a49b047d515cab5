"""What a planner keeps of its last valid plan: to start the next from, or to hand on in its place.

Shapes: T ticks of the horizon, a size of one robot action, Q kept elites.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jetsight.engine import NDArray

# What a plan is for: if any of these differ, it is no plan for that.
_PURPOSE = ("z_goal", "probe_target", "probe_given", "probe_weight", "weights", "hazard_limit")


class PlanMemory:
    """Actions of the last valid plan, which tick they begin at, and what they were for.

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
            self._purpose[name][:] = values

    def forget(self) -> None:
        """Have no plan."""
        self._tick = None

    def age(self, tick: int) -> int | None:
        """Ticks since the plan was made; None if none of its actions is left at `tick`."""
        if self._tick is None or not 0 <= tick - self._tick < len(self._actions):
            return None
        return tick - self._tick

    @property
    def same_purpose(self) -> bool:
        """Whether the planner's goal, weights and constraints are still those of the plan."""
        return all(np.array_equal(self._purpose[n], v) for n, v in self._inputs.items())

    def shifted(self, age: int, actions: NDArray, kept: NDArray) -> None:
        """Copy the plan as seen `age` ticks later; its last action is repeated at the end."""
        for source, out in ((self._actions, actions), (self._kept, kept)):
            left = len(self._actions) - age
            out[..., :left, :] = source[..., age:, :]
            out[..., left:, :] = source[..., -1:, :]
