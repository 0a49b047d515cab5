"""Action dimensions that never varied in training: plans hold them, motion along them is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.planner_factory import HERE, KINDS, SPEC, Rig, latent

from jetsight.bundle.model_spec import ActionSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.errors import ArtefactError, UsageError
from jetsight.planning.limits import Limits
from jetsight.planning.plan import PlanReason
from jetsight.session import Session
from jetsight.stream.frames import Frame, Reason
from jetsight.testing import FakeBackend, FakeClock, shots, tiny_planner

AT = 3.0  # where the second number of an action is held
HELD = replace(
    SPEC,
    neutral=np.array([0.0, AT], np.float32),
    held_within=np.array([np.inf, 0.016], np.float32),
)
STILL = shots(20, action=np.array([0.0, AT], np.float32))


def rig(*planners: Any, frames: Any = None) -> Rig:
    return Rig(*planners, stream=HELD, frames=STILL if frames is None else frames)


@pytest.mark.parametrize("kind", KINDS)
def test_plans_move_along_the_trained_dimension_alone(kind: str) -> None:
    plan = rig(KINDS[kind]).session.imagine(latent(HERE + 10))
    assert plan.valid, plan.reason
    assert (plan.actions[:, 1] == AT).all()
    assert plan.actions[:, 0].sum() == pytest.approx(10, abs=1.5)


def test_without_the_mark_the_same_planner_moves_along_both() -> None:
    plan = Rig(frames=STILL).session.imagine(latent(HERE + 10))
    assert np.ptp(plan.actions[:, 1]) > 0.1


def test_held_dimensions_do_not_look_like_convergence() -> None:
    facts = tiny_planner(iterations=200)
    free, held = Rig(facts), rig(facts)
    spreads = [r.session.imagine(latent(HERE + 10)).spread for r in (free, held)]
    # Counted as converged, the held dimension would halve the spread from the first iteration on.
    assert spreads[1][0] > 0.75 * spreads[0][0]


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"low": [-1, 4]}, "low of 'y' is 4, which leaves out 3, where it never moved in training"),
        ({"high": [1, 2]}, "high of 'y' is 2, which leaves out 3"),
    ],
)
def test_limits_that_leave_the_held_value_out_are_refused(limits: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        rig().session.imagine(latent(HERE), limits=Limits(**limits))


def test_limits_around_the_held_value_are_narrowed_to_it() -> None:
    plan = rig().session.imagine(latent(HERE + 10), limits=Limits(low=[-1, 0], high=[1, 5]))
    assert (plan.actions[:, 1] == AT).all()


def test_a_robot_that_moved_along_a_held_dimension_gets_no_plan() -> None:
    moved = shots(20, action=np.array([0.0, AT + 1], np.float32))
    plan = rig(frames=moved).session.imagine(latent(HERE))
    assert (plan.valid, plan.reason) == (False, PlanReason.ACTION_UNTRAINED)


@pytest.mark.parametrize(("to", "reason"), [(AT, Reason.OK), (AT + 1, Reason.ACTION_UNTRAINED)])
def test_a_forecast_under_untrained_motion_is_not_valid(to: float, reason: Reason) -> None:
    clock, action = FakeClock(), np.array([[0.0, AT]], np.float32)
    backend = FakeBackend(HELD, {}, None)
    session = Session(HELD, backend.load(b"encode"), backend.load(b"forecast"), clock=clock)
    for tick in range(20):
        plan = np.array([[1.0, to]], np.float32)
        image = np.full((8, 8, 3), 100, np.uint8)
        clock.advance(100_000_000)
        frame = Frame(image, tick, tick, clock.now_ns(), action_since=action, plan=plan)
        forecast = session.step(frame)
    assert forecast is not None
    assert (forecast.reason, forecast.valid) == (reason, reason is Reason.OK)


def test_the_manifest_names_them() -> None:
    manifest = make_manifest()
    action = manifest.action
    marked = replace(manifest, action=replace(action, fixed=action.names[1:]))
    assert StreamSpec.from_manifest(manifest).held_within is None
    stream, plan = StreamSpec.from_manifest(marked), PlanSpec.from_manifest(marked)
    assert stream.held_within is not None
    assert np.isfinite(stream.held_within).tolist() == plan.held.tolist() == [False, True]
    low, high = marked.action.planned_range
    assert low[1] == high[1] == action.neutral[1]
    assert (low[0], high[0]) == (action.low[0], action.high[0])


@pytest.mark.parametrize(
    ("fixed", "says"),
    [(("z",), "fixed has 'z'"), (("x", "y"), "fixed has every"), (("x", "x"), "repeat themselves")],
)
def test_marks_that_cannot_be_are_refused(fixed: tuple[str, ...], says: str) -> None:
    two = (0.0, 0.0)
    with pytest.raises(ArtefactError, match=says):
        ActionSpec(
            ("x", "y"),
            ("", ""),
            (-1.0,) * 2,
            high=(1.0,) * 2,
            rate_limit_per_s=None,
            neutral=two,
            mean=two,
            std=(1.0,) * 2,
            fixed=fixed,
        )
