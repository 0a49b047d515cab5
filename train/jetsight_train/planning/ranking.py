"""Order of rollouts, feasible ones by cost before infeasible ones by violation, and refit.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), E elites, H horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight_train.planning.costs import Scores
from jetsight_train.planning.problem import State


def order(scores: Scores) -> Tensor:
    """Sort the valid rollouts, best first, and return their indices."""
    value = torch.where(scores.feasible, scores.cost, scores.violation)
    # NaN has no defined place in a sort, so invalid ones get a number first.
    by_value = torch.argsort(torch.where(scores.valid, value, INVALID_COST), stable=True)
    # Two stable sorts: the second keeps the order by value within each group.
    group = torch.where(scores.valid, ~scores.feasible, 2)
    by_group = by_value[torch.argsort(group[by_value].int(), stable=True)]
    return by_group[: int(scores.valid.sum())]


def of_samples(scores: Scores) -> Scores:
    """Drop the scores of the incumbent, which no refit uses."""
    return Scores(scores.z_future[:-1], scores.cost[:-1], scores.violation[:-1], scores.valid[:-1])


def fitted(state: State, elites: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased std of the elites `[E, H, A]`; the state's if there are too few."""
    if len(elites) == 0:
        return state.mean, state.std
    return elites.mean(0), elites.std(0) if len(elites) > 1 else state.std


def with_best(state: State, candidates: Tensor, scores: Scores) -> State:
    """Store the best of all M rollouts, and the costs and violations of the N samples.

    Without a valid rollout the incumbent is the plan, at the cost `INVALID_COST`.
    """
    samples, ranked = of_samples(scores), order(scores)
    best = ranked[0] if len(ranked) else torch.tensor(len(candidates) - 1)
    invalid = scores.cost.new_full((1,), INVALID_COST)
    return state.following(
        actions=candidates[best],
        z_future=scores.z_future[best],
        cost=scores.cost[best][None] if len(ranked) else invalid,
        violation=scores.violation[best][None] if len(ranked) else invalid,
        costs=torch.where(samples.valid, samples.cost, INVALID_COST),
        violations=torch.where(samples.valid, samples.violation, INVALID_COST),
        invalid=(~samples.valid).sum()[None].float(),
    )
