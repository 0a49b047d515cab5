"""The three planners against results computed independently."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.train.drifting import draws, drift, problem_of, start

from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight.testing import tiny_planner
from jetsight_train.planning import cem, icem, mppi

CEM = tiny_planner(kind="cem", samples=64, horizon=3, elites=8, context=1)
ICEM = replace(CEM, kind="icem", kept=3, momentum=0.25)
MPPI = replace(CEM, kind="mppi", elites=0)


def test_cem_is_the_textbook_one() -> None:
    """Compare with a second implementation: best E by cost, their mean and unbiased std."""
    problem, mean, std = problem_of(CEM), torch.zeros(3, 2), torch.ones(3, 2)
    state, noises = start(problem), draws(CEM, 5)
    for noise in noises:
        tried = mean + std * noise
        cost = (tried.sum(1) - problem.z_goal).square().sum(-1)
        best = tried[cost.topk(8, largest=False).indices]
        mean, std = best.mean(0), best.std(0)
        state = cem.step(drift(), problem, state, noise)
        torch.testing.assert_close(state.mean, mean)
        torch.testing.assert_close(state.std, std)
        torch.testing.assert_close(state.costs, cost)
    slow = start(problem_of(ICEM))
    for noise in noises:
        slow = icem.step(drift(), problem_of(ICEM), slow, noise)
    assert (slow.mean - mean).abs().max() > 1e-2  # the control: another planner


def test_icem_keeps_elites_and_some_of_what_it_had() -> None:
    problem, (noise,) = problem_of(ICEM), draws(ICEM, 1)
    kept = torch.tensor([[[1.0, -0.3]] * 3, [[1.0, -0.4]] * 3, [[9.0, 9.0]] * 3])
    state = icem.step(drift(), problem, start(problem).following(kept=kept), noise)
    tried = torch.cat([noise[:61], kept])
    best = tried[(tried.sum(1) - problem.z_goal).square().sum(-1).argsort()]
    torch.testing.assert_close(state.kept, best[:3])
    assert any(torch.equal(each, kept[0]) for each in state.kept)
    torch.testing.assert_close(state.mean, 0.75 * best[:8].mean(0))
    torch.testing.assert_close(state.std, 0.25 + 0.75 * best[:8].std(0))
    assert not any(torch.equal(each, kept[2]) for each in state.kept)  # the control: a bad one


def test_mppi_weighs_every_candidate_by_its_cost() -> None:
    problem, (noise,) = problem_of(MPPI, temperature=torch.tensor([2.0])), draws(MPPI, 1)
    state = mppi.step(drift(), problem, start(problem), noise)
    cost = (noise.sum(1) - problem.z_goal).square().sum(-1)
    weight = torch.exp(-cost / 2.0) / torch.exp(-cost / 2.0).sum()
    mean = torch.einsum("n,nha->ha", weight, noise)
    torch.testing.assert_close(state.mean, mean)
    variance = torch.einsum("n,nha->ha", weight, (noise - mean) ** 2)
    torch.testing.assert_close(state.std, variance.sqrt())
    cold = mppi.step(
        drift(), problem_of(MPPI, temperature=torch.tensor([1e-4])), start(problem), noise
    )
    torch.testing.assert_close(cold.mean, noise[cost.argmin()])  # the control: only the best
    torch.testing.assert_close(cold.std[0], mppi.STD_FLOOR * drift().action_std)


@pytest.mark.parametrize(("planner", "spec"), [(cem, CEM), (icem, ICEM), (mppi, MPPI)])
def test_a_plan_reaches_its_goal_and_never_gets_worse(planner, spec) -> None:
    problem = problem_of(spec, temperature=torch.tensor([0.1]))
    state, costs = start(problem), []
    for noise in draws(spec, 20):
        state = planner.step(drift(), problem, state, noise)
        costs.append(float(state.cost))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 1e-2 < 1.0 < costs[0] + 1.0
    torch.testing.assert_close(state.z_future[-1], state.actions.sum(0))
    other = problem_of(spec, temperature=torch.tensor([0.1]), z_goal=torch.tensor([-3.0, 1.0]))
    elsewhere = start(other)
    for noise in draws(spec, 20):
        elsewhere = planner.step(drift(), other, elsewhere, noise)
    assert (elsewhere.actions.sum(0) - state.actions.sum(0)).norm() > 5.0  # the control


@pytest.mark.parametrize(("planner", "spec"), [(cem, CEM), (icem, ICEM), (mppi, MPPI)])
def test_with_few_valid_candidates_statistics_are_over_those(planner, spec) -> None:
    problem, (noise,) = problem_of(spec, temperature=torch.tensor([0.1])), draws(spec, 1)
    noise[1:] = torch.nan
    first = start(problem).following(kept=torch.full((spec.kept, 3, 2), torch.nan))
    state = planner.step(drift(), problem, first, noise)
    assert state.invalid == 63
    torch.testing.assert_close(state.mean, noise[0])  # the only one
    assert state.std.isfinite().all()
    assert (state.std > 0).all()
    noise[0] = torch.nan
    none = planner.step(drift(), problem, first, noise)
    torch.testing.assert_close(none.mean, first.mean)
    torch.testing.assert_close(none.std, first.std)
    assert (none.costs == INVALID_COST).all()
    assert none.cost < INVALID_COST  # the incumbent is valid
