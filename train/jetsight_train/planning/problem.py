"""Inputs and state of a planner's iterations.

Actions are in robot units everywhere. A candidate is H action blocks; a block is B ticks of `a`
numbers each, so A = B * a.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), H horizon, A action-block size,
D latent size, C context, Q kept elites, P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.planner_tensors import INVALID_COST


@dataclass(frozen=True)
class Problem:
    """Inputs of a planner's graph that stay the same over the iterations of a plan.

    Attributes:
        spec: the planner; read for the values that are compiled into its graph.
        z_hist: `[C, D]` latents at block spacing, newest last.
        a_hist: `[C-1, A]` action blocks between them.
        z_goal: `[D]` latent to reach.
        low: `[a]` smallest action.
        high: `[a]` largest action.
        weights: `[3]` of the terminal, the running and the support cost.
        a_last: `[a]` last commanded action.
        rate: `[a]` largest change per tick; read if the spec is rate limited.
        probe_target: `[P]` values to reach.
        probe_given: `[P]` 1 for the target, 0 for the probe's reading of `z_goal`.
        probe_weight: `[P]` weights of the probe cost.
        hazard_limit: `[G]` logit above which a hazard counts as a violation.
        temperature: `[1]` of mppi's weights.
        when: `[H]` share of each step in the distance to the goal; None for the last step alone.
    """

    spec: PlannerSpec
    z_hist: Tensor
    a_hist: Tensor
    z_goal: Tensor
    low: Tensor
    high: Tensor
    weights: Tensor
    a_last: Tensor
    rate: Tensor | None = None
    probe_target: Tensor | None = None
    probe_given: Tensor | None = None
    probe_weight: Tensor | None = None
    hazard_limit: Tensor | None = None
    temperature: Tensor | None = None
    when: Tensor | None = None

    def __post_init__(self) -> None:
        """Weigh the last step alone if `when` is None."""
        if self.when is None:
            last = self.z_goal.new_zeros(self.spec.horizon)
            last[-1] = 1.0
            object.__setattr__(self, "when", last)


@dataclass(frozen=True)
class State:
    """State of a plan between iterations; the next iteration reads the first four fields.

    Attributes:
        mean: `[H, A]` mean of the next candidates.
        std: `[H, A]` standard deviation of them.
        actions: `[H, A]` best plan so far, the next iteration's incumbent.
        kept: `[Q, H, A]` elites that are candidates again.
        cost: `[1]` cost of `actions`; `INVALID_COST` if no rollout was valid.
        violation: `[1]` violation of `actions`, 0 or less where it is feasible.
        costs: `[N]` costs of the samples.
        violations: `[N]` violations of the samples.
        z_future: `[H, D]` latents imagined for `actions`.
        invalid: `[1]` number of samples that were not finite.
    """

    mean: Tensor
    std: Tensor
    actions: Tensor
    kept: Tensor
    cost: Tensor
    violation: Tensor
    costs: Tensor
    violations: Tensor
    z_future: Tensor
    invalid: Tensor

    @classmethod
    def first(cls, problem: Problem, mean: Tensor, std: Tensor, incumbent: Tensor) -> State:
        """Return the state before the first iteration; `kept` starts as copies of the mean."""
        spec = problem.spec
        invalid = mean.new_full((1,), INVALID_COST)
        kept = mean.expand(spec.kept, *mean.shape)
        latents = problem.z_hist[-1:].expand(spec.horizon, -1)
        return cls(
            mean=mean,
            std=std,
            actions=incumbent,
            kept=kept,
            cost=invalid,
            violation=invalid,
            costs=invalid.expand(spec.samples),
            violations=invalid.expand(spec.samples),
            z_future=latents,
            invalid=invalid.new_zeros(1),
        )

    def following(self, **changes: Tensor) -> State:
        """Return the state with some fields replaced."""
        return replace(self, **changes)
