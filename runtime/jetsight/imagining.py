"""The half of a session that plans; see `jetsight.session` for the one that forecasts.

Shapes: h x w camera frame, D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.clock import Clock
from jetsight.planning.goal import GoalLike
from jetsight.planning.imagine import PlannerPool
from jetsight.planning.inputs import PlanRequest
from jetsight.planning.limits import Limits
from jetsight.planning.plan import Plan
from jetsight.planning.time_budget import PlannerChoice
from jetsight.stream.loop import StreamState


class Imagining:
    """Plans from the newest histories of a stream; `Session` is one."""

    clock: Clock
    _imagination: PlannerPool

    def _newest(self, now_ns: int) -> StreamState:
        raise NotImplementedError

    @property
    def planners(self) -> tuple[PlannerSpec, ...]:
        """The planners that `imagine` can use; empty if the bundle was compiled without."""
        return self._imagination.facts

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
        """Plan actions from the newest frame on, until they converge or the deadline comes.

        What the world does never raises: without a history, with a goal that is not finite or no
        time, the plan says why it is none. The first call loads the planner's graph, which the
        deadline does not cover; `load_planner` does so ahead.

        Args:
            goal: `Goal`, image `uint8 [h, w, 3]`, latent `float32 [D]`, or target values by
                quantity of the probe, angles in radians.
            deadline_ms: from now; the best plan so far is handed back in time.
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
        start_ns = self.clock.now_ns()
        wish = PlanRequest(
            goal,
            deadline_ms,
            planner,
            iterations,
            limits,
            weights,
            constrain,
            seed,
            warm,
            arrive_ticks,
        )
        return self._imagination.imagine(wish, self._newest(start_ns), start_ns)

    def load_planner(self, planner: str | None = None) -> None:
        """Load the graph of a planner now, so that the first `imagine` need not.

        Raises:
            UsageError: there is no such planner.
            EngineError: its graph cannot be loaded.
        """
        self._imagination.planner(planner)

    def tune(self, budget_ms: float) -> PlannerChoice:
        """The planner, and how many of its iterations, that make most of a budget on this machine.

        All planners are measured when this is first asked here; `planning.time_budget.choose`
        says by which rule.

        Raises:
            UsageError: there is no planner.
            EngineError: a graph cannot be loaded.
        """
        return self._imagination.tune(budget_ms)

    def prepare(self) -> bool:
        """Draw a piece of the next plan's noise; for robots with their own loop, while they wait.

        Returns:
            False when all of it is there.
        """
        return self._imagination.prepare()
