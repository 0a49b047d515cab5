"""Model predictive path integral control (Williams et al., arXiv 1509.01149).

The weight of a candidate falls exponentially with its cost.

Shapes: N samples, H horizon, A action-block size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.candidates import limited, proposed
from jetsight_train.planning.costs import Scores, scored
from jetsight_train.planning.problem import Problem, State
from jetsight_train.planning.ranking import of_samples, with_best

# Share of an action's std over the training set; with a smaller std a search cannot widen again.
STD_FLOOR = 0.05


def step(model: WorldModel, problem: Problem, state: State, noise: Tensor) -> State:
    """Run one iteration: sample, imagine, weigh, refit to the weighted candidates."""
    proposals = proposed(problem, state, noise)
    candidates = limited(problem, proposals)
    scores = scored(model, problem, proposals, candidates)
    state, before = with_best(state, candidates, scores), state
    samples = of_samples(scores)
    if not samples.valid.any():
        return state.following(mean=before.mean, std=before.std)
    weight = weights(problem, samples)[:, None, None]
    # Weight 0 times NaN is NaN, so samples without weight are zeroed.
    tried = torch.where(weight > 0.0, candidates[:-1], 0.0)
    mean = (weight * tried).sum(0)
    variance = (weight * (tried - mean).square()).sum(0)
    return state.following(mean=mean, std=variance.sqrt().maximum(STD_FLOOR * model.action_std))


def weights(problem: Problem, samples: Scores) -> Tensor:
    """Return weights `[N]` of sum 1: feasible samples by cost, or all by violation if none is."""
    assert problem.temperature is not None
    some = samples.feasible.any()
    weighed = samples.feasible if some else samples.valid
    value = torch.where(weighed, samples.cost if some else samples.violation, torch.inf)
    # Relative to the best one, so that exp cannot underflow for all of them.
    return torch.softmax((value.min() - value) / problem.temperature, 0)
