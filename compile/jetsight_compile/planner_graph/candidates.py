"""First part of an iteration: mean, std and noise to candidates within the robot's limits.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), Q kept elites, H horizon,
A action-block size, a action size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight_train.planning.candidates import within


class Candidates(nn.Module):
    """Candidates before and after the limits."""

    def __init__(self, spec: PlannerSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        mean: Tensor,
        std: Tensor,
        noise: Tensor,
        incumbent: Tensor,
        a_last: Tensor,
        low: Tensor,
        high: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        """Propose and limit candidates; `rest` is `kept` and then `rate` where the graph has them.

        Returns:
            Proposals `[M, H, A]`, candidates `[M, H, A]`, and these again as H blocks `[M, A]`.
        """
        kept, rate = rest[: bool(self.spec.kept)], rest[bool(self.spec.kept) :]
        # Kept elites take the place of the last draws, so that there are always M rollouts.
        fresh = mean + std * noise[: self.spec.samples - self.spec.kept]
        proposals = torch.cat([fresh, *kept, incumbent[None]])
        actions = within(proposals, low, high, a_last, rate[0] if rate else None)
        # Proposals too, since the limits may turn a NaN into a finite action on some backends.
        return proposals, actions, *actions.unbind(1)
