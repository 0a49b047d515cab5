"""Costs, constraint violations and validity of rollouts.

Shapes: M rollouts, H horizon, A action-block size, D latent size, P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import Problem


@dataclass(frozen=True)
class Scores:
    """Scores of each rollout.

    Attributes:
        z_future: `[M, H, D]`.
        cost: `[M]`.
        violation: `[M]`, 0 where no constraint is broken.
        valid: `[M]` whether all values are finite; where False, the other fields are undefined.
    """

    z_future: Tensor
    cost: Tensor
    violation: Tensor
    valid: Tensor

    @property
    def feasible(self) -> Tensor:
        """Mask `[M]` of valid rollouts without a violation."""
        return self.valid & (self.violation <= 0.0)


def scored(model: WorldModel, problem: Problem, proposals: Tensor, candidates: Tensor) -> Scores:
    """Roll candidates `[M, H, A]` out and score them.

    Args:
        model: the world model, with its heads.
        problem: goal, limits and weights.
        proposals: `[M, H, A]` candidates before the limits, where clamping cannot hide a NaN.
        candidates: `[M, H, A]` within the limits.
    """
    m = len(candidates)
    z_hist, a_hist = (x.expand(m, *x.shape) for x in (problem.z_hist, problem.a_hist))
    z_future = model.rollout(z_hist, a_hist, candidates)
    cost = latent_cost(model, problem, z_future) + probe_cost(model, problem, z_future)
    broken = violation(model, problem, candidates, z_future)
    # `a_last` is checked itself, because clamping may hide a NaN in it.
    valid = torch.isfinite(cost) & torch.isfinite(broken) & torch.isfinite(problem.a_last).all()
    for values in (proposals, z_future):
        valid = valid & torch.isfinite(values).flatten(1).all(1)
    return Scores(z_future, cost, broken, valid)


def latent_cost(model: WorldModel, problem: Problem, z_future: Tensor) -> Tensor:
    """Return terminal plus running plus support cost: `[M, H, D] -> [M]`."""
    terminal, running, support = problem.weights
    distance = model.cost(z_future, problem.z_goal)
    assert problem.when is not None
    cost = terminal * (distance @ problem.when) + running * distance.mean(1)
    if model.heads.support is not None:
        # 99 % of encoded latents read at most 1, so only the excess over 1 costs.
        cost = cost + support * (model.heads.support(z_future) - 1.0).relu().mean(1)
    return cost


def probe_cost(model: WorldModel, problem: Problem, z_future: Tensor) -> Tensor:
    """Return the weighted squared distance of quantities from targets: `[M, H, D] -> [M]`."""
    heads = model.heads
    if heads.probe is None or heads.probe_spec is None:
        return z_future.new_zeros(len(z_future))
    assert problem.probe_target is not None
    assert problem.probe_given is not None
    assert problem.probe_weight is not None
    assert problem.when is not None
    given = problem.probe_given > 0.5
    target = torch.where(given, problem.probe_target, heads.probe(problem.z_goal))
    off = (heads.probe(z_future) - target) / z_future.new_tensor(heads.probe_spec.scale)
    return (problem.probe_weight * off.square()).sum(-1) @ problem.when


def violation(model: WorldModel, problem: Problem, actions: Tensor, z_future: Tensor) -> Tensor:
    """Sum the excess of hazard logits over limits: `[M, H, A], [M, H, D] -> [M]`."""
    if model.heads.hazard is None:
        return z_future.new_zeros(len(z_future))
    assert problem.hazard_limit is not None
    above = hazards(model, problem, actions, z_future) - problem.hazard_limit
    return above.relu().sum((1, 2))


def hazards(model: WorldModel, problem: Problem, actions: Tensor, z_future: Tensor) -> Tensor:
    """Return hazard logits of every block: `[M, H, A], [M, H, D] -> [M, H, G]`."""
    assert model.heads.hazard is not None
    newest = problem.z_hist[-1].expand(len(z_future), 1, -1)
    # Each block starts from what the one before was imagined to lead to.
    before = torch.cat([newest, z_future[:, :-1]], 1)
    logits: Tensor = model.heads.hazard(before, actions, z_future)
    return logits
