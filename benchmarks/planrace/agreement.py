"""Agreement of two contestants' plans: final means, and the order in which costs put candidates.

Shapes: N samples, H horizon, A action-block size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from jetsight.bundle.parity import spearman
from planrace.problem import Problem
from planrace.theirs import Solved


@dataclass(frozen=True)
class Agreement:
    """Comparison of one contestant's plans with stable-worldmodel's, over several seeds.

    Attributes:
        mean: largest difference of the final means, in standard deviations of the actions.
        rank: smallest rank correlation of the first iteration's costs, whose candidates are the
            the same for all contestants.
        elites: smallest share of elites in common there.
        plan_cost: cost of its final means under the float model, relative to that of theirs;
            average over the seeds.
    """

    mean: float
    rank: float
    elites: float
    plan_cost: float

    def as_dict(self) -> dict[str, Any]:
        """Numbers for `--json`."""
        return asdict(self)


def agreement(problem: Problem, theirs: list[Solved], found: list[Solved]) -> Agreement:
    """Compare plans made from the same seeds."""
    pairs = list(zip(theirs, found, strict=True))
    costs = [(a.costs[0], b.costs[0]) for a, b in pairs]
    mine, other = plan_costs(problem, found), plan_costs(problem, theirs)
    return Agreement(
        mean=max(float((a.mean - b.mean).abs().max()) for a, b in pairs),
        rank=min(rank_correlation(a, b) for a, b in costs),
        elites=min(overlap(a, b, problem.elites) for a, b in costs),
        plan_cost=float(mine.mean() / other.mean()),
    )


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation, 1 for the same order; -inf if a cost is not finite."""
    if not (a.isfinite().all() and b.isfinite().all()):
        return float("-inf")
    return spearman(a.cpu().numpy(), b.cpu().numpy())


def overlap(a: Tensor, b: Tensor, count: int) -> float:
    """Share of the `count` cheapest candidates that both have among theirs."""
    best = [set(x.argsort()[:count].tolist()) for x in (a, b)]
    return len(best[0] & best[1]) / count


def plan_costs(problem: Problem, plans: list[Solved]) -> Tensor:
    """Compute the float model's cost of each final mean, `[plans]`."""
    actions = torch.stack([plan.mean for plan in plans]).float()
    with torch.inference_mode():
        start = problem.z.expand(len(actions), 1, -1)
        ends = problem.model.rollout(start, actions[:, :0], actions)[:, -1]
        return problem.model.cost(ends, problem.goal)
