"""Costs, violations and validity of all rollouts, equal to `jetsight_train.planning.costs`.

Always in float32. NaN is found by comparison: a comparison with NaN is false on every backend,
while clamps and maxima drop NaN on some.

Shapes: M rollouts, H horizon, A action-block size, D latent size, P probe quantities, G hazards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jetsight_train.model.world_model import WorldModel

LARGEST = torch.finfo(torch.float32).max


class CostInputs(NamedTuple):
    """Inputs of the graph that costs depend on; absent ones are None."""

    z_newest: Tensor
    a_last: Tensor
    z_goal: Tensor
    weights: Tensor
    when: Tensor
    probe_target: Tensor | None = None
    probe_given: Tensor | None = None
    probe_weight: Tensor | None = None
    hazard_limit: Tensor | None = None


class CandidateScores(NamedTuple):
    """`cost [M]`, `violation [M]`, `valid [M]`."""

    cost: Tensor
    violation: Tensor
    valid: Tensor


class Score(nn.Module):
    """Score of all rollouts, with the heads of the model."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        heads = model.heads
        self.probe, self.hazard, self.support = heads.probe, heads.hazard, heads.support
        if heads.probe_spec is not None:
            scale = torch.tensor(heads.probe_spec.scale, dtype=torch.float32)
            self.register_buffer("scale", scale)

    def forward(
        self, proposals: Tensor, actions: Tensor, z_future: Tensor, inputs: CostInputs
    ) -> CandidateScores:
        """`proposals, actions [M, H, A]`, `z_future [H, M, D]`."""
        terminal, running, support = torch.split(inputs.weights, 1)
        distance = (z_future - inputs.z_goal).square().sum(-1)
        when = inputs.when[:, None]
        cost = terminal * (when * distance).sum(0) + running * distance.mean(0)
        if self.support is not None:
            # 99 % of the real latents score below 1 and so cost nothing.
            cost = cost + support * (self.support(z_future) - 1.0).relu().mean(0)
        if self.probe is not None:
            cost = cost + (when * self._probe_cost(z_future, inputs)).sum(0)
        valid = _finite(cost) & _finite(distance, 0) & _finite(proposals, (1, 2))
        # The rate limit chains every candidate to `a_last`, so a NaN there spoils them all.
        valid = valid & _finite(inputs.a_last, 0)
        if self.hazard is None:
            return CandidateScores(cost, 0.0 * valid.float(), valid)
        above = self._above(actions, z_future, inputs)
        # relu may drop a NaN of `above`, so validity looks at both.
        broken = above.relu().sum((0, 2))
        return CandidateScores(cost, broken, valid & _finite(broken) & _finite(above, (0, 2)))

    def _probe_cost(self, z_future: Tensor, inputs: CostInputs) -> Tensor:
        """Return the cost of every step: `[H, M, D] -> [H, M]`."""
        assert self.probe is not None
        assert inputs.probe_given is not None
        assert inputs.probe_target is not None
        assert inputs.probe_weight is not None
        read = self.probe(inputs.z_goal[None])
        # A flag among float32 inputs, compared at half so that no exact number is needed.
        target = torch.where(inputs.probe_given > 0.5, inputs.probe_target, read)
        off = (self.probe(z_future) - target) / self.scale
        cost: Tensor = (inputs.probe_weight * off.square()).sum(-1)
        return cost

    def _above(self, actions: Tensor, z_future: Tensor, inputs: CostInputs) -> Tensor:
        assert self.hazard is not None
        assert inputs.hazard_limit is not None
        # A hazard is judged per transition; the first begins at the newest real latent.
        newest = inputs.z_newest.expand(1, z_future.shape[1], -1)
        before = torch.cat([newest, z_future[:-1]])
        logits: Tensor = self.hazard(before, actions.transpose(0, 1), z_future)
        return logits - inputs.hazard_limit


def _finite(x: Tensor, over: int | tuple[int, ...] = ()) -> Tensor:
    # One comparison refuses NaN and infinity alike.
    good = x.abs() <= LARGEST
    return good if over == () else good.float().amin(over) > 0.5
