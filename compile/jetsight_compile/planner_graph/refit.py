"""Ranking, refit and the best plan, equal to the references in `jetsight_train.planning`.

Shapes are fixed: a missing elite has the weight 0, and arithmetic on ranks skips an empty group.

Shapes: N samples, M = N + 1 rollouts (the incumbent is the last), E elites, Q kept elites,
H horizon, A action-block size, D latent size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight_compile.planner_graph.costs import LARGEST, CandidateScores
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.mppi import STD_FLOOR


class Ranking(nn.Module):
    """The best `count` rollouts: feasible ones by cost, then infeasible ones by violation.

    `count` is the K of a TopK, which TensorRT limits (`jetsight_compile.config.targets`).
    """

    ranks: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("ranks", torch.arange(count, dtype=torch.float32))

    def forward(self, judged: CandidateScores) -> tuple[Tensor, Tensor]:
        """Return indices `[count]`, best first, and the number of valid rollouts `[1]`.

        Where fewer than `count` are valid, the last valid one is repeated.
        """
        feasible = judged.valid & (judged.violation <= 0.0)
        infeasible = judged.valid & (judged.violation > 0.0)
        best = self._best(judged.cost, feasible)
        least = self._best(judged.violation, infeasible)
        good, valid = feasible.float().sum(0, True), judged.valid.float().sum(0, True)
        # Without a valid rollout all ranks are 0; callers look at `valid` before they use them.
        rank = torch.minimum(self.ranks, (valid - 1.0).relu())
        # Ranks go on in the second list where the feasible ones of the first end.
        place = torch.where(rank < good, rank, rank - good + self.count)
        return torch.cat([best, least]).index_select(0, place.to(torch.int64)), valid

    def _best(self, value: Tensor, among: Tensor) -> Tensor:
        # TopK sorts; rollouts outside `among` are last and never read.
        return torch.where(among, value, LARGEST).topk(self.count, largest=False).indices


class Best(nn.Module):
    """The best of all M rollouts, and costs and violations of the N samples."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.ranking = Ranking(1)
        self.constrained = model.heads.hazard is not None

    def forward(
        self, actions: Tensor, z_future: Tensor, judged: CandidateScores
    ) -> tuple[Tensor, ...]:
        """Return `actions cost violation costs (violations) z_future invalid`."""
        first, count = self.ranking(judged)
        some = count > 0.5
        # The incumbent, which is last, stands in; the costs below mark it as invalid.
        first = torch.where(some, first, len(actions) - 1)
        valid = judged.valid[:-1]
        samples = [judged.cost[:-1], *([judged.violation[:-1]] if self.constrained else [])]
        return (
            actions.index_select(0, first).squeeze(0),
            torch.where(some, judged.cost.index_select(0, first), INVALID_COST),
            torch.where(some, judged.violation.index_select(0, first), INVALID_COST),
            *(torch.where(valid, each, INVALID_COST) for each in samples),
            z_future.index_select(1, first).squeeze(1),
            (1.0 - valid.float()).sum(0, True),
        )


class ElitesRefit(nn.Module):
    """Mean and unbiased std of the elites, and the best of them (cem, icem)."""

    def __init__(self, spec: PlannerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.ranking = Ranking(spec.elites)

    def forward(
        self, mean: Tensor, std: Tensor, actions: Tensor, judged: CandidateScores, *kept: Tensor
    ) -> tuple[Tensor, ...]:
        """Return `mean_next [H, A]`, `std_next [H, A]` and `kept_next [Q, H, A]` if Q > 0."""
        index, valid = self.ranking(judged)
        elites = actions.index_select(0, index)
        count = valid.clamp(max=self.spec.elites)
        weight = (self.ranking.ranks < count).float()[:, None, None]
        # Divisors are clamped for counts of 0 and 1, whose results are replaced below.
        fit = (weight * elites).sum(0) / count.clamp(min=1.0)
        spread = (weight * (elites - fit).square()).sum(0) / (count - 1.0).clamp(min=1.0)
        # Counts are whole numbers in float32, hence the halves. One elite has no spread.
        fit = torch.where(count > 0.5, fit, mean)
        spread = torch.where(count > 1.5, spread.sqrt(), std)
        if self.spec.momentum:
            fit = self.spec.momentum * mean + (1.0 - self.spec.momentum) * fit
            spread = self.spec.momentum * std + (1.0 - self.spec.momentum) * spread
        best = (torch.where(valid > 0.5, elites[: self.spec.kept], each) for each in kept)
        return fit, spread, *best


class WeightedRefit(nn.Module):
    """Mean and std of all candidates, with weights that fall with their cost (mppi)."""

    floor: Tensor

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        # As in the reference: a search whose std has vanished cannot widen again.
        self.register_buffer("floor", STD_FLOOR * model.action_std)

    def forward(
        self,
        mean: Tensor,
        std: Tensor,
        actions: Tensor,
        judged: CandidateScores,
        temperature: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return `mean_next [H, A]` and `std_next [H, A]`."""
        feasible = judged.valid & (judged.violation <= 0.0)
        some = feasible.float().sum(0, True) > 0.5
        # As in the ranking: only where nothing is feasible do violations decide.
        among = (feasible & some) | (judged.valid & ~some)
        value = torch.where(some, judged.cost, judged.violation)
        least = torch.where(among, value, LARGEST).amin(0, True)
        # The exponent is clamped where exp() is zero in float32, so that nothing overflows before.
        power = ((least - torch.where(among, value, least)) / temperature).clamp(min=-200.0)
        weight = torch.where(among, power.exp(), 0.0)
        weight = (weight / weight.sum(0, True).clamp(min=1e-30))[:, None, None]
        # 0 * NaN is NaN, so actions without weight are taken out before the product.
        tried = torch.where(weight > 0.0, actions, 0.0)
        fit = (weight * tried).sum(0)
        spread = (weight * (tried - fit).square()).sum(0).sqrt().maximum(self.floor)
        any_valid = judged.valid.float().sum(0, True) > 0.5
        return torch.where(any_valid, fit, mean), torch.where(any_valid, spread, std)


class Select(nn.Module):
    """Refit and best plan of one planner."""

    def __init__(self, model: WorldModel, spec: PlannerSpec) -> None:
        super().__init__()
        self.best = Best(model)
        self.refit = WeightedRefit(model) if spec.kind == "mppi" else ElitesRefit(spec)

    def forward(
        self,
        mean: Tensor,
        std: Tensor,
        actions: Tensor,
        z_future: Tensor,
        judged: CandidateScores,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the graph's outputs; `rest` is `kept` or `temperature`, if any."""
        samples = CandidateScores(*(each[:-1] for each in judged))
        mean_next, std_next, *kept_next = self.refit(mean, std, actions[:-1], samples, *rest)
        return mean_next, std_next, *self.best(actions, z_future, judged), *kept_next
