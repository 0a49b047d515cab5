"""Which rollouts are best: feasible ones by cost, then infeasible ones by violation.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), E elites, H horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jetsight_train.planning.costs import Scores
from jetsight_train.planning.problem import NEVER, State


def order(scores: Scores) -> Tensor:
    """Indices of the valid rollouts, best first."""
    value = torch.where(scores.feasible, scores.cost, scores.violation)
    by_value = torch.argsort(torch.where(scores.valid, value, NEVER), stable=True)
    last = torch.where(scores.valid, ~scores.feasible, 2)
    by_group = by_value[torch.argsort(last[by_value].int(), stable=True)]
    return by_group[: int(scores.valid.sum())]


def of_samples(scores: Scores) -> Scores:
    """The scores without the incumbent's, which takes no part in a refit."""
    return Scores(scores.z_future[:-1], scores.cost[:-1], scores.violation[:-1], scores.valid[:-1])


def fitted(state: State, elites: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased std of the elites `[E, H, A]`; what they cannot tell stays as it was."""
    if len(elites) == 0:
        return state.mean, state.std
    return elites.mean(0), elites.std(0) if len(elites) > 1 else state.std


def with_best(state: State, candidates: Tensor, scores: Scores) -> State:
    """The best of all M rollouts, and what the N samples cost and violate.

    If none is valid the incumbent stays the plan, at the cost `NEVER`.
    """
    samples, ranked = of_samples(scores), order(scores)
    best = ranked[0] if len(ranked) else torch.tensor(len(candidates) - 1)
    none = not len(ranked)
    never = scores.cost.new_full((1,), NEVER)
    return state.following(
        actions=candidates[best],
        z_future=scores.z_future[best],
        cost=never if none else scores.cost[best][None],
        violation=never if none else scores.violation[best][None],
        costs=torch.where(samples.valid, samples.cost, NEVER),
        violations=torch.where(samples.valid, samples.violation, NEVER),
        invalid=(~samples.valid).sum()[None].float(),
    )
