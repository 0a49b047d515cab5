"""The loop on a fake clock: evidence, history, surprise, plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.runtime.scripted_world import SPAN, SPEC, B, drop, open_session, run, world

from jetsight.errors import CameraError, EngineError
from jetsight.session import Session
from jetsight.stream.frames import Forecast, Mode, Reason
from jetsight.testing import FakeBackend, FakeClock, ScriptedCamera, Shot, shots, tiny_spec


def test_every_forecast_carries_its_evidence() -> None:
    latency = {"encode": {"latency_ns": 3_000_000}, "forecast": {"latency_ns": 2_000_000}}
    clock = FakeClock()
    for engine in latency.values():
        engine["clock"] = clock
    session, _, _ = open_session(latency, clock)
    script = shots(20, age_periods=0.1)
    *_, last = session.stream(ScriptedCamera(SPEC, script, clock))
    assert (last.frame_index, last.tick, last.drops) == (19, 19, 0)
    assert (last.encode_ms, last.overhead_ms) == (3.0, 0.0)
    assert last.forecast_ms == 2.0
    assert last.age_ms == pytest.approx(15.0)
    assert last.captured_ns == 1_000_000_000 + 19 * SPEC.period_ns - 10_000_000
    assert (last.valid, last.reason, last.mode) == (True, Reason.OK, Mode.OK)


def test_forecast_is_invalid_until_history_is_full() -> None:
    published = run(shots(SPAN + 3))
    assert [f.valid for f in published] == [False] * SPAN + [True] * 3
    assert {f.reason for f in published[:SPAN]} == {Reason.WARMING_UP}
    assert all(f.z_future is None for f in published[:SPAN])
    assert Forecast().valid is False


def test_forecast_looks_ahead_under_the_plan() -> None:
    published = run(world(40))
    for forecast in published[SPAN : 40 - SPEC.plan_ticks]:
        assert forecast.z_future is not None
        for step in range(SPEC.horizon):
            later = published[forecast.tick + (step + 1) * B]
            assert later.z is not None
            np.testing.assert_allclose(forecast.z_future[step], later.z)


@pytest.mark.parametrize("seed", range(5))
def test_ten_percent_drops_decide_exactly_which_ticks_are_valid(seed: int) -> None:
    script, kept = drop(world(150), seed, 0.1)
    published = [f for f in run(script) if f.reason is not Reason.CAMERA_LOST]  # two in a row
    expected = {t for t in kept if t >= SPAN and {t - B, t - 2 * B} <= kept}
    assert 0.4 < len(expected) / 150 < 0.95  # the test would be empty at either end
    assert {f.tick for f in published} == kept
    assert {f.tick for f in published if f.valid} == expected
    wrong = [f for f in published if f.tick >= SPAN and not f.valid]
    assert {f.reason for f in wrong} == {Reason.HISTORY_GAP}
    assert published[-1].drops == max(kept) + 1 - len(kept)


@pytest.mark.parametrize("seed", range(5))
def test_surprise_survives_drops_because_actions_do(seed: int) -> None:
    script, kept = drop(world(150), seed, 0.1)
    first = min(kept)
    for forecast in run(script):
        t = forecast.tick
        judged = {t - B, t - 2 * B, t - 3 * B} <= kept and t - 3 * B >= first
        assert (forecast.surprise is not None) == judged
        assert forecast.surprise is None or forecast.surprise < 1e-4


def test_surprise_is_about_the_world_and_not_about_a_change_of_plan() -> None:
    """The robot does the opposite of its plan from tick 30 on, and says so."""
    session, backend, clock = open_session()
    camera = ScriptedCamera(SPEC, world(60, deviate_at=30), clock)
    surprises = {f.tick: f.surprise for f in session.stream(camera)}
    assert all(s is not None and s < 1e-4 for t, s in surprises.items() if t >= SPAN + B)
    recomputed = backend.engines["forecast"].runs - (60 - SPAN)
    assert recomputed == 60 - 31  # once per tick whose last block holds an action of its own


def test_judging_by_the_plan_would_have_raised_an_alarm() -> None:
    """Negative control: the same film with the plan reported as executed is surprising."""
    planned = world(60)
    filmed = world(60, deviate_at=30)
    lie = [Shot(f.image_hwc_u8, p.action, p.plan) for f, p in zip(filmed, planned, strict=True)]
    worst = max(f.surprise or 0.0 for f in run(lie) if f.tick > 31)
    assert worst > 1.0


def test_scene_change_is_surprising_for_one_block_and_nothing_else_is() -> None:
    published = run(world(60, change_at=40))
    assert [f.tick for f in published if f.surprising] == list(range(40, 40 + B))
    calm = run(world(60))  # negative control
    assert not any(f.surprising for f in calm)


def test_surprise_is_in_units_of_spread_and_scale() -> None:
    script = world(60, change_at=40)
    session, _, clock = open_session(latent_std=np.full(4, 2.0, np.float32), surprise_scale=3.0)
    surprises = [f.surprise for f in session.stream(ScriptedCamera(SPEC, script, clock))]
    assert surprises[40] == pytest.approx(60 / 2 / 3, rel=1e-3)


def run_silent(actions: Any = None, script: list[Shot] | None = None) -> list[Forecast]:
    """Everything published for a camera that reports no actions."""
    session, _, clock = open_session()
    camera = ScriptedCamera(SPEC, script or world(40, told=False), clock)
    return [each.copy() for each in session.stream(camera, actions=actions)]


def test_without_actions_the_neutral_one_is_assumed_and_every_forecast_says_so() -> None:
    still = shots(40, action=None, plan=None)
    for actions in (None, "neutral"):
        published = run_silent(actions, still)
        assert {f.reason for f in published[SPAN:]} == {Reason.OK}
        assert {f.assumed for f in published} == {"neutral"}
        assert all(f.surprise is not None and f.surprise < 2 for f in published[SPAN + B :])
    moved = run_silent()  # the control: a robot that moves is no surprise only if it says so
    assert max(f.surprise or 0.0 for f in moved) > 2
    assert {f.assumed for f in run(world(40))} == {None}


def test_an_assumption_ends_with_the_first_reported_action() -> None:
    script = [*shots(20, action=None, plan=None), *shots(10), *shots(20, action=None, plan=None)]
    published = run_silent(None, script)
    assert {f.assumed for f in published[:20]} == {"neutral"}
    assert {f.assumed for f in published[20:]} == {None}
    assert published[-1].reason is Reason.ACTIONS_UNKNOWN, "a robot that acts is never assumed"


def test_declared_unknown_actions_are_never_valid() -> None:
    published = run_silent("unknown")
    assert {f.reason for f in published[SPAN:]} == {Reason.ACTIONS_UNKNOWN}
    assert not any(f.valid for f in published)
    assert all(f.surprise is None for f in published)
    assert all(f.z_future is not None for f in published[SPAN:])


def test_neutral_actions_are_assumed_when_unknown() -> None:
    session, _, clock = open_session(neutral=np.array([2.0, 0.0], np.float32))
    *_, last = session.stream(ScriptedCamera(SPEC, world(30, told=False), clock))
    assert last.z is not None
    assert last.z_future is not None
    np.testing.assert_allclose(last.z_future[0], last.z + 2.0 * B)


def test_unknown_plan_is_not_valid_but_still_judged() -> None:
    script = [Shot(s.image_hwc_u8, s.action, None) for s in world(40)]
    published = run(script)
    assert {f.reason for f in published[SPAN:]} == {Reason.PLAN_UNKNOWN}
    assert all(f.surprise is not None and f.surprise < 1e-4 for f in published[SPAN + B :])


def test_short_plan_goes_on_with_its_last_action() -> None:
    script = shots(20, plan=np.array([[0, 0], [3, 0]], np.float32))
    *_, last = run(script)
    assert last.z is not None
    assert last.z_future is not None
    np.testing.assert_allclose(last.z_future[-1], last.z + 3.0 * (SPEC.plan_ticks - 1))


def test_published_arrays_are_locked_and_copies_are_yours() -> None:
    session, _, clock = open_session()
    kept = []
    for forecast in session.stream(ScriptedCamera(SPEC, world(30), clock)):
        kept.append(forecast.copy())
        assert forecast.z is not None
        with pytest.raises(ValueError, match="read-only"):
            forecast.z[0] = 0
    first, last = kept[0].z, kept[-1].z
    assert first is not None
    assert last is not None
    assert first[0] < last[0]


def test_stream_stops_at_the_asked_number_of_frames() -> None:
    session, _, clock = open_session()
    camera = ScriptedCamera(SPEC, shots(50), clock)
    assert len(list(session.stream(camera, frames=7))) == 7
    assert camera.closed


def test_leaving_the_loop_closes_the_camera() -> None:
    session, _, clock = open_session()
    camera = ScriptedCamera(SPEC, shots(50), clock)
    stream = session.stream(camera)
    next(stream)
    stream.close()
    assert camera.closed


def test_second_stream_starts_from_nothing() -> None:
    session, _, clock = open_session()
    for _ in range(2):
        published = list(session.stream(ScriptedCamera(SPEC, shots(30), clock)))
        assert [f.valid for f in published] == [False] * SPAN + [True] * 20
        assert session.summary()["frames"] == 30


def test_error_of_the_camera_comes_after_its_last_frame() -> None:
    class Broken(ScriptedCamera):
        def raise_for_error(self) -> None:
            raise CameraError("cut off")

    session, _, clock = open_session()
    seen = []
    with pytest.raises(CameraError, match="cut off"):
        seen.extend(f.tick for f in session.stream(Broken(SPEC, shots(12), clock)))
    assert seen == list(range(12))
    camera = Broken(SPEC, shots(12), clock)
    assert len(list(session.stream(camera, frames=5))) == 5  # no more were requested


def test_closing_releases_both_engines() -> None:
    session, backend, _ = open_session()
    with session:
        pass
    assert all(engine.closed for engine in backend.engines.values())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda backend: backend.engines["encode"].outputs.pop("z"),
        lambda backend: backend.engines["forecast"].inputs.pop("a_hist"),
        lambda backend: backend.engines["forecast"].outputs.update(
            z_future=backend.engines["encode"].outputs["z"]
        ),
    ],
)
def test_engines_that_do_not_fit_the_manifest_are_refused(
    spoil: Callable[[FakeBackend], object],
) -> None:
    backend = FakeBackend(SPEC)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    spoil(backend)
    with pytest.raises(EngineError, match="but the manifest says"):
        Session(SPEC, *engines)


def test_model_without_past_needs_no_action_history() -> None:
    spec = tiny_spec(history=1)
    backend, clock = FakeBackend(spec), FakeClock()
    engines = backend.load(b"encode"), backend.load(b"forecast")
    backend.engines["forecast"].inputs.pop("a_hist")
    session = Session(spec, *engines, clock=clock)
    assert all(f.valid for f in session.stream(ScriptedCamera(spec, shots(10), clock)))
