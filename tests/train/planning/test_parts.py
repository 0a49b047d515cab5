"""Limits, costs and ranking against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers.train.drifting import drift, problem_of, start
from torch import Tensor, nn

from jetsight.testing import tiny_planner
from jetsight_train.model.heads import ProbeHeadSpec
from jetsight_train.planning.candidates import limited, proposed
from jetsight_train.planning.costs import Scores, scored
from jetsight_train.planning.ranking import order

SPEC = tiny_planner(samples=2, horizon=3, elites=2, context=1)


class Head(nn.Module):
    """Head that computes a given function."""

    def __init__(self, function) -> None:
        super().__init__()
        self._function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._function(*tensors)


class ThreeHeads:
    """Heads that read twice the latent, a hazard in its first number, and support within 1."""

    probe = Head(lambda z: 2.0 * z)
    probe_spec = ProbeHeadSpec(("x", "y"), ("px", "px"), (2.0, 4.0))
    hazard = Head(lambda z, a, z_next: torch.stack([z_next[..., 0], z[..., 1]], -1))
    support = Head(lambda z: z.abs().sum(-1))


def test_ticks_are_clipped_then_slowed_then_clipped() -> None:
    """One block of four ticks of one number, from a last action outside the bounds."""
    spec = replace(SPEC, horizon=1, rate_limited=True)
    one = {"low": torch.tensor([-1.0]), "high": torch.tensor([1.0]), "rate": torch.tensor([0.5])}
    problem = problem_of(spec, a_last=torch.tensor([2.0]), **one)
    result = limited(problem, torch.tensor([[[0.0, 5.0, -5.0, -5.0]]]))
    torch.testing.assert_close(result, torch.tensor([[[1.0, 1.0, 0.5, 0.0]]]))
    free = problem_of(SPEC, **one)
    assert limited(free, torch.tensor([[[0.0, 5.0, -5.0, -5.0]]])).tolist() == [[[0, 1, -1, -1]]]


def test_proposals_are_samples_then_kept_then_the_incumbent() -> None:
    spec = replace(SPEC, kind="icem", samples=4, horizon=1, kept=2)
    problem = problem_of(spec)
    state = start(problem).following(kept=torch.full((2, 1, 2), 7.0), mean=torch.ones(1, 2))
    noise = torch.arange(4.0).view(4, 1, 1).expand(4, 1, 2)
    assert proposed(problem, state, noise)[:, 0, 0].tolist() == [1.0, 2.0, 7.0, 7.0, 100.0]


def test_costs_by_hand() -> None:
    problem = problem_of(
        SPEC,
        weights=torch.tensor([1.0, 0.5, 0.25]),
        probe_target=torch.tensor([4.0, 99.0]),
        probe_given=torch.tensor([1.0, 0.0]),
        probe_weight=torch.tensor([3.0, 2.0]),
        hazard_limit=torch.tensor([1.5, 1e9]),
    )
    tried = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])  # z: (1, 0), (2, 0), (3, 1)
    result = scored(drift(ThreeHeads()), problem, tried, tried)
    terminal, running = 4.0, (5.0 + 2.0 + 4.0) / 3
    support = (0.0 + 1.0 + 3.0) / 3
    probe = 3.0 * ((6.0 - 4.0) / 2.0) ** 2 + 2.0 * ((2.0 + 2.0) / 4.0) ** 2
    expected = terminal + 0.5 * running + 0.25 * support + probe
    torch.testing.assert_close(result.cost, torch.tensor([expected]))
    torch.testing.assert_close(result.violation, torch.tensor([0.5 + 1.5]))
    bare = scored(drift(), problem, tried, tried)
    torch.testing.assert_close(bare.cost, torch.tensor([terminal + 0.5 * running]))  # the control
    assert bare.violation == 0


def test_hazards_are_asked_about_the_latent_before_the_block() -> None:
    problem = problem_of(
        SPEC, z_hist=torch.tensor([[0.0, 9.0]]), hazard_limit=torch.tensor([1e9, 8.0])
    )
    tried = torch.tensor([[[0.0, -5.0], [0.0, 0.0], [0.0, 0.0]]])  # before: 9, then 4, then 4
    heads = ThreeHeads()
    heads.probe = heads.probe_spec = None
    assert scored(drift(heads), problem, tried, tried).violation == 1.0


def test_feasible_before_infeasible_before_invalid() -> None:
    cost = torch.tensor([5.0, 1.0, 2.0, torch.nan, 0.0])
    violation = torch.tensor([0.0, 0.3, 0.0, 0.0, 0.2])
    valid = torch.tensor([True, True, True, False, True])
    assert order(Scores(torch.zeros(5), cost, violation, valid)).tolist() == [2, 0, 4, 1]
    free = Scores(torch.zeros(5), cost, 0 * violation, valid)
    assert order(free).tolist() == [4, 1, 2, 0]  # the control: without constraints, by cost


def test_what_is_no_number_is_invalid_even_where_limits_hide_it() -> None:
    tried = torch.zeros(4, 3, 2)
    proposals = tried.clone()
    proposals[1, 0, 0] = torch.nan
    tried[2, 1, 1] = torch.inf
    result = scored(drift(), problem_of(SPEC), proposals, tried)
    assert result.valid.tolist() == [True, False, False, True]
    lost = problem_of(SPEC, a_last=torch.tensor([torch.nan, 0.0]))
    assert not scored(drift(), lost, tried, tried).valid.any()
