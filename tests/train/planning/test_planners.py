"""The three planners against what was worked out by other means."""

from __future__ import annotations

import pytest
import torch
from helpers.train.drifting import asked, begun, drift, noises

from jetsight_train.planning import cem, icem, mppi
from jetsight_train.planning.problem import NEVER, ImagineSpec

CEM = ImagineSpec("cem", 64, 3, 8)
ICEM = ImagineSpec("icem", 64, 3, 8, kept=3, momentum=0.25)
MPPI = ImagineSpec("mppi", 64, 3)


def test_cem_is_the_textbook_one() -> None:
    """Candidates, the best E by cost, their mean and unbiased std: written out once more."""
    problem, mean, std = asked(CEM), torch.zeros(3, 2), torch.ones(3, 2)
    state, draws = begun(problem), noises(CEM, 5)
    for noise in draws:
        tried = mean + std * noise
        cost = (tried.sum(1) - problem.z_goal).square().sum(-1)
        best = tried[cost.topk(8, largest=False).indices]
        mean, std = best.mean(0), best.std(0)
        state = cem.step(drift(), problem, state, noise)
        torch.testing.assert_close(state.mean, mean)
        torch.testing.assert_close(state.std, std)
        torch.testing.assert_close(state.costs, cost)
    slow = icem.plan(drift(), asked(ICEM), begun(asked(ICEM)), draws)
    assert (slow.mean - mean).abs().max() > 1e-2  # the control: another planner


def test_icem_keeps_elites_and_some_of_what_it_had() -> None:
    problem, (noise,) = asked(ICEM), noises(ICEM, 1)
    kept = torch.tensor([[[1.0, -0.3]] * 3, [[1.0, -0.4]] * 3, [[9.0, 9.0]] * 3])
    state = icem.step(drift(), problem, begun(problem).following(kept=kept), noise)
    tried = torch.cat([noise[:61], kept])
    best = tried[(tried.sum(1) - problem.z_goal).square().sum(-1).argsort()]
    torch.testing.assert_close(state.kept, best[:3])
    assert any(torch.equal(each, kept[0]) for each in state.kept)
    torch.testing.assert_close(state.mean, 0.75 * best[:8].mean(0))
    torch.testing.assert_close(state.std, 0.25 + 0.75 * best[:8].std(0))
    assert not any(torch.equal(each, kept[2]) for each in state.kept)  # the control: a bad one


def test_mppi_weighs_every_candidate_by_its_cost() -> None:
    problem, (noise,) = asked(MPPI, temperature=torch.tensor([2.0])), noises(MPPI, 1)
    state = mppi.step(drift(), problem, begun(problem), noise)
    cost = (noise.sum(1) - problem.z_goal).square().sum(-1)
    weight = torch.exp(-cost / 2.0) / torch.exp(-cost / 2.0).sum()
    mean = torch.einsum("n,nha->ha", weight, noise)
    torch.testing.assert_close(state.mean, mean)
    variance = torch.einsum("n,nha->ha", weight, (noise - mean) ** 2)
    torch.testing.assert_close(state.std, variance.sqrt())
    cold = mppi.step(drift(), asked(MPPI, temperature=torch.tensor([1e-4])), begun(problem), noise)
    torch.testing.assert_close(cold.mean, noise[cost.argmin()])  # the control: only the best
    torch.testing.assert_close(cold.std[0], mppi.STD_FLOOR * drift().action_std)


@pytest.mark.parametrize(("planner", "spec"), [(cem, CEM), (icem, ICEM), (mppi, MPPI)])
def test_a_plan_reaches_its_goal_and_never_gets_worse(planner, spec) -> None:
    problem = asked(spec, temperature=torch.tensor([0.1]))
    state, costs = begun(problem), []
    for noise in noises(spec, 20):
        state = planner.step(drift(), problem, state, noise)
        costs.append(float(state.cost))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 1e-2 < 1.0 < costs[0] + 1.0
    torch.testing.assert_close(state.z_future[-1], state.actions.sum(0))
    other = asked(spec, temperature=torch.tensor([0.1]), z_goal=torch.tensor([-3.0, 1.0]))
    elsewhere = planner.plan(drift(), other, begun(other), noises(spec, 20))
    assert (elsewhere.actions.sum(0) - state.actions.sum(0)).norm() > 5.0  # the control


@pytest.mark.parametrize(("planner", "spec"), [(cem, CEM), (icem, ICEM), (mppi, MPPI)])
def test_with_few_valid_candidates_statistics_are_over_those(planner, spec) -> None:
    problem, (noise,) = asked(spec, temperature=torch.tensor([0.1])), noises(spec, 1)
    noise[1:] = torch.nan
    first = begun(problem).following(kept=torch.full((spec.kept, 3, 2), torch.nan))
    state = planner.step(drift(), problem, first, noise)
    assert state.invalid == 63
    torch.testing.assert_close(state.mean, noise[0])  # the only one
    assert state.std.isfinite().all()
    assert (state.std > 0).all()
    noise[0] = torch.nan
    none = planner.step(drift(), problem, first, noise)
    torch.testing.assert_close(none.mean, first.mean)
    torch.testing.assert_close(none.std, first.std)
    assert (none.costs == NEVER).all()
    assert none.cost < NEVER  # the incumbent is valid


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("cem", 0, 1, 2), "at least 1"),
        (("cem", 8, 1, 1), "elites must be 2 to 8"),
        (("cem", 8, 1, 9), "elites must be 2 to 8"),
        (("cem", 8, 1, 4, 2), "cem cannot keep 2 of 4"),
        (("icem", 8, 1, 4, 5), "icem cannot keep 5 of 4"),
        (("icem", 8, 1, 4, 0, 1.0), "momentum"),
        (("cem", 8, 1, 4, 0, 0.5), "momentum"),
    ],
)
def test_settings_that_describe_no_planner_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        ImagineSpec(*settings)
    assert ImagineSpec("icem", 8, 1, 4, 2, 0.5).graph == "imagine_icem_8x1"
