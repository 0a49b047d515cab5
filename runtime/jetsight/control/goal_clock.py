"""The running goal, and the ticks until it is due."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import fields, replace

import numpy as np

from jetsight.errors import UsageError
from jetsight.planning.goal import Goal, GoalLike


class GoalClock:
    """Count-down of a goal from tick to tick; another goal, or another due time, restarts it."""

    def __init__(self) -> None:
        self.goal: Goal | None = None
        self._arrive = 0
        self._since = 0

    def set(self, goal: GoalLike | None, arrive_ticks: int, tick: int) -> bool:
        """Take the goal of a tick; return True if it is another one than before.

        Args:
            goal: None for no goal.
            arrive_ticks: ticks until it is due; 0 for the end of every plan.
            tick: now.

        Raises:
            UsageError: the goal is of no known kind, or `arrive_ticks` no integer from 0.
        """
        if not isinstance(arrive_ticks, (int, np.integer)) or arrive_ticks < 0:
            raise UsageError(f"arrive_ticks is {arrive_ticks!r}, expected an integer from 0")
        found = None if goal is None else Goal.of(goal)
        same = _equal(found, self.goal)
        if not same or arrive_ticks != self._arrive:
            self._since, self._arrive = tick, arrive_ticks
        if not same:
            # A copy: the caller may change its own image in place.
            self.goal = None if found is None else _owned(found)
        return not same

    def due(self, tick: int) -> int | None:
        """Count the ticks until the goal is due, at least 1; None for the end of every plan."""
        if self.goal is None or self._arrive == 0:
            return None
        return max(int(self._arrive) - (tick - self._since), 1)


def _equal(one: Goal | None, other: Goal | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(Goal))


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return dict(one) == dict(other)
    return one is other


def _owned(goal: Goal) -> Goal:
    """Copy a goal with everything in it."""
    return replace(goal, **{f.name: copy(getattr(goal, f.name)) for f in fields(Goal)})
