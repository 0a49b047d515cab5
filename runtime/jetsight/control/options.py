"""Options of the control loop, checked when they are made.

Shapes: a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jetsight.engine import NDArray
from jetsight.errors import UsageError
from jetsight.planning.limits import Limits
from jetsight.stream.frames import Frame

Rest = Literal["hold", "neutral"]
"""An action without a plan: the last executed one again, or the robot's neutral one."""

WarmUp = Rest | Callable[[Frame], NDArray]
"""A policy `frame -> [a]` until there is a history to plan from."""

_RESTS = ("hold", "neutral")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """Options of `Session.act`, beside the goal.

    Args:
        realtime: ticks follow the clock, and a plan ends with its tick's period; False for a world
            that waits: every call is one tick, and a plan takes the time it takes.
        warm_up: until there is a history: hold, neutral, or a function of the newest frame.
        rest: without a plan: hold or neutral. None for what the planner starts from, and for
            neutral once the stream is in `Mode.FAULT`.
        continue_ticks: most ticks for which the rest of an older plan is executed where no new one
            could be made; None for all of it, 0 for none. One that the planner itself hands on,
            checked once more, does not count.
        replan_every: ticks of a plan that are executed before the next one.
        deadline_ms: of a plan; None for what is left of the period.
        planner: name of a graph; None for the one that makes most of a period here.
        iterations: exactly so many; None for as many as it takes to converge.
        limits: tighter than the robot's own.
        weights: as in `Session.imagine`.
        constrain: obey the hazard heads.
        seed: draws the seed of each plan, when one is due; None goes on with the planner's own.

    Raises:
        UsageError: a value is out of range.
    """

    realtime: bool = True
    warm_up: WarmUp = "hold"
    rest: Rest | None = None
    continue_ticks: int | None = None
    replan_every: int = 1
    deadline_ms: float | None = None
    planner: str | None = None
    iterations: int | None = None
    limits: Limits = field(default_factory=Limits)
    weights: Mapping[str, float] = field(default_factory=dict)
    constrain: bool = True
    seed: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        if not callable(self.warm_up) and self.warm_up not in _RESTS:
            raise UsageError(f"warm_up is {self.warm_up!r}, expected 'hold', 'neutral' or a policy")
        if self.rest is not None and self.rest not in _RESTS:
            raise UsageError(f"rest is {self.rest!r}, expected 'hold', 'neutral' or None")
        if self.replan_every < 1:
            raise UsageError(f"replan_every is {self.replan_every}, expected ticks from 1")
        if self.continue_ticks is not None and self.continue_ticks < 0:
            raise UsageError(f"continue_ticks is {self.continue_ticks}, expected ticks from 0")
