"""The deployed arm: camera frames into a session, a plan out of it, its actions to the simulator.

The session does not know that the world is simulated: it streams from a camera that waits for the
simulator, logs the actions really executed, and plans from its own histories.

Shapes: a size of one robot action, H horizon, B action block, D latent.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from jetsight.cameras.source import SourceInfo, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import NDArray
from jetsight.session import Session
from jetsight.stream.frames import Forecast, Frame
from jetsight_compile.closed_loop.agents import Glance, Log
from jetsight_compile.closed_loop.episodes import EvalEpisode, random_stream

_PLAN_STREAM = 2


@dataclass(frozen=True)
class PlannerUse:
    """How an evaluation asks for plans.

    Args:
        planner: graph of the bundle; None for its first.
        iterations: fixed number, so that results repeat; None for the planner's own.
        budget_ms: plan until this deadline instead; results then depend on the machine.
        replan_every: ticks of a plan that are executed before the next one.
        arrive: ticks after which to be at the goal, counted down from plan to plan, and as soon as
            possible once they are over; 0 to be there one horizon after each plan.
        constrain: heed the bundle's hazards.
        seed: of the evaluation; arms with equal seeds draw equal noise.
    """

    planner: str | None = None
    iterations: int | None = None
    budget_ms: float | None = None
    replan_every: int = 1
    constrain: bool = True
    seed: int = 0
    arrive: int = 25


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

    def __init__(self, session: Session, use: PlannerUse, clock: Clock | None = None) -> None:
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

    def watch(self, glance: Glance) -> None:
        """Feed a frame of the warm-up to the stream."""
        self._see(glance, glance.upcoming)

    def act(self, glance: Glance) -> NDArray:
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

    def _see(self, glance: Glance, plan: NDArray | None) -> None:
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
            self._goal, use.budget_ms, planner=use.planner, iterations=use.iterations,
            constrain=use.constrain, seed=seed, arrive_ticks=self._arrive_ticks(),
        )  # fmt: skip
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
