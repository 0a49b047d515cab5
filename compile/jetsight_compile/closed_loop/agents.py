"""Who drives: the baselines, and what every arm of an evaluation has to offer.

Shapes: a size of one robot action, H horizon, D latent, B action block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from jetsight.cameras.source import SourceInfo, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import NDArray
from jetsight.session import Session
from jetsight.stream.frames import Forecast, Frame
from jetsight_compile.closed_loop.config import PlanOptions
from jetsight_compile.closed_loop.episodes import EvalEpisode, random_stream
from jetsight_train.record.policies import SmoothRandom

_RANDOM_STREAM = 1


_PLAN_STREAM = 2


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
class AgentView:
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


class Agent(Protocol):
    """One arm: watches the warm-up, then acts."""

    log: Log

    def begin(self, episode: EvalEpisode) -> None:
        """Forget everything and take on a new episode."""
        ...

    def watch(self, glance: AgentView) -> None:
        """See a frame without deciding anything."""
        ...

    def act(self, glance: AgentView) -> NDArray:
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

    def watch(self, glance: AgentView) -> None:
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

    def act(self, glance: AgentView) -> NDArray:
        """The last action again."""
        assert glance.executed is not None
        return glance.executed


class ReplayAgent(Baseline):
    """What the driver really did from the start on, then its last action: the upper bound."""

    def act(self, glance: AgentView) -> NDArray:
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

    def act(self, glance: AgentView) -> NDArray:
        """The next step of the walk."""
        return self._walk()


def baselines(low: NDArray, high: NDArray, seed: int) -> Mapping[str, Agent]:
    """The arms that need no model, by the names results use."""
    return {"no-op": Hold(), "random": Chance(low, high, seed), "replay": ReplayAgent()}


class TickClock:
    """Time of a simulation: it stands still while anybody computes, one period per tick."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """The time it was moved to."""
        return self._now_ns

    def sleep_ns(self, duration_ns: int) -> None:
        """Let that much time pass, at once."""
        self._now_ns += max(duration_ns, 0)


class SimulatorCamera:
    """A camera that shows what it is handed, one frame for each `next`."""

    stamps = "replay"
    period_ns = 0  # the simulator waits for the loop
    ended = False
    frozen = False  # a simulated scene may rest
    rejecting = False

    def __init__(self) -> None:
        self._frame: Frame | None = None

    def show(self, frame: Frame) -> None:
        """Make `frame` the newest one."""
        self._frame = frame

    def start(self, request: StreamRequest, rate_hz: float | None = None) -> SourceInfo:
        """Begin; the size was checked when the simulator was opened."""
        return SourceInfo("simulator", request.height_px, request.width_px, request.camera_hz)

    def next(self, timeout_ns: int) -> Frame | None:
        """The frame that was handed over, once."""
        frame, self._frame = self._frame, None
        return frame

    def raise_for_error(self) -> None:
        """Nothing breaks here."""

    def close(self) -> None:
        """Nothing is held."""


class Deployed:
    """A pilot that is a session and nothing else.

    Args:
        session: open, with planners; on a `TickClock` unless plans have a deadline.
        use: how to ask for plans.
        clock: real time, for `plan_ms`.
    """

    def __init__(self, session: Session, use: PlanOptions, clock: Clock | None = None) -> None:
        self.log = Log()
        self._session, self._use = session, use
        self._clock = clock or MonotonicClock()
        self._every = use.replan_every
        self._stream: Generator[Forecast, None, None] | None = None
        self._left: NDArray | None = None  # of the running plan, not yet executed
        self._steps = 0  # of it that may be executed before the next plan is due
        self._acted = 0  # ticks since the warm-up

    def begin(self, episode: EvalEpisode) -> None:
        """Start a new stream, with empty histories."""
        self.end()
        self.log = Log()
        self._left, self._steps = None, 0
        self._acted = 0
        self._goal = episode.goal_frame
        self._seeds = random_stream(self._use.seed, episode.number, _PLAN_STREAM)
        self._camera = SimulatorCamera()
        self._stream = self._session.stream(self._camera)

    def watch(self, glance: AgentView) -> None:
        """Feed a frame of the warm-up to the stream."""
        self._see(glance, glance.upcoming)

    def act(self, glance: AgentView) -> NDArray:
        """Feed a frame; execute the plan, replan when it is due, hold when there is none."""
        assert glance.executed is not None
        held = glance.executed[None]
        self._see(glance, held if self._left is None else self._left)
        if self._steps == 0:
            self._plan(glance.tick)
        self._acted += 1
        if self._left is None:
            self.log.held += 1
            return np.asarray(glance.executed)
        action, self._left = self._left[0], self._left[1:]
        self._steps -= 1
        if len(self._left) == 0:
            self._left, self._steps = None, 0
        return np.asarray(action)

    def end(self) -> None:
        """End the stream; the session belongs to the caller."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _see(self, glance: AgentView, plan: NDArray | None) -> None:
        assert self._stream is not None, "begin comes first"
        clock = self._session.clock
        if isinstance(clock, TickClock):
            clock.sleep_ns(self._session.spec.period_ns)
        executed = None if glance.executed is None else glance.executed[None]
        self._camera.show(
            Frame(glance.frame_hwc_u8, glance.tick, glance.tick, clock.now_ns(), executed, plan)
        )
        forecast = next(self._stream)
        self.log.surprises += forecast.surprising and glance.upcoming is None

    def _arrive_ticks(self) -> int | None:
        """Ticks left until the goal should be reached; None for the end of the horizon."""
        if self._use.arrive == 0:
            return None
        return max(self._use.arrive - self._acted, 1)

    def _plan(self, tick: int) -> None:
        use, log = self._use, self.log
        seed = int(self._seeds.integers(1 << 31))
        start_ns = self._clock.now_ns()
        plan = self._session.imagine(
            self._goal,
            use.budget_ms,
            planner=use.planner,
            iterations=use.iterations,
            constrain=use.constrain,
            seed=seed,
            arrive_ticks=self._arrive_ticks(),
        )
        log.plan_ms.append((self._clock.now_ns() - start_ns) / 1e6)
        log.plans += 1
        if not plan.valid or plan.actions is None:
            log.reasons[str(plan.reason)] += 1
            self._left, self._steps = None, 0
            return
        log.valid += 1
        log.costs.append((tick, plan.cost))
        if plan.z_future is not None:
            log.futures.append((tick, plan.z_future.copy()))
        self._left = plan.actions.copy()
        self._steps = min(self._every, len(self._left))
