"""A task: whether a tick is a success, and by how much it misses.

Shapes: s state size, n points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from jetsight.engine import NDArray
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.tasks.region import RegionFrame


@dataclass(frozen=True)
class Measure:
    """A distance to the goal that is reported beside success; angles are in rad."""

    name: str
    unit: str = ""

    @property
    def key(self) -> str:
        """Key in the results, such as `block_px`."""
        return f"{self.name}_{self.unit}" if self.unit else self.name


@dataclass(frozen=True)
class Judgement:
    """Judgement of one tick.

    Args:
        success: the task's criterion holds.
        off: distance to the goal by the key of its measure; None where it is no finite number.
        also: further criteria by name, each of which implies `success`.
        computable: False if `success` is False only because a part of it is no finite number.
    """

    success: bool
    off: Mapping[str, float | None] = field(default_factory=dict)
    also: Mapping[str, bool] = field(default_factory=dict)
    computable: bool = True

    @property
    def final(self) -> bool:
        """True when every criterion holds, so that nothing is left to reach."""
        return self.success and all(self.also.values())


class EvalTask(ABC):
    """Success in one environment.

    Attributes:
        name: short, for the results.
        criterion: what success is, in one line.
        measures: distances that are reported, in order.
        also: names of further criteria.
        kinds: names of the kinds of episodes, which are counted apart; empty for one kind.
        region: columns of a keep-out region; None if the task has no position.
    """

    name: str
    criterion: str
    measures: tuple[Measure, ...] = ()
    also: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    region: RegionFrame | None = None

    @abstractmethod
    def judge(self, now: Observation, goal: Observation) -> Judgement:
        """Judge one tick; never a success where a needed number is not finite.

        Raises:
            DataError: a function of the user failed.
        """

    def check(self, observation: Observation) -> None:
        """Refuse now what would fail in the first episode, at the cost of no time.

        Raises:
            DataError: a function of the user failed.
        """
        del observation

    def kind(self, start: NDArray, goal: NDArray) -> str:
        """Name the kind of an episode that leads from state `start [s]` to `goal [s]`."""
        del start, goal
        return ""
