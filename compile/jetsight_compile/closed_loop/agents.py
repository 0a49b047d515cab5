"""Who drives: the baselines, and what every arm of an evaluation has to offer.

Shapes: a size of one robot action, H horizon, D latent, B action block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from jetsight.engine import NDArray
from jetsight_compile.closed_loop.episodes import EvalEpisode, random_stream
from jetsight_train.record.policies import SmoothRandom

_RANDOM_STREAM = 1


@dataclass
class Log:
    """What a pilot did in one episode; baselines plan nothing.

    Args:
        plans: how often it asked for a plan.
        valid: how often it got one.
        held: ticks it repeated the last action for want of a plan.
        reasons: why it got none, counted.
        plan_ms: time each plan took.
        surprises: ticks whose frame was out of the ordinary for the model.
        futures: for pictures, `(tick, [H,D])` of every valid plan.
        costs: for pictures, `(tick, cost)` of every valid plan.
    """

    plans: int = 0
    valid: int = 0
    held: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    plan_ms: list[float] = field(default_factory=list)
    surprises: int = 0
    futures: list[tuple[int, NDArray]] = field(default_factory=list)
    costs: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Glance:
    """What a pilot is shown at one tick.

    Args:
        tick: since the reset of the environment.
        frame_hwc_u8: `[h,w,3]` camera frame.
        executed: `[a]` action of the tick before; None at the first one.
        upcoming: `[n,a]` what is going to be done anyway (warm-up); None when the pilot decides.
    """

    tick: int
    frame_hwc_u8: NDArray
    executed: NDArray | None
    upcoming: NDArray | None


class Pilot(Protocol):
    """One arm: watches the warm-up, then acts."""

    log: Log

    def begin(self, episode: EvalEpisode) -> None:
        """Forget everything and take on a new episode."""
        ...

    def watch(self, glance: Glance) -> None:
        """See a frame without deciding anything."""
        ...

    def act(self, glance: Glance) -> NDArray:
        """See a frame and return the action `[a]` for this tick."""
        ...

    def end(self) -> None:
        """The episode is over."""
        ...


class Baseline:
    """A pilot without a model; subclasses say what `act` does."""

    def __init__(self) -> None:
        self.log = Log()
        self._episode: EvalEpisode | None = None

    def begin(self, episode: EvalEpisode) -> None:
        """Take on a new episode."""
        self.log, self._episode = Log(), episode

    def watch(self, glance: Glance) -> None:
        """Baselines look at nothing."""

    def end(self) -> None:
        """Nothing to end."""

    @property
    def episode(self) -> EvalEpisode:
        """The running episode."""
        assert self._episode is not None, "begin comes first"
        return self._episode


class Hold(Baseline):
    """No-op: goes on commanding what was commanded last."""

    def act(self, glance: Glance) -> NDArray:
        """The last action again."""
        assert glance.executed is not None
        return glance.executed


class Replay(Baseline):
    """What the driver really did from the start on, then its last action: the upper bound."""

    def act(self, glance: Glance) -> NDArray:
        """The recorded action of this tick."""
        actions = self.episode.actions
        return np.asarray(actions[min(glance.tick, len(actions) - 1)])


class Chance(Baseline):
    """A smooth random walk through the action box; the same one whenever the episode is the same.

    Args:
        low: `[a]` bounds of the environment.
        high: `[a]` bounds of the environment.
        seed: of the evaluation.
    """

    def __init__(self, low: NDArray, high: NDArray, seed: int) -> None:
        super().__init__()
        self._low, self._high, self._seed = low, high, seed

    def begin(self, episode: EvalEpisode) -> None:
        """Draw this episode's walk."""
        super().begin(episode)
        rng = random_stream(self._seed, episode.number, _RANDOM_STREAM)
        self._walk = SmoothRandom(self._low, self._high, rng)

    def act(self, glance: Glance) -> NDArray:
        """The next step of the walk."""
        return self._walk()


def baselines(low: NDArray, high: NDArray, seed: int) -> Mapping[str, Pilot]:
    """The arms that need no model, by the names results use."""
    return {"no-op": Hold(), "random": Chance(low, high, seed), "replay": Replay()}
