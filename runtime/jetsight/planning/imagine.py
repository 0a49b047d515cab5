"""Plans for requests: pick a planner, load it when first needed, fill its inputs, run it.

Shapes: D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.clock import Clock
from jetsight.engine import Backend, Engine, NDArray
from jetsight.errors import EngineError, UsageError, unknown
from jetsight.planning.goal import Goal, PlanRequest
from jetsight.planning.graph_iterations import CaptureBackend, ChainedIterations
from jetsight.planning.inputs import check_request
from jetsight.planning.iterations import HostIterations, Iterations, check_engine
from jetsight.planning.noise import Noise
from jetsight.planning.plan import Plan, PlanReason
from jetsight.planning.planner import Planner
from jetsight.planning.time_budget import GraphTime, PlannerChoice, TimesFile, choose, percentiles
from jetsight.stream.forecaster import write_frame
from jetsight.stream.loop import StreamState

_MEASURED_RUNS = 10  # so few that their 99th percentile is the slowest one


@dataclass(frozen=True, slots=True)
class Planning:
    """Everything a session needs to plan.

    Args:
        spec: of the model and the robot, with its planners.
        backend: loads their graphs.
        graph: the checked bytes of a graph by name.
        prove: raises `EngineError` if the engine of a graph does not compute what it should.
        times: opens the file of iteration times of this machine; None measures in every session.
        seed: of the draws of plans that name none.
    """

    spec: PlanSpec
    backend: Backend
    graph: Callable[[str], bytes]
    prove: Callable[[str, Engine], None] | None = None
    times: Callable[[], TimesFile] | None = None
    seed: int = 0


class PlannerPool:
    """The planners of one session.

    Args:
        planning: specification, backend and graphs; None if the bundle has no planners.
        encode: engine of graph `encode`, for goals that are images.
        clock: the session's clock.
    """

    def __init__(self, planning: Planning | None, encode: Engine, clock: Clock) -> None:
        self._planning, self._encode, self._clock = planning, encode, clock
        self._loaded: dict[str, Planner] = {}
        self._used: Planner | None = None
        self._times: tuple[GraphTime, ...] = ()
        self._goal_image: NDArray | None = None  # a copy of the last one, to encode it once
        self._goal_state: NDArray = np.zeros(0, np.float32)  # beside it
        self._goal_z: NDArray | None = None

    @property
    def planners(self) -> tuple[PlannerSpec, ...]:
        """Specifications of the planners."""
        return () if self._planning is None else self._planning.spec.planners

    @property
    def spec(self) -> PlanSpec:
        """Model, robot and planners.

        Raises:
            UsageError: there is no planner.
        """
        return self._require().spec

    def imagine(self, request: PlanRequest, state: StreamState, start_ns: int) -> Plan:
        """Plan from the newest state of a stream.

        Args:
            request: goal, deadline and options.
            state: of the stream.
            start_ns: when the call was made.

        Raises:
            UsageError: the request is wrong, whatever the state of the world.
            EngineError: the planner's graph cannot be loaded.
        """
        # Before loading: a wrong call must not cost the loading of a graph.
        check_request(request, self._require().spec)
        load_ns = self._clock.now_ns()
        planner = self._used = self.planner(request.planner, request.deadline_ms)
        load_ns = self._clock.now_ns() - load_ns
        planner.inputs.set_request(request)
        goal_ns = self._clock.now_ns()
        # Without a history there is no plan, so the goal's image is not encoded then.
        reason = planner.inputs.set_state(state) or self._set_goal(planner, request.goal)
        goal_ns = self._clock.now_ns() - goal_ns
        if reason is not None:
            plan = Plan(tick=state.tick, planner=planner.facts.graph, reason=reason)
        else:
            # Loading happens once in a session, so no deadline covers it.
            allowed_ms = request.deadline_ms
            end_ns = None if allowed_ms is None else start_ns + load_ns + round(allowed_ms * 1e6)
            plan = planner.plan(
                state.tick, end_ns, request.iterations, seed=request.seed, warm=request.warm
            )
        plan.planned_ms = (self._clock.now_ns() - start_ns) / 1e6
        plan.parts_ms.update(load=load_ns / 1e6, goal=goal_ns / 1e6)
        return plan

    def planner(self, name: str | None = None, budget_ms: float | None = None) -> Planner:
        """Return the planner of a graph, loaded and warmed up.

        Args:
            name: of the graph; None for the best one for the budget.
            budget_ms: None for the first planner in the bundle.

        Raises:
            UsageError: there is none.
            EngineError: its graph cannot be loaded or has other arrays than the manifest says.
        """
        known = {planner.graph: planner for planner in self._require().spec.planners}
        # Without a choice there is nothing to measure.
        if name is None and (budget_ms is None or len(known) == 1):
            name = next(iter(known))
        if name is None:
            name = self.tune(budget_ms or 0.0).planner
        if name not in known:
            raise unknown("planner", name, known)
        if name not in self._loaded:
            self._loaded[name] = self._load(known[name])
        return self._loaded[name]

    def tune(self, budget_ms: float) -> PlannerChoice:
        """Choose the planner that makes most of a budget; all are measured once on a machine."""
        planning = self._require()
        if not self._times:
            file = None if planning.times is None else planning.times()
            kept = None if file is None else file.read()
            self._times = kept or tuple(self._measure(each) for each in planning.spec.planners)
            if file is not None and kept is None:
                file.write(self._times)
        return choose(self._times, planning.spec.planners, budget_ms)

    def prepare(self) -> bool:
        """Draw a piece of the noise for the planner used last; False when it is complete."""
        return self._used is not None and self._used.prepare()

    def forget(self) -> None:
        """Begin another stream: no plan goes on."""
        for planner in self._loaded.values():
            planner.forget()

    def close(self) -> None:
        """Release the engines."""
        # Emptied first, so that engines are closed once even if closing one of them fails.
        loaded, self._loaded, self._used = self._loaded, {}, None
        for planner in loaded.values():
            planner.close()

    def _require(self) -> Planning:
        if self._planning is None or not self._planning.spec.planners:
            raise UsageError(
                "there is no planner to imagine with; compile the bundle again with --planner, for "
                "the family of this session"
            )
        return self._planning

    def _measure(self, planner: PlannerSpec) -> GraphTime:
        loaded = self._loaded.get(planner.graph)
        measured = loaded or self._load(planner)
        try:
            # One run more, because `warm_up` leaves out the time of its first.
            return percentiles(planner.graph, measured.warm_up(_MEASURED_RUNS + 1))
        finally:
            # Loaded only to be measured: planners that are not used hold no memory.
            if loaded is None:
                measured.close()

    def _load(self, planner: PlannerSpec) -> Planner:
        planning = self._require()
        spec = planning.spec
        noise = Noise(
            planner.iterations,
            planner.samples,
            planner.horizon,
            spec.stream.action_block,
            len(spec.low),
            planner.noise_beta,
        )
        with ExitStack() as undo:
            engines = _engines(planning, planner, undo)
            if planning.prove is not None:
                # Before engines are connected, which binds their inputs; both are of the same
                # bytes.
                planning.prove(planner.graph, engines[0])
            iterations = _iterations(planning.backend, engines, noise)
            undo.callback(iterations.close)
            loaded = Planner(spec, planner, iterations, noise, self._clock, planning.seed)
            # Here no deadline covers it, and the timer gets a first time to judge deadlines by.
            loaded.warm_up()
            # The planner owns engines and iterations from here on.
            undo.pop_all()
        return loaded

    def _set_goal(self, planner: Planner, goal: Goal) -> PlanReason | None:
        try:
            image = goal.image_hwc_u8
            z = goal.z if image is None else self._encoded(image, goal.state)
        # A fault of the running robot ends in a plan with its reason, only wrong calls raise.
        except EngineError:
            return PlanReason.ENGINE_FAILED
        return planner.inputs.set_goal_latent(z)

    def _encoded(self, image: NDArray, state: NDArray | None) -> NDArray:
        """Return the latent `[D]` of a goal image; the same image and state are encoded once."""
        # By content: the caller may hand in an equal copy, or change its own array in place.
        given = np.array(() if state is None else state, np.float32)
        if (
            self._goal_image is None
            or not np.array_equal(self._goal_image, image)
            or not np.array_equal(self._goal_state, given)
        ):
            self._goal_z = self._encode_goal(image, given)
            self._goal_image, self._goal_state = image.copy(), given
        assert self._goal_z is not None
        return self._goal_z

    def _encode_goal(self, image: NDArray, state: NDArray) -> NDArray:
        assert self._planning is not None  # a pool without planners has refused the call
        stream = self._planning.spec.stream
        if not write_frame(stream, self._encode, np.ascontiguousarray(image), state):
            # Measured like a frame: a state that is not finite ends in a plan with its reason.
            return np.full(stream.latent_size, np.nan, np.float32)
        self._encode.run()
        # The engine's view is overwritten by the next camera frame, which it encodes as well.
        z: NDArray = self._encode.outputs["z"].read().copy()
        return z


def _engines(planning: Planning, planner: PlannerSpec, undo: ExitStack) -> list[Engine]:
    """Load one engine of a planner's graph; two that take turns where work can be recorded."""
    engines, graph = [], planning.graph(planner.graph)
    for _ in range(2 if hasattr(planning.backend, "capture") else 1):
        engines.append(planning.backend.load(graph))
        undo.callback(engines[-1].close)
        check_engine(engines[-1], planning.spec, planner)
    return engines


def _iterations(backend: Backend, engines: list[Engine], noise: Noise) -> Iterations:
    if len(engines) == 1:
        return HostIterations(engines[0], noise)
    first, second = engines
    return ChainedIterations(cast(CaptureBackend, backend), (first, second), noise)
