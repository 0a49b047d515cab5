"""World model whose next latent is the last one plus the action: plans have a closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight_train.model.heads import Heads
from jetsight_train.planning.problem import Problem, State

SIZE = 2


class Drift:
    """Interface of a world model that planners use: `z_next = z + a`, D = A = a = 2."""

    action_std = torch.tensor([1.0, 2.0])

    def __init__(self, heads: Any = None) -> None:
        self.heads = heads or Heads()

    def rollout(self, z_hist: Tensor, a_hist: Tensor, actions: Tensor) -> Tensor:
        return z_hist[:, -1:] + actions.cumsum(1)

    def cost(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return (z - z_goal).square().sum(-1)


def drift(heads: Any = None) -> Any:
    return Drift(heads)


def problem_of(spec: PlannerSpec, **changes: Any) -> Problem:
    """Make a problem from the origin to (3, -1), without limits."""
    fields: dict[str, Any] = {
        "z_hist": torch.zeros(spec.context, SIZE),
        "a_hist": torch.zeros(spec.context - 1, SIZE),
        "z_goal": torch.tensor([3.0, -1.0]),
        "low": torch.full((SIZE,), -1e9),
        "high": torch.full((SIZE,), 1e9),
        "weights": torch.tensor([1.0, 0.0, 0.0]),
        "a_last": torch.zeros(SIZE),
    }
    return Problem(spec, **{**fields, **changes})


def start(problem: Problem, std: float = 1.0) -> State:
    plan = torch.zeros(problem.spec.horizon, SIZE)
    return State.first(problem, plan, plan + std, plan + 100.0)


def draws(spec: PlannerSpec, count: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    noises = [torch.randn(spec.samples, spec.horizon, SIZE, generator=rng) for _ in range(count)]
    for noise in noises:
        noise[0] = 0.0  # the first candidate is the mean
    return noises
