"""Candidate action sequences within the limits of the robot.

Shapes: N samples, H horizon, B ticks per block, a action size, A = B * a, Q kept elites.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jetsight_train.planning.problem import Problem, State


def proposed(problem: Problem, state: State, noise: Tensor) -> Tensor:
    """Sample candidates before any limit: `noise [N, H, A] -> [N+1, H, A]`, incumbent last.

    The caller zeroes `noise[0]`, so that the first candidate is the mean. The last Q candidates
    are the elites kept from the iteration before.
    """
    sampled = state.mean + state.std * noise
    # The last samples make room for kept elites, so that sample 0 remains the mean.
    fresh = sampled[: problem.spec.samples - problem.spec.kept]
    return torch.cat([fresh, state.kept, state.actions[None]])


def limited(problem: Problem, candidates: Tensor) -> Tensor:
    """Limit candidates `[..., H, A]` to the bounds and rates of the robot."""
    rate = problem.rate if problem.spec.rate_limited else None
    return within(candidates, problem.low, problem.high, problem.a_last, rate)


def within(
    candidates: Tensor, low: Tensor, high: Tensor, a_last: Tensor, rate: Tensor | None
) -> Tensor:
    """Clip to the bounds `[a]`, then limit the change per tick from `a_last` on, then clip again.

    Args:
        candidates: `[..., H, A]`.
        low: smallest action.
        high: largest action.
        a_last: last commanded action.
        rate: largest change per tick, or None for no limit.
    """
    ticks = candidates.unflatten(-1, (-1, len(low))).flatten(-3, -2)
    ticks = ticks.clamp(low, high)
    if rate is not None:
        # The last clip is for an `a_last` that is outside the bounds.
        previous, limited_ticks = a_last, []
        for tick in ticks.unbind(-2):
            previous = tick.clamp(previous - rate, previous + rate)
            limited_ticks.append(previous)
        ticks = torch.stack(limited_ticks, -2).clamp(low, high)
    return ticks.reshape(candidates.shape)
