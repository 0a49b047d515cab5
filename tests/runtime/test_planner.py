"""The planner on fakes: what it finds, when it stops, and what it hands back."""

from __future__ import annotations

import numpy as np
import pytest
from planner_factory import HERE, KINDS, Rig, latent

from jetsight.plan import PlanReason


@pytest.mark.parametrize("kind", KINDS)
def test_plan_leads_where_it_shall(kind: str) -> None:
    """The sum of what the first action number does is the way from here to the goal."""
    plan = Rig(KINDS[kind]).session.imagine(latent(HERE + 10))
    assert (plan.valid, plan.reason, plan.planner) == (True, PlanReason.OK, KINDS[kind].graph)
    assert plan.actions is not None
    assert plan.z_future is not None
    assert plan.actions.shape == (10, 2)
    assert plan.actions[:, 0].sum() == pytest.approx(10, abs=1.5)
    np.testing.assert_allclose(plan.z_future[-1], HERE + plan.actions[:, 0].sum(), rtol=1e-5)
    assert plan.costs.tolist() == sorted(plan.costs, reverse=True)
    assert len(plan.costs) == len(plan.spread) == plan.iterations
    assert plan.cost == plan.costs[-1] < plan.costs[0]
