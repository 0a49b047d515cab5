"""The improved cross-entropy method (Pinneri et al., arXiv 2008.06389).

It differs from CEM in coloured noise, which the caller draws, in elites that take part in the next
iteration, and in a refit with momentum.

Shapes: N samples, E elites, Q kept elites, H horizon, A action-block size.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    # With fewer valid ones than Q, the worst of them fills the rest.
    place = torch.arange(spec.kept).clamp(max=len(ranked) - 1)
    kept = candidates[ranked[place]] if len(ranked) else state.kept
    return with_best(state, candidates, scores).following(
        mean=spec.momentum * state.mean + (1.0 - spec.momentum) * mean,
        std=spec.momentum * state.std + (1.0 - spec.momentum) * std,
        kept=kept,
    )


def plan(model: WorldModel, problem: Problem, state: State, draws: Iterable[Tensor]) -> State:
    """Iterate once per draw; the best plan so far is `state.actions` at any time."""
    for noise in draws:
        state = step(model, problem, state, noise)
    return state
