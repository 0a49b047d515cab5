"""The improved cross-entropy method (Pinneri et al., arXiv 2008.06389).

It differs from CEM in coloured noise, which the caller draws, in elites that are candidates of the
next iteration again, and in a refit with momentum.

Shapes: N samples, E elites, Q kept elites, H horizon, A action-block size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.candidates import limited, proposed
from jetsight_train.planning.costs import scored
from jetsight_train.planning.problem import Problem, State
from jetsight_train.planning.ranking import fitted, of_samples, order, with_best


def step(model: WorldModel, problem: Problem, state: State, noise: Tensor) -> State:
    """Run one iteration: sample beside kept elites, imagine, rank, refit, keep the best Q."""
    spec = problem.spec
    proposals = proposed(problem, state, noise)
    candidates = limited(problem, proposals)
    scores = scored(model, problem, proposals, candidates)
    ranked = order(of_samples(scores))
    mean, std = fitted(state, candidates[ranked[: spec.elites]])
    # `kept` has a fixed shape: with fewer than Q valid candidates, the worst of them is repeated.
    place = torch.arange(spec.kept).clamp(max=len(ranked) - 1)
    kept = candidates[ranked[place]] if len(ranked) else state.kept
    return with_best(state, candidates, scores).following(
        mean=spec.momentum * state.mean + (1.0 - spec.momentum) * mean,
        std=spec.momentum * state.std + (1.0 - spec.momentum) * std,
        kept=kept,
    )
