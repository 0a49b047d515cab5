"""The common problem: LeWorldModel's geometry with random weights, a start, a goal, and draws.

Weights are drawn from a fixed seed. AdaLN-zero starts at zero, which would make every action the
same; it is drawn too, and the goal is where a random plan leads, so that costs differ and fall.

Shapes: N samples, H horizon, A action-block size, D latent size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jetsight_compile.bench.models import _untrained
from jetsight_train.model.predictor import ConditionalBlock
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import load_recipe

_MODULATION_STD = 0.2


@dataclass(frozen=True)
class Problem:
    """One planning problem and how it is to be solved, for every contestant.

    Attributes:
        model: the world model; its actions are normalised already, mean 0 and std 1.
        z: `[1, D]` latent to start from; the history is this one frame.
        goal: `[1, D]` latent to reach.
        samples: N.
        iterations: planner iterations of a plan.
        horizon: H, action blocks imagined.
        elites: candidates the mean and the std are refitted to.
    """

    model: WorldModel
    z: Tensor
    goal: Tensor
    samples: int = 300
    iterations: int = 30
    horizon: int = 5
    elites: int = 30

    def draws(self, seed: int) -> Iterator[Tensor]:
        """Draw standard normal `[N, H, A]` for each iteration, just as stable-worldmodel does."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.samples, self.horizon, self.model.action_size)
        for _ in range(self.iterations):
            yield torch.randn(*shape, generator=generator)[0]


def lewm_problem(iterations: int = 30, samples: int = 300, recipe: str = "lewm") -> Problem:
    """LeWorldModel's planning problem: 300 samples, 30 iterations, 5 blocks, 30 elites."""
    torch.manual_seed(0)
    model = _untrained(load_recipe(recipe)).eval().requires_grad_(False)
    for block in model.predictor.blocks:
        assert isinstance(block, ConditionalBlock)
        nn.init.normal_(block.modulation[1].weight, std=_MODULATION_STD)
    z = torch.randn(1, model.config.latent_size)
    plan = torch.randn(1, model.config.horizon, model.action_size)
    with torch.inference_mode():
        goal = model.rollout(z[None], plan[:, :0], plan)[0, -1:].clone()
    return Problem(model, z, goal, samples, iterations, elites=max(samples // 10, 2))
