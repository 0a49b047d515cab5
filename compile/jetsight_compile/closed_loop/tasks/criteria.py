"""Tasks whose success the user states: a formula, or a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jetsight.errors import DataError, JetsightError, first_line
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.tasks.formula import Formula
from jetsight_compile.closed_loop.tasks.region import RegionFrame
from jetsight_compile.closed_loop.tasks.task import EvalTask, Judgement, Measure

# Quantities that a probe reads out of a camera frame, by name.
ReadFrame = Callable[[Observation], Mapping[str, float]]


class FormulaTask(EvalTask):
    """Success as a formula over the state, `info`, and what a probe reads out of camera frames.

    Args:
        formula: parsed.
        state_names: of the environment, in order.
        where: the environment, for messages.
        units: of the state, one per name, or empty.
        probed: names that a probe reads; those of the state come first.
        read: probe; not called unless the formula needs one of `probed`.
        region: see `EvalTask`.

    Raises:
        UsageError: a name is unknown.
    """

    name = "formula"

    def __init__(
        self,
        formula: Formula,
        state_names: Sequence[str],
        where: str,
        *,
        units: Sequence[str] = (),
        probed: Sequence[str] = (),
        read: ReadFrame | None = None,
        region: RegionFrame | None = None,
    ) -> None:
        self.criterion, self.region = formula.text, region
        self._names = tuple(state_names)
        self._bound = formula.bind([*dict.fromkeys([*state_names, *probed])], where)
        needs_probe = any(name not in state_names for name in self._bound.names)
        self._read = read if needs_probe else None
        unit_of = dict(zip(state_names, units, strict=False))
        self._compared = tuple(
            _compared(name, wrapped, unit_of.get(name, ""))
            for name, wrapped in self._bound.compared
        )
        self.measures = tuple(measure for *_, measure in self._compared)
        self._goal: tuple[Observation | None, Mapping[str, float]] = (None, {})

    def judge(self, now: Observation, goal: Observation) -> Judgement:
        """Judge one tick."""
        if self._goal[0] is not goal:  # read once per episode: a probe runs a network
            self._goal = goal, self._values(goal)
        here, there = self._values(now), self._goal[1]
        success = self._bound(here, there, now.kept)
        off = {
            measure.key: _distance(here[name], there[name], turn)
            for name, turn, measure in self._compared
        }
        return Judgement(bool(success), off, computable=success is not None)

    def _values(self, observation: Observation) -> Mapping[str, float]:
        read = {} if self._read is None else self._read(observation)
        state = {name: float(x) for name, x in zip(self._names, observation.state, strict=True)}
        return {**read, **state}


class FunctionTask(EvalTask):
    """Success as a function of the user: `function(state, goal_state, info) -> bool`.

    State and goal state are `float32 [s]` in the order of the environment's state names; `info` is
    the environment's own of this tick.

    Args:
        text: `module:function`, for messages.
        function: of the user.
        region: see `EvalTask`.
    """

    name = "function"

    def __init__(
        self, text: str, function: Callable[..., Any], region: RegionFrame | None = None
    ) -> None:
        self.criterion, self._function, self.region = text, function, region

    def check(self, observation: Observation) -> None:
        """Call the function once."""
        self.judge(observation, observation)

    def judge(self, now: Observation, goal: Observation) -> Judgement:
        """Judge one tick.

        Raises:
            DataError: the function failed, or returned neither True nor False.
        """
        info = now.info
        try:
            # Copies, so that a function that changes its arguments changes no episode.
            found = self._function(now.state.copy(), goal.state.copy(), info)
        except JetsightError:
            raise
        except Exception as problem:  # foreign code may raise anything
            raise DataError(
                f"--success {self.criterion!r} failed ({type(problem).__name__}: "
                f"{first_line(problem)}); it is called as function(state, goal_state, info)"
            ) from problem
        if not isinstance(found, (bool, np.bool_)):
            raise DataError(
                f"--success {self.criterion!r} returned {str(found)[:60]!r}, expected True or False"
            )
        return Judgement(bool(found))


def _compared(name: str, wrapped: bool, unit: str) -> tuple[str, float | None, Measure]:
    """Return name, whole turn of an angle, and measure of a quantity compared with the goal's."""
    unit = unit or ("rad" if wrapped else "")
    turn = (360.0 if unit == "deg" else math.tau) if wrapped else None
    return name, turn, Measure(name, unit)


def _distance(here: float, there: float, turn: float | None) -> float | None:
    gap = here - there
    if not math.isfinite(gap):
        return None
    return abs(gap if turn is None else math.remainder(gap, turn))
