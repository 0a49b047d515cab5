"""Agents of an evaluation: the protocol, the baselines and the deployed session.

Shapes: a size of one robot action, H horizon, D latent, B action block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from jetsight.clock import Clock, MonotonicClock
from jetsight.control.action import ActionSource
from jetsight.control.options import ControlOptions
from jetsight.engine import NDArray
from jetsight.planning.goal import Goal
from jetsight.planning.plan import Plan
from jetsight.session import Session
from jetsight.stream.frames import Frame
from jetsight_compile.closed_loop.config import PlanOptions
from jetsight_compile.closed_loop.episodes import EvalEpisode, random_stream
from jetsight_train.record.policies import SmoothRandom

# Streams of an episode's randomness; the driver has stream 0.
_RANDOM_STREAM, _PLAN_STREAM = 1, 2


@dataclass
class EpisodeLog:
    """Counts and plans of an agent in one episode; baselines plan nothing.

    Args:
        plans: number of requested plans.
        valid: number of valid plans.
        held: ticks on which it repeated the last action because it had no plan.
        reasons: reasons of invalid plans, counted.
        plan_ms: time of each plan.
        surprises: ticks with a surprising frame.
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
class AgentView:
    """Inputs of an agent at one tick.

    Args:
        tick: ticks since the reset of the environment.
        frame_hwc_u8: `[h,w,3]` camera frame, or `[C,h,w,3]` of several.
        executed: `[a]` action of the tick before; None at the first one.
        upcoming: `[n,a]` fixed actions ahead (warm-up); None if the agent decides.
        state: of the environment, by name; a model that reads a state takes its own out of it.
    """

    tick: int
    frame_hwc_u8: NDArray
    executed: NDArray | None
    upcoming: NDArray | None
    state: Mapping[str, float] = field(default_factory=dict)


class Agent(Protocol):
    """One arm: it watches the warm-up, then acts."""

    log: EpisodeLog

    def begin(self, episode: EvalEpisode) -> None:
        """Reset, and start a new episode."""
        ...

    def watch(self, view: AgentView) -> None:
        """Receive a frame of the warm-up."""
        ...

    def act(self, view: AgentView) -> NDArray:
        """Receive a frame, and return the action `[a]` of this tick."""
        ...

    def end(self) -> None:
        """End the episode."""
        ...


class Baseline:
    """An agent without a model; subclasses implement `act`."""

    def __init__(self) -> None:
        self.log = EpisodeLog()
        self._episode: EvalEpisode | None = None

    def begin(self, episode: EvalEpisode) -> None:
        """Start a new episode."""
        self.log, self._episode = EpisodeLog(), episode

    def watch(self, view: AgentView) -> None:
        """Ignore the frame."""

    def end(self) -> None:
        """Do nothing."""

    @property
    def episode(self) -> EvalEpisode:
        """The running episode."""
        assert self._episode is not None, "begin() has to be called first"
        return self._episode


class Hold(Baseline):
    """No-op: repeats the last action."""

    def act(self, view: AgentView) -> NDArray:
        """Return the last action."""
        assert view.executed is not None
        return view.executed


class ReplayAgent(Baseline):
    """Replay of the driver's actions, then of its last one: the upper bound."""

    def act(self, view: AgentView) -> NDArray:
        """Return the recorded action of this tick."""
        actions = self.episode.actions
        return np.asarray(actions[min(view.tick, len(actions) - 1)])


class Chance(Baseline):
    """A smooth random walk through the action box, the same in every run of an episode.

    Args:
        low: `[a]` lower action bounds of the environment.
        high: `[a]` upper action bounds of the environment.
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

    def act(self, view: AgentView) -> NDArray:
        """Return the next step of the walk."""
        return self._walk()


def baselines(low: NDArray, high: NDArray, seed: int) -> Mapping[str, Agent]:
    """Build the arms without a model, by their names in the results."""
    return {"no-op": Hold(), "random": Chance(low, high, seed), "replay": ReplayAgent()}


class TickClock:
    """Simulated time: it does not advance during computation, only one period per tick."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Return the simulated time."""
        return self._now_ns

    def sleep_ns(self, duration_ns: int) -> None:
        """Advance the simulated time without waiting."""
        self._now_ns += max(duration_ns, 0)


class Deployed:
    """An agent that drives a session by `Session.act`.

    Args:
        session: open, with planners; on a `TickClock` unless plans have a deadline.
        use: options of the plan requests.
        clock: real time, for `plan_ms`.
    """

    def __init__(self, session: Session, use: PlanOptions, clock: Clock | None = None) -> None:
        self.log = EpisodeLog()
        self._session, self._use = session, use
        self._clock = clock or MonotonicClock()
        self._options = ControlOptions(
            realtime=False,  # the simulator waits
            rest="hold",
            continue_ticks=0,
            replan_every=use.replan_every,
            deadline_ms=use.budget_ms,
            planner=use.planner,
            iterations=use.iterations,
            constrain=use.constrain,
            seed=self._seed,
        )
        self._plan_start_ns = 0

    def begin(self, episode: EvalEpisode) -> None:
        """Start a new stream, with empty histories."""
        self.log = EpisodeLog()
        reads = bool(self._session.spec.state_names)
        state = self._state(episode.goal_state) if reads else None
        self._goal = Goal.image(episode.goal_frame, state)
        self._seeds = random_stream(self._use.seed, episode.number, _PLAN_STREAM)
        self._session.restart(realtime=False)

    def watch(self, view: AgentView) -> None:
        """Pass a frame of the warm-up to the stream."""
        self._session.step(self._frame(view))

    def act(self, view: AgentView) -> NDArray:
        """Process a frame, replan if due, and return the plan's action or hold the last one."""
        assert view.executed is not None
        frame, log = self._frame(view), self.log
        action = self._session.act(
            frame, self._goal, arrive_ticks=self._use.arrive, options=self._options
        )
        log.surprises += action.forecast is not None and action.forecast.surprising
        log.held += action.source not in (ActionSource.PLANNED, ActionSource.CONTINUED)
        if action.plan is not None:
            log.plan_ms.append((self._clock.now_ns() - self._plan_start_ns) / 1e6)
            self._note(view.tick, action.plan)
        return action.values

    def end(self) -> None:
        """Do nothing: the session belongs to the caller."""

    def _frame(self, view: AgentView) -> Frame:
        clock = self._session.clock
        # Before the frame is stamped: one period per frame, however long planning took.
        if isinstance(clock, TickClock):
            clock.sleep_ns(self._session.spec.period_ns)
        executed = None if view.executed is None else view.executed[None]
        tick, now_ns = view.tick, clock.now_ns()
        state = self._state(view.state)
        image = view.frame_hwc_u8
        return Frame(image, tick, tick, now_ns, executed, view.upcoming, state=state)

    def _state(self, known: Mapping[str, float]) -> NDArray | None:
        """Select what the model reads, in its order; None for a model that reads no state."""
        names = self._session.spec.state_names
        return np.array([known[name] for name in names], np.float32) if names else None

    def _seed(self) -> int:
        """Draw one seed per plan from the episode's stream, so that arms draw equal noise."""
        # Simulated time stands still during a plan, and this is drawn when one begins.
        self._plan_start_ns = self._clock.now_ns()
        return int(self._seeds.integers(1 << 31))

    def _note(self, tick: int, plan: Plan) -> None:
        log = self.log
        log.plans += 1
        if not plan.valid:
            log.reasons[str(plan.reason)] += 1
            return
        log.valid += 1
        log.costs.append((tick, plan.cost))
        if plan.z_future is not None:
            log.futures.append((tick, plan.z_future.copy()))
