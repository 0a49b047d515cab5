"""The planner: iterations of a compiled graph until they converge or the deadline ends them.

Shapes: H horizon in blocks, B ticks per block, T = H * B ticks, a size of one robot action,
A = B * a, N samples, Q kept elites, I iterations.
"""

from __future__ import annotations

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.clock import Clock
from jetsight.engine import NDArray, read_only
from jetsight.errors import EngineError
from jetsight.planning.inputs import PlannerInputs
from jetsight.planning.iterations import Iterations
from jetsight.planning.limits import LimitChecker
from jetsight.planning.memory import ConvergenceTrace, PlanMemory
from jetsight.planning.noise import Noise
from jetsight.planning.plan import BROKEN_COST, Plan, PlanReason
from jetsight.planning.time_budget import IterationTimer


class Planner:
    """One planner of a bundle on loaded engines, with its memory from plan to plan.

    Fill `inputs`, then call `plan`, as `PlannerPool.imagine` does. Nothing that a plan allocates
    outlives it.

    Args:
        spec: of the model and the robot.
        facts: of the planner.
        iterations: runs them.
        noise: their draws.
        clock: the session's clock.
        seed: of the draws of plans that name none.

    Attributes:
        inputs: arrays by name that stay the same during one plan, to be filled before it.
    """

    def __init__(
        self,
        spec: PlanSpec,
        facts: PlannerSpec,
        iterations: Iterations,
        noise: Noise,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        self.facts, self._spec, self._clock = facts, spec, clock
        self._iterations, self._noise = iterations, noise
        self._seed, self._number = seed, 0
        self.inputs = PlannerInputs(spec, facts)
        ticks, step = facts.horizon * spec.stream.action_block, len(spec.low)
        self._shape = noise.values.shape[2:]  # [H, A], the same memory as [T, a]
        by_tick = [np.zeros((ticks, step), np.float32) for _ in range(3)]
        self._mean, self._std, self._actions = by_tick
        self._std[:] = facts.std_start
        self._kept: NDArray = np.zeros((facts.kept, ticks, step), np.float32)
        self._z_future = np.zeros((facts.horizon, spec.stream.latent_size), np.float32)
        self._costs = np.zeros(facts.samples, np.float32)
        self._violations = np.zeros(facts.samples * bool(spec.heads.hazards), np.float32)
        answers = (self._actions, self._z_future, self._costs, self._violations)
        self._seen = [read_only(values) for values in answers]
        self._memory = PlanMemory(ticks, step, facts.kept, self.inputs)
        self._pace, self._after_ns = IterationTimer(), 0
        self._trace = self._new_trace(facts.iterations)
        self._admission = LimitChecker(spec, self.inputs, ticks)
        self._noise.use(self._key(None))

    def plan(
        self,
        tick: int,
        deadline_ns: int | None = None,
        iterations: int | None = None,
        seed: int | None = None,
        warm: bool = True,
    ) -> Plan:
        """Plan from `inputs` as they are now.

        Args:
            tick: of the newest latent in them.
            deadline_ns: on the session's clock; no iteration is begun that would end after it.
            iterations: exactly so many unless the deadline ends the plan first, 1 to
                `MOST_ITERATIONS`; None for as many as it takes to converge, at most those of the
                planner.
            seed: of the draws, from 0; None goes on with the planner's own.
            warm: start from the plan before, shifted by the ticks that have passed.

        Returns:
            The best plan found, or the reason why there is none.
        """
        most = self.facts.iterations if iterations is None else int(iterations)
        # Only a request for more iterations than the planner's own allocates.
        if most > len(self._trace.cost):
            self._trace = self._new_trace(most)
        self._noise.use(self._key(seed))
        age = self._memory.age(tick) if warm else None
        plan = Plan(tick=tick, planner=self.facts.graph)
        try:
            self._begin(age)
            done = self._iterate(plan, most, deadline_ns, iterations is not None)
            began_ns = self._clock.now_ns()
            self._judge(plan, done, age)
            self._after_ns = self._clock.now_ns() - began_ns
            plan.parts_ms["result"] = self._after_ns / 1e6
        except EngineError:
            # Draws on the device may be incomplete, so all are made and copied again.
            self._noise.forget()
            plan.reason = PlanReason.ENGINE_FAILED
        if seed is None:
            # Already here, so that `prepare` draws the next plan's noise while the loop waits for a
            # frame.
            self._number += 1
            self._noise.use(self._key(None))
        return plan

    def _iterate(self, plan: Plan, most: int, deadline_ns: int | None, exactly: bool) -> int:
        """Run iterations until they converge or time is up; returns how many."""
        done = noise_ns = work_ns = 0
        while done < most and (count := self._next(done, most, deadline_ns)):
            began_ns = self._clock.now_ns()
            for iteration in range(done, done + count):
                self._draw(iteration)
            drawn_ns = self._clock.now_ns()
            self._iterations.run(done, count, self._trace)
            ended_ns = self._clock.now_ns()
            noise_ns, work_ns = noise_ns + drawn_ns - began_ns, work_ns + ended_ns - drawn_ns
            # With the drawing: noise that was not prepared takes time of the deadline as well.
            self._pace.add(ended_ns - began_ns, count)
            done = self._trace.note(done, count)
            if not exactly and self._trace.has_converged(done):
                break
        plan.parts_ms.update(noise=noise_ns / 1e6, iterations=work_ns / 1e6)
        return done

    def prepare(self) -> bool:
        """Draw a piece of the next plan's noise; False when it is complete."""
        iteration = self._noise.prepare()
        if iteration is None:
            return False
        try:
            self._iterations.upload(self._noise.slot(iteration))
        except EngineError:  # the next plan fails on the same engine and gives the reason
            self._noise.forget()
            return False
        return True

    def warm_up(self, runs: int = 2) -> list[int]:
        """Run iterations on the inputs as they are; returns the ns of each but the first."""
        self._begin(None)
        times = []
        for run in range(runs):
            started_ns = self._clock.now_ns()
            self._draw(0)
            self._iterations.run(0, 1, self._trace)
            times.append(self._clock.now_ns() - started_ns)
            if run:
                self._pace.add(times[-1], 1)
        return times[1:]

    def forget(self) -> None:
        """Begin another stream: without a plan before, and with the first draws."""
        self._memory.forget()
        self._number = 0
        self._noise.use(self._key(None))

    def close(self) -> None:
        """Release the engines."""
        self._iterations.close()

    def _new_trace(self, iterations: int) -> ConvergenceTrace:
        held, std = self._spec.held, self._std
        # Candidates never differ along held dimensions, which must not look like convergence.
        free = np.broadcast_to(~held, std.shape).reshape(self._shape) if held.any() else None
        return ConvergenceTrace(iterations, std.reshape(self._shape), free)

    def _key(self, seed: int | None) -> tuple[int, ...]:
        if seed is None:
            # The first number keeps seeds of callers apart from the planner's own sequence.
            return 0, self._seed, self._number
        return 1, int(seed), 0

    def _begin(self, age: int | None) -> None:
        """Write everything that the first iteration starts from to the engine."""
        if age is not None:
            self._memory.shifted(age, self._mean, self._kept)
        else:
            hold = self.facts.start == "hold"
            self._mean[:] = self.inputs["a_last"] if hold else self._spec.stream.neutral
            if self.facts.kept:  # there are no elites yet, so ordinary samples take their place
                self._draw(0)
                drawn = self._noise.by_tick[self._noise.slot(0), -self.facts.kept :]
                np.multiply(drawn, self._std, out=self._kept)
                np.add(self._kept, self._mean, out=self._kept)
        for name, values in self.inputs.items():
            self._iterations.write(name, values)
        mean, std = self._mean.reshape(self._shape), self._std.reshape(self._shape)
        # The mean is the first incumbent, so a warm start never returns a worse plan than it got.
        for name, values in (("mean", mean), ("std", std), ("incumbent", mean)):
            self._iterations.write(name, values)
        if self.facts.kept:
            self._iterations.write("kept", self._kept.reshape(-1, *self._shape))

    def _draw(self, iteration: int) -> None:
        if self._noise.draw(iteration):
            self._iterations.upload(self._noise.slot(iteration))

    def _next(self, done: int, most: int, deadline_ns: int | None) -> int:
        """Return how many iterations to run now; 0 when time is up."""
        left = most - done
        if deadline_ns is not None:
            # What reading and checking the last result took is kept back from the deadline.
            left_ns = deadline_ns - self._after_ns - self._clock.now_ns()
            fitting = self._pace.affordable(left_ns, started=done > 0)
            left = left if fitting is None else min(left, fitting)
        return self._iterations.chunk(done, left) if left > 0 else 0

    def _judge(self, plan: Plan, done: int, age: int | None) -> None:
        """Fill in the result if it may be executed, else the reason why not."""
        trace = self._trace
        plan.iterations = done
        plan.costs, plan.spread = trace.cost[:done].copy(), trace.spread[:done].copy()
        if done == 0:
            self._hand_on(plan, age)
            return
        plan.cost, plan.violation = float(trace.cost[done - 1]), float(trace.violation[done - 1])
        # A broken engine may return NaN as the count, which `round` refuses.
        plan.invalid = round(float(np.nan_to_num(trace.invalid[:done]).sum()))
        self._iterations.read("costs", self._costs)
        if len(self._violations):
            self._iterations.read("violations", self._violations)
        # Also for a plan that is refused: the candidates are its evidence.
        plan.candidate_costs, plan.candidate_violations = self._seen[2:]
        self._iterations.read("actions", self._actions.reshape(self._shape))
        self._iterations.read("z_future", self._z_future)
        plan.reason = self._verdict(plan)
        if plan.reason is not PlanReason.OK:
            return
        if self.facts.kept:
            # Only a valid plan is remembered, so a refused one never starts the next.
            self._iterations.read("kept_next", self._kept.reshape(-1, *self._shape))
        self._memory.keep(plan.tick, self._actions, self._kept, plan.cost, plan.violation)
        plan.valid = True
        plan.actions, plan.z_future = self._seen[:2]

    def _verdict(self, plan: Plan) -> PlanReason:
        # A NaN passes these two comparisons and is refused below.
        if plan.cost >= BROKEN_COST:
            return PlanReason.ALL_INVALID
        if plan.violation > 0:
            return PlanReason.INFEASIBLE
        # A sum is finite only if both terms are.
        finite = np.isfinite(plan.cost + plan.violation) and np.isfinite(self._z_future).all()
        return (
            PlanReason.OK
            if finite and self._admission.admits(self._actions)
            else PlanReason.PLAN_REFUSED
        )

    def _hand_on(self, plan: Plan, age: int | None) -> None:
        """Reuse the plan before, shifted, if its goal is the same and it keeps the limits."""
        plan.reason = PlanReason.DEADLINE
        if age is None or not self._memory.same_purpose:
            return
        self._actions[:] = self._mean  # the plan before, shifted; see `_begin`
        # Checked again: the limits and the last action may differ from those of the plan before.
        if self._memory.violation <= 0 and self._admission.admits(self._actions):
            plan.reason, plan.valid, plan.ticks_old = PlanReason.HANDED_ON, True, age
            plan.cost, plan.violation = self._memory.cost, self._memory.violation
            plan.actions = self._seen[0]
