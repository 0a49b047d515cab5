"""The facade a robot uses: open a bundle, stream forecasts, imagine plans.

Shapes: h x w camera frame, D latent size.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import Any

from jetsight.backends import loading
from jetsight.backends.planners import planning_of
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import FrameStream, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.control.action import Action
from jetsight.control.loop import ControlLoop, ControlParts
from jetsight.control.options import ControlOptions
from jetsight.engine import Engine, NDArray
from jetsight.planning.goal import Goal, GoalLike, PlanRequest
from jetsight.planning.imagine import PlannerPool, Planning
from jetsight.planning.limits import Limits
from jetsight.planning.plan import Plan
from jetsight.planning.time_budget import PlannerChoice
from jetsight.stream.assumption import ActionAssumption, ActionsOption
from jetsight.stream.frames import Forecast, Frame
from jetsight.stream.health import HealthLimits, HealthMonitor
from jetsight.stream.loop import StreamLoop, frames_of


class Session:
    """Forecasts of one camera stream and plans from it, on the engines of one bundle.

    Use `Session.open`; the constructor takes engines of your own, or fakes.

    Args:
        spec: sizes and statistics of the model.
        encode: engine of graph `encode`.
        forecast: engine of graph `forecast`.
        clock: shared with the camera.
        limits: when a stream is stale, lost or broken.
        planning: planners for `imagine`; None for a session without.

    Attributes:
        parity: smallest cosine to PyTorch on the bundle's reference data, per graph.
        backend: name of the backend.
        family: name of the graph family.
        precision: number format of each graph, e.g. `{"encode": "int8", "forecast": "fp32"}`.

    Example:
        >>> with Session.open("pusht-nano.jetsight") as session:
        ...     for forecast in session.stream(Camera.open("/dev/video0")):
        ...         if forecast.valid:
        ...             act_on(forecast.z_future)
    """

    def __init__(
        self,
        spec: StreamSpec,
        encode: Engine,
        forecast: Engine,
        *,
        clock: Clock | None = None,
        limits: HealthLimits | None = None,
        planning: Planning | None = None,
    ) -> None:
        self.spec = spec
        self.clock = clock or MonotonicClock()
        self.parity: dict[str, float] = {}
        self.backend, self.family = "custom", "custom"
        self.precision: Mapping[str, str] = {}
        self._encode, self._forecast = encode, forecast
        self._pool = PlannerPool(planning, encode, self.clock)
        self._loop = StreamLoop(spec, encode, forecast, self.clock, limits)
        self._control: ControlLoop | None = None

    @property
    def health(self) -> HealthMonitor:
        """Judge of the running stream."""
        return self._loop.health

    @property
    def drops(self) -> int:
        """Frames lost since the stream began."""
        return self._loop.drops

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        backend: str | None = None,
        family: str | None = None,
        clock: Clock | None = None,
        *,
        threads: int | None = None,
    ) -> Session:
        """Verify and load a bundle, and prove its engines on the reference data it carries.

        Args:
            bundle: opened, or the path of one.
            backend: `"onnxruntime"`, `"openvino"` or `"tensorrt"`; None for the preferred one.
            family: graph family; None for the fastest one with engines built here, else the first
                in the manifest that can run here.
            clock: give the camera the same one.
            threads: CPU threads of the engines; None for one per physical core.

        Raises:
            BundleError: the bundle was refused.
            UsageError: there is no such backend or family.
            MissingDependency: the backend's library is not installed.
            EngineError: a graph cannot be loaded, or does not compute what PyTorch did.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        loaded = loading.load(opened, backend, family, threads)
        try:
            spec = StreamSpec.from_manifest(opened.manifest)
            planning = planning_of(opened, loaded)
            session = cls(spec, loaded.encode, loaded.forecast, clock=clock, planning=planning)
            # Before the session is handed out: an engine that does not compute what PyTorch did
            # never runs.
            session.parity = loading.parity(opened, loaded)
        # Also on KeyboardInterrupt: engines hold memory of the device.
        except BaseException:
            loaded.close()
            raise
        session.backend, session.family = loaded.backend, loaded.family.name
        session.precision = loaded.family.precision
        return session

    def stream(
        self,
        camera: FrameStream,
        rate_hz: float | None = None,
        frames: int | None = None,
        actions: ActionsOption | None = None,
    ) -> Generator[Forecast, None, None]:
        """Forecast every frame until the camera ends; closes the camera.

        Without a usable frame, an invalid forecast with its growing age comes once per period.

        Args:
            camera: not started yet.
            rate_hz: overrides the rate the camera was opened with; see `Camera`.
            frames: stop after this many frames; None for all.
            actions: of a source that reports none: `"neutral"` declares that the robot executes
                the neutral action, so that forecasts and plans hold for that; `"unknown"` leaves
                them invalid. None assumes neutral ones for forecasts, which say so in `assumed`,
                and never for plans.

        Yields:
            One forecast per frame, in order of capture.

        Raises:
            CameraError: the camera cannot start, or ended before its time; everything it
                delivered was forecast first.
            EngineError: an engine failed several times in a row.
        """
        self.camera_info = camera.start(StreamRequest.of(self.spec), rate_hz)
        # Plans of the last stream say nothing about this one.
        self._pool.forget()
        self._control = None
        silent = not self.camera_info.reports_actions
        assumption = ActionAssumption(
            self.spec, active=silent and actions != "unknown", declared=actions == "neutral"
        )
        yield from self._loop.run(camera, frames, self._pool.prepare, assumption)

    def step(self, frame: Frame, *, frozen: bool = False) -> Forecast | None:
        """Forecast one frame; for robots that bring their own loop.

        Args:
            frame: newer than the last one.
            frozen: the camera has repeated the same pixels for too long.

        Returns:
            The forecast; None when the frame is not newer and was dropped.

        Raises:
            EngineError: an engine failed several times in a row.
        """
        return self._loop.step(frame, frozen=frozen)

    def act(
        self,
        frame: Frame | NDArray | None,
        goal: GoalLike | None = None,
        *,
        state: NDArray | None = None,
        executed: NDArray | None = None,
        arrive_ticks: int | None = None,
        options: ControlOptions | None = None,
    ) -> Action:
        """Do one tick of control: see the frame, plan with the time left, return one action.

        The action may always be sent: finite, inside the bounds, no faster than allowed. Without a
        history it follows `options.warm_up`; without a plan in time it is the next one of the plan
        before, then `options.rest`. Only wrong calls raise.

        Args:
            frame: image `uint8 [h, w, 3]` of now, or `[C, h, w, 3]` of several cameras, or a
                `Frame` with its own tick and stamp; None for a tick without one.
            goal: as in `imagine`; None to rest.
            state: `[s]` of the robot beside an image, for a model that reads one.
            executed: `[a]` action that the robot executed since the last call; None if it was the
                one returned then.
            arrive_ticks: when to be at the goal, and to stay from then on, counted down from the
                first call with this goal and this number; None for one horizon, 0 for the end of
                every plan, which never comes.
            options: of the loop; None for those of the call before.

        Raises:
            UsageError: the call is wrong, or the bundle has no planner.
            EngineError: the planner's graph cannot be loaded, or an engine failed several times in
                a row.

        Example:
            >>> while robot.running:
            ...     action = session.act(robot.camera(), {"x": 0.4, "y": 0.1}, arrive_ticks=25)
            ...     robot.send(action.values)
        """
        if self._control is None:
            parts = ControlParts(self._pool, self._loop, self.plan, self.clock)
            self._control = ControlLoop(parts, options or ControlOptions())
        elif options is not None and options is not self._control.options:
            self._control.use(options)
        return self._control.act(frame, state, goal, executed, arrive_ticks)

    def restart(self, *, realtime: bool = True) -> None:
        """Begin another stream for `step` and `act`: no history, plan, goal or action goes on.

        Args:
            realtime: False for a world that waits, whose frames are never too old.
        """
        self._control = None
        self._pool.forget()
        self._loop.restart(self.spec.period_ns if realtime else None)

    def frames(
        self, camera: FrameStream, rate_hz: float | None = None
    ) -> Generator[Frame | None, None, None]:
        """Yield a camera's frames for `act`, and None for a period without one; closes the camera.

        Args:
            camera: not started yet.
            rate_hz: overrides the rate the camera was opened with; see `Camera`.

        Raises:
            CameraError: the camera cannot start, or ended before its time.

        Example:
            >>> for frame in session.frames(Camera.open("/dev/video0")):
            ...     robot.send(session.act(frame, goal).values)
        """
        self.camera_info = camera.start(StreamRequest.of(self.spec), rate_hz)
        self.restart()
        yield from frames_of(camera, self.spec.period_ns)

    @property
    def planners(self) -> tuple[PlannerSpec, ...]:
        """Planners that `imagine` can use; empty if the bundle was compiled without."""
        return self._pool.planners

    def imagine(
        self,
        goal: GoalLike,
        deadline_ms: float | None = None,
        *,
        planner: str | None = None,
        iterations: int | None = None,
        limits: Limits | None = None,
        weights: Mapping[str, float] | None = None,
        constrain: bool = True,
        seed: int | None = None,
        warm: bool = True,
        arrive_ticks: int | None = None,
    ) -> Plan:
        """Plan actions from the newest frame on, until they converge or the deadline ends it.

        Only wrong calls raise: without a history, with a goal that is not finite or without time,
        the plan is invalid and gives the reason. The first call loads the planner's graph, which
        the deadline does not cover; `load_planner` does so ahead.

        Args:
            goal: `Goal`, image `uint8 [h, w, 3]`, latent `float32 [D]`, or target values by
                quantity of the probe, angles in radians.
            deadline_ms: from now; the best plan so far is returned in time.
            planner: name of a graph; None for the one that makes most of the deadline here.
            iterations: exactly so many; None for as many as it takes to converge.
            limits: tighter than the robot's own.
            weights: by `"terminal"`, `"running"`, `"support"` or quantity; the planner's if None.
            constrain: obey the hazard heads.
            seed: of the draws; the same histories, plan before and seed give the same plan.
            warm: start from the plan before.
            arrive_ticks: when to be at the goal, and to stay from then on; None, or more than the
                horizon, for its end. Count it down from plan to plan, else plans arrive ever later.

        Raises:
            UsageError: the call is wrong: a goal of another size, unknown quantities, limits that
                are inverted or wider than the robot's, or no planner.
            EngineError: the planner's graph cannot be loaded.

        Example:
            >>> plan = session.imagine({"block_x": 300.0, "block_y": 250.0}, deadline_ms=80)
            >>> if plan.valid:
            ...     robot.execute(plan.actions[:5])
        """
        request = PlanRequest(
            goal=Goal.of(goal),
            deadline_ms=deadline_ms,
            planner=planner,
            iterations=iterations,
            limits=limits or Limits(),
            weights=weights or {},
            constrain=constrain,
            seed=seed,
            warm=warm,
            arrive_ticks=arrive_ticks,
        )
        return self.plan(request)

    def plan(self, request: PlanRequest) -> Plan:
        """Plan for a request that is built already; `imagine` builds one from its arguments.

        Raises:
            UsageError: see `imagine`.
            EngineError: likewise.
        """
        # A deadline counts from the call, so this is taken before anything else.
        start_ns = self.clock.now_ns()
        return self._pool.imagine(request, self._loop.state(start_ns), start_ns)

    def load_planner(self, planner: str | None = None) -> None:
        """Load the graph of a planner now, so that the first `imagine` need not.

        Raises:
            UsageError: there is no such planner.
            EngineError: its graph cannot be loaded.
        """
        self._pool.planner(planner)

    def tune(self, budget_ms: float) -> PlannerChoice:
        """Choose the planner, and how many iterations, that make most of a budget on this machine.

        The first call measures all planners; `planning.time_budget.choose` has the rule.

        Raises:
            UsageError: there is no planner.
            EngineError: a graph cannot be loaded.
        """
        return self._pool.tune(budget_ms)

    def prepare(self) -> bool:
        """Draw a piece of the next plan's noise while a robot's own loop waits; False when done."""
        return self._pool.prepare()

    def summary(self) -> dict[str, Any]:
        """Summarize the last stream: counts, and percentiles over every frame of it.

        Example:
            >>> session.summary()["encode_ms"]
            {'p50': 3.1, 'p99': 4.0, 'max': 4.2}
        """
        return {
            **self._loop.summary(),
            "actions": {} if self._control is None else self._control.summary(),
            "backend": self.backend,
            "family": self.family,
            "precision": dict(self.precision),
            "parity": self.parity,
        }

    def forget(self) -> None:
        """Restart the counts and percentiles of `summary`, e.g. after a warm-up."""
        self._loop.forget()

    def close(self) -> None:
        """Release the engines; the session must not be used afterwards."""
        self._pool.close()
        self._encode.close()
        self._forecast.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
