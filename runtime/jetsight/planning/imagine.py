"""From what a user wants to a plan: goal, limits and weights, planners loaded when first needed.

Shapes: C context, B ticks per block, D latent size, a size of one robot action, P quantities.
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
from jetsight.planning.goal import Goal
from jetsight.planning.graph_iterations import CaptureBackend, ChainedIterations
from jetsight.planning.inputs import PlanRequest, _deadline, _fill_wishes, _fill_world
from jetsight.planning.iterations import HostIterations, Iterations, check_engine
from jetsight.planning.limits import Limits
from jetsight.planning.noise import Noise
from jetsight.planning.plan import Plan, PlanReason
from jetsight.planning.planner import Planner
from jetsight.planning.time_budget import GraphTime, PlannerChoice, TimesFile, choose, percentiles
from jetsight.stream.loop import StreamState

_MEASURED_RUNS = 10


@dataclass(frozen=True, slots=True)
class Planning:
    """What a session needs to plan.

    Args:
        spec: of the model and the robot, with its planners.
        backend: loads their graphs.
        graph: the checked bytes of a graph by name.
        prove: raises `EngineError` if the engine of a graph does not compute what it should.
        times: what remembers how long iterations take here; None measures in every session.
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
        planning: what it plans with; None if the bundle has no planners.
        encode: engine of graph `encode`, for goals that are images.
        clock: the session's clock.
    """

    def __init__(self, planning: Planning | None, encode: Engine, clock: Clock) -> None:
        self._planning, self._encode, self._clock = planning, encode, clock
        self._loaded: dict[str, Planner] = {}
        self._used: Planner | None = None
        self._times: tuple[GraphTime, ...] = ()
        self._goal_image: NDArray | None = None  # a copy of the last one, to encode it once
        self._goal_z: NDArray | None = None

    @property
    def facts(self) -> tuple[PlannerSpec, ...]:
        """The planners there are."""
        return () if self._planning is None else self._planning.spec.planners

    def imagine(self, wish: PlanRequest, newest: StreamState, start_ns: int) -> Plan:
        """Plan from the newest histories of a stream.

        Args:
            wish: what for, and how long it may take.
            newest: where the stream is.
            start_ns: when the call was made.

        Raises:
            UsageError: the call is wrong, whatever the world looks like.
        """
        spec = self._require().spec
        goal, limits = Goal.of(wish.goal), wish.limits or Limits()
        goal.check(spec)
        deadline_ns = _deadline(wish.deadline_ms, start_ns)
        load_ns = self._clock.now_ns()
        planner = self.planner(wish.planner, wish.deadline_ms)
        load_ns = self._clock.now_ns() - load_ns  # no deadline covers what happens only once
        self._used = planner
        planner.check(wish.iterations, wish.seed)
        _fill_wishes(spec, planner, goal, limits, wish)
        before_ns = self._clock.now_ns()
        reason = _fill_world(planner, newest) or self._fill_goal(planner, goal)
        goal_ns = self._clock.now_ns() - before_ns
        if reason is not None:
            plan = Plan(tick=newest.tick, planner=planner.facts.graph, reason=reason)
        else:
            latest_ns = None if deadline_ns is None else deadline_ns + load_ns
            plan = planner.plan(newest.tick, latest_ns, wish.iterations, wish.seed, wish.warm)
        plan.planned_ms = (self._clock.now_ns() - start_ns) / 1e6
        plan.parts_ms.update(load=load_ns / 1e6, goal=goal_ns / 1e6)
        return plan

    def planner(self, name: str | None = None, budget_ms: float | None = None) -> Planner:
        """The planner of a graph, loaded and warmed up.

        Args:
            name: of the graph; None for the best one for the budget.
            budget_ms: None for the first planner in the bundle.

        Raises:
            UsageError: there is none.
            EngineError: its graph cannot be loaded or has other arrays than the manifest says.
        """
        facts = {facts.graph: facts for facts in self._require().spec.planners}
        if name is None and (budget_ms is None or len(facts) == 1):
            name = next(iter(facts))
        if name is None:
            name = self.tune(budget_ms or 0.0).planner
        if name not in facts:
            raise unknown("planner", name, facts)
        if name not in self._loaded:
            self._loaded[name] = self._load(facts[name])
        return self._loaded[name]

    def tune(self, budget_ms: float) -> PlannerChoice:
        """The planner that makes most of a budget here; all are measured once on this machine."""
        planning = self._require()
        if not self._times:
            file = None if planning.times is None else planning.times()
            kept = None if file is None else file.read()
            self._times = kept or tuple(self._measured(facts) for facts in planning.spec.planners)
            if file is not None and kept is None:
                file.write(self._times)
        return choose(self._times, planning.spec.planners, budget_ms)

    def _measured(self, facts: PlannerSpec) -> GraphTime:
        known = self._loaded.get(facts.graph)
        planner = known or self._load(facts)
        try:
            return percentiles(facts.graph, planner.warm_up(_MEASURED_RUNS + 1))
        finally:
            if known is None:
                planner.close()

    def prepare(self) -> bool:
        """Draw a piece of the noise that the planner used last will need; False if it is there."""
        return self._used is not None and self._used.prepare()

    def forget(self) -> None:
        """Another stream begins: no plan goes on."""
        for planner in self._loaded.values():
            planner.forget()

    def close(self) -> None:
        """Release the engines."""
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

    def _load(self, facts: PlannerSpec) -> Planner:
        planning = self._require()
        spec = planning.spec
        noise = Noise(
            facts.iterations,
            facts.samples,
            facts.horizon,
            spec.stream.action_block,
            len(spec.low),
            facts.noise_beta,
        )
        with ExitStack() as undo:
            engines = self._engines(facts, undo)
            if planning.prove is not None:
                planning.prove(facts.graph, engines[0])
            iterations = _iterations(planning.backend, engines, noise, spec, facts)
            undo.callback(iterations.close)
            planner = Planner(spec, facts, iterations, noise, self._clock, planning.seed)
            planner.warm_up()
            undo.pop_all()
        return planner

    def _engines(self, facts: PlannerSpec, undo: ExitStack) -> list[Engine]:
        """One engine of the planner's graph; two that take turns where work can be recorded."""
        planning, engines = self._require(), []
        graph = planning.graph(facts.graph)
        for _ in range(2 if hasattr(planning.backend, "capture") else 1):
            engines.append(planning.backend.load(graph))
            undo.callback(engines[-1].close)
        check_engine(engines[0], planning.spec, facts)
        return engines

    def _fill_goal(self, planner: Planner, goal: Goal) -> PlanReason | None:
        z_goal, inputs = planner.inputs["z_goal"], planner.inputs
        if goal.image_hwc_u8 is not None:
            try:
                z_goal[:] = self._encoded(goal.image_hwc_u8)
            except EngineError:
                return PlanReason.ENGINE_FAILED
        elif goal.z is not None:
            z_goal[:] = goal.z
        else:
            z_goal.fill(0.0)
        target = inputs.get("probe_target", z_goal)
        finite = np.isfinite(z_goal).all() and np.isfinite(target).all()
        return None if finite else PlanReason.GOAL_NOT_FINITE

    def _encoded(self, image: NDArray) -> NDArray:
        """The latent of a goal image; one image is encoded once."""
        if self._goal_image is None or not np.array_equal(self._goal_image, image):
            self._encode.inputs["frame_hwc_u8"].write(np.ascontiguousarray(image))
            self._encode.run()
            self._goal_z = self._encode.outputs["z"].read().copy()
            self._goal_image = image.copy()
        assert self._goal_z is not None
        return self._goal_z


def _iterations(
    backend: Backend, engines: list[Engine], noise: Noise, spec: PlanSpec, facts: PlannerSpec
) -> Iterations:
    if len(engines) == 1:
        return HostIterations(engines[0], noise, spec, facts)
    first, second = engines
    return ChainedIterations(cast(CaptureBackend, backend), (first, second), noise, spec, facts)
