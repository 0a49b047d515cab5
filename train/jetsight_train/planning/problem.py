"""What a planner is asked and what it answers, in plain frozen values.

Actions are in robot units everywhere. A candidate is H action blocks; a block is B ticks of `a`
numbers each, so A = B * a.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), H horizon, A action-block size,
D latent size, C context, Q kept elites, P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

Kind = Literal["cem", "icem", "mppi"]
# What stands for a cost that is no number; still finite, so it sorts and travels as JSON.
NEVER = 3e38


@dataclass(frozen=True)
class ImagineSpec:
    """The static settings of one planner.

    Attributes:
        kind: which planner.
        samples: N, candidates per iteration.
        horizon: H, action blocks imagined.
        elites: E, how many of the best are refitted to; not read by mppi.
        kept: Q, elites handed on to the next iteration; icem alone.
        momentum: share of the old mean and std that stays, 0 to 1; icem alone.
        context: C, latents a plan starts from.
        rate_limited: whether the change per tick is limited.
    """

    kind: Kind
    samples: int
    horizon: int
    elites: int = 0
    kept: int = 0
    momentum: float = 0.0
    context: int = 1
    rate_limited: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that describe no planner."""
        if min(self.samples, self.horizon, self.context) < 1:
            raise ValueError("samples, horizon and context must be at least 1")
        if self.kind != "mppi" and not 2 <= self.elites <= self.samples:
            raise ValueError(f"elites must be 2 to {self.samples}, got {self.elites}")
        if not 0 <= self.kept <= (self.elites if self.kind == "icem" else 0):
            raise ValueError(f"{self.kind} cannot keep {self.kept} of {self.elites} elites")
        if not 0.0 <= self.momentum < 1.0 or (self.momentum and self.kind != "icem"):
            raise ValueError(f"momentum {self.momentum} must be below 1, and 0 unless icem")

    @property
    def graph(self) -> str:
        """Name of its graph, such as `imagine_icem_256x5`."""
        return f"imagine_{self.kind}_{self.samples}x{self.horizon}"


@dataclass(frozen=True)
class Problem:
    """What to plan for; all of it stays the same over the iterations.

    Attributes:
        spec: the planner.
        z_hist: `[C, D]` latents at block spacing, newest last.
        a_hist: `[C-1, A]` action blocks between them.
        z_goal: `[D]` latent to reach.
        low: `[a]` smallest action.
        high: `[a]` largest action.
        weights: `[3]` of the terminal, the running and the support cost.
        a_last: `[a]` last commanded action.
        rate: `[a]` largest change per tick; read where the spec is rate limited.
        probe_target: `[P]` values to reach.
        probe_given: `[P]` 1 to use the target, 0 for what the probe reads in `z_goal`.
        probe_weight: `[P]` weights of the probe cost.
        hazard_limit: `[G]` logit above which a hazard counts as a violation.
        temperature: `[1]` of mppi's weights.
        when: `[H]` share of each step in the distance to the goal; all of it at the last if None.
    """

    spec: ImagineSpec
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
        """Arrive at the last step, unless another time was said."""
        if self.when is None:
            last = self.z_goal.new_zeros(self.spec.horizon)
            last[-1] = 1.0
            object.__setattr__(self, "when", last)


@dataclass(frozen=True)
class State:
    """Where a planner stands; the first four fields are what the next iteration reads.

    Attributes:
        mean: `[H, A]` of the candidates to come.
        std: `[H, A]` likewise.
        actions: `[H, A]` best plan so far, the next iteration's incumbent.
        kept: `[Q, H, A]` elites that take part again.
        cost: `[1]` of `actions`; `NEVER` if nothing was valid.
        violation: `[1]` of `actions`, 0 or less where it is feasible.
        costs: `[N]` of the samples.
        violations: `[N]` likewise.
        z_future: `[H, D]` latents that `actions` leads to.
        invalid: `[1]` how many of the samples were no numbers.
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
        """A state before the first iteration; `kept` starts as copies of the mean."""
        spec = problem.spec
        never = mean.new_full((1,), NEVER)
        kept = mean.expand(spec.kept, *mean.shape)
        latents = problem.z_hist[-1:].expand(spec.horizon, -1)
        return cls(
            mean,
            std,
            incumbent,
            kept,
            never,
            never,
            never.expand(spec.samples),
            never.expand(spec.samples),
            latents,
            never.new_zeros(1),
        )

    def following(self, **changes: Tensor) -> State:
        """The same state with some fields replaced."""
        return replace(self, **changes)
