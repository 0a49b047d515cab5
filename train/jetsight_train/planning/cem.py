"""The cross-entropy method, equal to stable-worldmodel's solver.

Shapes: N samples, E elites, H horizon, A action-block size.
"""

from __future__ import annotations

from torch import Tensor

from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.candidates import limited, proposed
from jetsight_train.planning.costs import scored
from jetsight_train.planning.problem import Problem, State
from jetsight_train.planning.ranking import fitted, of_samples, order, with_best


def step(model: WorldModel, problem: Problem, state: State, noise: Tensor) -> State:
    """Run one iteration: sample, imagine, rank, refit to the best E; `noise [N, H, A]`."""
    proposals = proposed(problem, state, noise)
    candidates = limited(problem, proposals)
    scores = scored(model, problem, proposals, candidates)
    elites = candidates[order(of_samples(scores))[: problem.spec.elites]]
    mean, std = fitted(state, elites)
    return with_best(state, candidates, scores).following(mean=mean, std=std)
