"""One tick of control: see, plan with the time left, and choose an action that may be executed.

Shapes: a size of one robot action, T ticks of a plan, n actions left of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.clock import Clock
from jetsight.control.action import Action, ActionSource
from jetsight.control.action_gate import ActionGate, finite
from jetsight.control.goal_clock import GoalClock
from jetsight.control.options import ControlOptions
from jetsight.control.running_plan import RunningPlan
from jetsight.control.ticks import TickTrack
from jetsight.engine import NDArray
from jetsight.planning.goal import GoalLike, PlanRequest
from jetsight.planning.imagine import PlannerPool
from jetsight.planning.plan import Plan, PlanReason
from jetsight.stream.frames import Forecast, Frame, Mode
from jetsight.stream.loop import StreamLoop

_RESERVE = 0.05  # share of the period that is left for sending the action
_NO_HISTORY = (PlanReason.WARMING_UP, PlanReason.HISTORY_GAP, PlanReason.ACTIONS_UNKNOWN)


@dataclass(frozen=True, slots=True)
class ControlParts:
    """Everything of a session that its control loop uses.

    Args:
        pool: of planners.
        stream: histories and health.
        plan: makes a plan for a request.
        clock: the session's.
    """

    pool: PlannerPool
    stream: StreamLoop
    plan: Callable[[PlanRequest], Plan]
    clock: Clock


@dataclass(slots=True)
class _Choice:
    """Values `[a]` before the last check, and where they are from."""

    values: NDArray
    source: ActionSource
    reason: str


class ControlLoop:
    """Control of one robot from tick to tick; see `Session.act`.

    Args:
        parts: of the session.
        options: of the loop.

    Raises:
        UsageError: an option does not fit the robot, or there is no such planner.
        EngineError: the planner's graph cannot be loaded.
    """

    def __init__(self, parts: ControlParts, options: ControlOptions) -> None:
        self._parts, self._spec = parts, parts.pool.spec
        stream = self._spec.stream
        self._track = TickTrack(stream, parts.stream.frame_shape)
        self._goal, self._running = GoalClock(), RunningPlan(stream.step_size)
        # The action in force, and the tick from which on it is.
        self._last: NDArray | None = None
        self._last_tick = 0
        self._sources: Counter[ActionSource] = Counter()
        if not options.realtime and parts.stream.state(0).tick < 0:
            parts.stream.restart()  # the frames of a world that waits are never stale
        self.use(options)

    def use(self, options: ControlOptions) -> None:
        """Go on with other options; plan, goal and ticks stay.

        Raises:
            UsageError, EngineError: see the class.
        """
        stream = self._spec.stream
        period_ms = stream.period_ns / 1e6 if options.realtime else None
        # At once, which is in the warm-up: no deadline covers the loading of a graph.
        budget_ms = options.deadline_ms or period_ms
        self._planner: PlannerSpec = self._parts.pool.planner(options.planner, budget_ms).facts
        self._horizon_ticks = self._planner.horizon * stream.action_block
        self._gate = ActionGate(self._spec, options.limits)
        self._track.realtime, self.options = options.realtime, options

    def act(
        self,
        given: Frame | NDArray | None,
        state: NDArray | None,
        goal: GoalLike | None,
        executed: NDArray | None,
        arrive_ticks: int | None,
    ) -> Action:
        """Do one tick; see `Session.act`."""
        clock, start_ns = self._parts.clock, self._parts.clock.now_ns()
        frame = self._track.place(given, state, start_ns)
        tick = self._track.tick
        arrive = self._horizon_ticks if arrive_ticks is None else arrive_ticks
        if self._goal.set(goal, arrive, tick):
            self._running.drop()  # it leads to another goal
        self._note(executed, frame, tick)
        forecast, why = self._see(given, frame, tick)
        seen_ns = clock.now_ns()
        plan = None if frame is None or why else self._plan(frame, tick)
        planned_ns = clock.now_ns()
        late = self._late_ticks(frame, planned_ns)
        action = self._checked(self._choose(frame, plan, why, tick, late), tick, late)
        action.forecast, action.plan = forecast, plan
        action.arrive_ticks = self._goal.due(tick)
        action.remaining = self._running.left(tick + late + 1)
        action.step_ms, action.plan_ms = (seen_ns - start_ns) / 1e6, (planned_ns - seen_ns) / 1e6
        action.total_ms = (clock.now_ns() - start_ns) / 1e6
        return action

    def summary(self) -> dict[str, Any]:
        """Count the actions by source."""
        return {str(source): self._sources[source] for source in ActionSource}

    def _note(self, executed: NDArray | None, frame: Frame | None, tick: int) -> None:
        """Log what the robot executed since the last call; without a report, what it was sent."""
        reported = None if frame is None else frame.action_since
        if executed is None and reported is not None and len(reported):
            executed = reported[-1]
        found = self._last if executed is None else finite(executed, len(self._gate.neutral))
        if found is not None:
            self._track.executed(self._last_tick, tick, found)
            self._last = found
        # What is not finite was no report: the history then lacks it, and no plan is made.
        self._last_tick = max(self._last_tick, tick)

    def _see(
        self, given: Frame | NDArray | None, frame: Frame | None, tick: int
    ) -> tuple[Forecast | None, str]:
        """Forecast the frame; returns why there is none to plan from, else an empty text."""
        stream = self._parts.stream
        if given is None:
            return stream.stalled(rejecting=False), "no_frame"
        if frame is None:
            return None, "frame_not_newer"
        # A covered lens or a lost cable; real darkness has noise.
        if _is_dark(frame.image_hwc_u8):
            return stream.stalled(rejecting=True), "frame_rejected"
        if frame.action_since is None:
            frame.action_since = self._track.known(tick)
        if frame.plan is None:
            frame.plan = self._intended(tick)
        forecast = stream.step(frame)
        return forecast, "frame_not_newer" if forecast is None else ""

    def _intended(self, tick: int) -> NDArray | None:
        """Return the actions `[n, a]` that are going to be executed if nothing new is planned."""
        left = self._running.left(tick)
        if len(left):
            return left
        values = self._rest("").values
        return None if callable(self.options.warm_up) and self._last is None else values[None]

    def _plan(self, frame: Frame, tick: int) -> Plan | None:
        """Plan if that is due."""
        options, running = self.options, self._running
        fresh = tick - running.made_tick < options.replan_every and len(running.left(tick)) > 0
        if self._goal.goal is None or fresh:
            return None
        return self._parts.plan(
            PlanRequest(
                goal=self._goal.goal,
                deadline_ms=self._deadline_ms(frame),
                planner=self._planner.graph,
                iterations=options.iterations,
                limits=options.limits,
                weights=options.weights,
                constrain=options.constrain,
                seed=None if options.seed is None else options.seed(),
                arrive_ticks=self._goal.due(tick),
            )
        )

    def _deadline_ms(self, frame: Frame) -> float | None:
        options, period_ns = self.options, self._spec.stream.period_ns
        if options.deadline_ms is not None or not options.realtime:
            return options.deadline_ms
        end_ns = frame.captured_ns + (1 - _RESERVE) * period_ns
        return max(end_ns - self._parts.clock.now_ns(), 0.0) / 1e6

    def _late_ticks(self, frame: Frame | None, now_ns: int) -> int:
        """Count the periods that have passed since the frame: the plan's first actions are over."""
        if frame is None or not self.options.realtime:
            return 0
        return max(now_ns - frame.captured_ns, 0) // self._spec.stream.period_ns

    def _choose(
        self, frame: Frame | None, plan: Plan | None, why: str, tick: int, late: int
    ) -> _Choice:
        """Choose the action of this tick: planned, of the older plan, or without one."""
        running = self._running
        if self._goal.goal is None:
            return self._rest("no_goal")
        if plan is not None and plan.valid and plan.actions is not None:
            handed_on = plan.reason is PlanReason.HANDED_ON
            running.replace(tick, plan.actions, running.made_tick if handed_on else tick)
        elif plan is not None and plan.reason is PlanReason.INFEASIBLE:
            running.drop()  # the older plan may lead into the same harm
        why = why or ("ok" if plan is None or plan.reason is PlanReason.OK else str(plan.reason))
        left = running.left(tick + late)
        sound = plan.valid if plan is not None else why == "ok"
        if len(left) and (sound or self._may_continue(tick)):
            source = ActionSource.PLANNED if why == "ok" else ActionSource.CONTINUED
            return _Choice(left[0], source, "late" if late and why == "ok" else why)
        running.drop()
        if frame is not None and plan is not None and plan.reason in _NO_HISTORY:
            return self._warm_up(frame, why)
        return self._rest("late" if why == "ok" else why)

    def _may_continue(self, tick: int) -> bool:
        most = self.options.continue_ticks
        # Ticks up to `replan_every` are no continuation: they were to be executed anyway.
        beyond = tick - self._running.made_tick - self.options.replan_every + 1
        return most is None or beyond <= most

    def _warm_up(self, frame: Frame, reason: str) -> _Choice:
        policy = self.options.warm_up
        if callable(policy):
            return _Choice(policy(frame), ActionSource.WARM_UP, reason)
        known = policy == "hold" and self._last is not None
        values = self._last if known and self._last is not None else self._gate.neutral
        return _Choice(values, ActionSource.WARM_UP, reason)

    def _rest(self, reason: str) -> _Choice:
        """Hold the last action, or return to the neutral one."""
        fault = self._parts.stream.health.mode is Mode.FAULT
        kind = self.options.rest or ("neutral" if fault else self._planner.start)
        if kind == "hold" and self._last is not None:
            return _Choice(self._last, ActionSource.HOLD, reason)
        return _Choice(self._gate.neutral, ActionSource.NEUTRAL, reason)

    def _checked(self, choice: _Choice, tick: int, late: int) -> Action:
        """Check an action as the last step, and expect that it is executed."""
        values = finite(choice.values, len(self._gate.neutral))
        if values is None:
            choice = self._rest("not_finite")
            values = choice.values
        values, limited = self._gate.admit(values, self._last)
        if self._last is not None:
            self._track.executed(tick, tick + late, self._last)
        self._last, self._last_tick = values, max(self._last_tick, tick + late)
        self._sources[choice.source] += 1
        return Action(
            values.copy(), choice.source, reason=choice.reason, limited=limited, tick=tick + late
        )


def _is_dark(image_u8: NDArray) -> bool:
    """Return whether a camera sees nothing; the light of another one must not hide that."""
    cameras = image_u8 if image_u8.ndim == 4 else image_u8[None]
    return not all(camera.any() for camera in cameras)
