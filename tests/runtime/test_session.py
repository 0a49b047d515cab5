"""The loop on a fake clock, with every fault it must survive.

The fake world of `FakeBackend`: the latent is the picture's brightness, and a unit of action makes
it one brighter per tick. `_world` films exactly that, so an honest forecast has no surprise.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jetsight.errors import CameraError, EngineError
from jetsight.frames import Forecast, Mode, Reason
from jetsight.session import Session
from jetsight.testing import (
    FakeBackend,
    FakeClock,
    ScriptedCamera,
    Shot,
    lost,
    shots,
    tiny_spec,
)

SPEC = tiny_spec()
B, K = SPEC.action_block, SPEC.history
SPAN = SPEC.span_ticks  # 10 ticks of history


def _session(
    script: dict[str, dict[str, Any]] | None = None, clock: FakeClock | None = None, **spec: Any
) -> tuple[Session, FakeBackend, FakeClock]:
    facts, clock = tiny_spec(**spec), clock or FakeClock()
    backend = FakeBackend(facts, script)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    return Session(facts, *engines, clock=clock), backend, clock


def _run(script: list[Shot], engines: dict[str, dict[str, Any]] | None = None) -> list[Forecast]:
    session, _, clock = _session(engines)
    camera = ScriptedCamera(SPEC, script, clock)
    published = [forecast.copy() for forecast in session.stream(camera)]
    assert camera.closed
    return published


def _world(
    count: int, *, told: bool = True, change_at: int | None = None, deviate_at: int = 10**9
) -> list[Shot]:
    """A robot that brightens its world by 0 or 1 per tick, as planned, until `deviate_at`.

    From there on it does the opposite of its plan. `change_at` plants a change of scene.
    """
    rng = random.Random(3)
    plan = [float(rng.random() < 0.5) for _ in range(count + SPEC.plan_ticks)]
    brightness, script = 50.0, []
    done = 0.0
    for t in range(count):
        brightness += done + (60 if t == change_at else 0)
        upcoming = np.array([[p, 0.0] for p in plan[t : t + SPEC.plan_ticks]], np.float32)
        image = np.full((8, 8, 3), round(brightness), np.uint8)
        action = np.array([done, 0.0], np.float32)
        script.append(Shot(image, action if told else None, upcoming if told else None))
        done = plan[t] if t < deviate_at else 1.0 - plan[t]
    return script


def _drop(script: list[Shot], seed: int, share: float) -> tuple[list[Shot], set[int]]:
    """`script` with a seeded share of its frames lost (their actions are not), and what is left."""
    rng = random.Random(seed)
    kept = {t for t in range(len(script)) if rng.random() >= share}
    thinned = [
        shot if t in kept else Shot(lost=True, action=shot.action) for t, shot in enumerate(script)
    ]
    return thinned, kept


def test_every_forecast_carries_its_evidence() -> None:
    latency = {"encode": {"latency_ns": 3_000_000}, "forecast": {"latency_ns": 2_000_000}}
    clock = FakeClock()
    for engine in latency.values():
        engine["clock"] = clock
    session, _, _ = _session(latency, clock)
    script = shots(20, age_periods=0.1)
    *_, last = session.stream(ScriptedCamera(SPEC, script, clock))
    assert (last.frame_index, last.tick, last.drops) == (19, 19, 0)
    assert (last.encode_ms, last.overhead_ms) == (3.0, 0.0)
    assert last.forecast_ms == 2.0
    assert last.age_ms == pytest.approx(15.0)
    assert last.captured_ns == 1_000_000_000 + 19 * SPEC.period_ns - 10_000_000
    assert (last.valid, last.reason, last.mode) == (True, Reason.OK, Mode.OK)


def test_forecast_is_invalid_until_history_is_full() -> None:
    published = _run(shots(SPAN + 3))
    assert [f.valid for f in published] == [False] * SPAN + [True] * 3
    assert {f.reason for f in published[:SPAN]} == {Reason.WARMING_UP}
    assert all(f.z_future is None for f in published[:SPAN])
    assert Forecast().valid is False


def test_forecast_looks_ahead_under_the_plan() -> None:
    published = _run(_world(40))
    for forecast in published[SPAN : 40 - SPEC.plan_ticks]:
        assert forecast.z_future is not None
        for step in range(SPEC.horizon):
            later = published[forecast.tick + (step + 1) * B]
            assert later.z is not None
            np.testing.assert_allclose(forecast.z_future[step], later.z)


@pytest.mark.parametrize("seed", range(5))
def test_ten_percent_drops_decide_exactly_which_ticks_are_valid(seed: int) -> None:
    script, kept = _drop(_world(150), seed, 0.1)
    published = [f for f in _run(script) if f.reason is not Reason.CAMERA_LOST]  # two in a row
    expected = {t for t in kept if t >= SPAN and {t - B, t - 2 * B} <= kept}
    assert 0.4 < len(expected) / 150 < 0.95  # the test would be empty at either end
    assert {f.tick for f in published} == kept
    assert {f.tick for f in published if f.valid} == expected
    wrong = [f for f in published if f.tick >= SPAN and not f.valid]
    assert {f.reason for f in wrong} == {Reason.HISTORY_GAP}
    assert published[-1].drops == max(kept) + 1 - len(kept)


@pytest.mark.parametrize("seed", range(5))
def test_surprise_survives_drops_because_actions_do(seed: int) -> None:
    script, kept = _drop(_world(150), seed, 0.1)
    first = min(kept)
    for forecast in _run(script):
        t = forecast.tick
        judged = {t - B, t - 2 * B, t - 3 * B} <= kept and t - 3 * B >= first
        assert (forecast.surprise is not None) == judged
        assert forecast.surprise is None or forecast.surprise < 1e-4


def test_surprise_is_about_the_world_and_not_about_a_change_of_plan() -> None:
    """The robot does the opposite of its plan from tick 30 on, and says so."""
    session, backend, clock = _session()
    camera = ScriptedCamera(SPEC, _world(60, deviate_at=30), clock)
    surprises = {f.tick: f.surprise for f in session.stream(camera)}
    assert all(s is not None and s < 1e-4 for t, s in surprises.items() if t >= SPAN + B)
    recomputed = backend.engines["forecast"].runs - (60 - SPAN)
    assert recomputed == 60 - 31  # once per tick whose last block holds an action of its own


def test_judging_by_the_plan_would_have_raised_an_alarm() -> None:
    """Negative control: the same film with the plan reported as executed is surprising."""
    planned = _world(60)
    filmed = _world(60, deviate_at=30)
    lie = [Shot(f.image_hwc_u8, p.action, p.plan) for f, p in zip(filmed, planned, strict=True)]
    worst = max(f.surprise or 0.0 for f in _run(lie) if f.tick > 31)
    assert worst > 1.0


def test_scene_change_is_surprising_for_one_block_and_nothing_else_is() -> None:
    published = _run(_world(60, change_at=40))
    assert [f.tick for f in published if f.surprising] == list(range(40, 40 + B))
    calm = _run(_world(60))  # negative control
    assert not any(f.surprising for f in calm)


def test_surprise_is_in_units_of_spread_and_scale() -> None:
    script = _world(60, change_at=40)
    session, _, clock = _session(latent_std=np.full(4, 2.0, np.float32), surprise_scale=3.0)
    surprises = [f.surprise for f in session.stream(ScriptedCamera(SPEC, script, clock))]
    assert surprises[40] == pytest.approx(60 / 2 / 3, rel=1e-3)


def test_unknown_actions_are_never_valid() -> None:
    published = _run(_world(40, told=False))
    assert {f.reason for f in published[SPAN:]} == {Reason.ACTIONS_UNKNOWN}
    assert not any(f.valid for f in published)
    assert all(f.surprise is None for f in published)
    assert all(f.z_future is not None for f in published[SPAN:])


def test_neutral_actions_are_assumed_when_unknown() -> None:
    session, _, clock = _session(neutral=np.array([2.0, 0.0], np.float32))
    *_, last = session.stream(ScriptedCamera(SPEC, _world(30, told=False), clock))
    assert last.z is not None
    assert last.z_future is not None
    np.testing.assert_allclose(last.z_future[0], last.z + 2.0 * B)


def test_unknown_plan_is_not_valid_but_still_judged() -> None:
    script = [Shot(s.image_hwc_u8, s.action, None) for s in _world(40)]
    published = _run(script)
    assert {f.reason for f in published[SPAN:]} == {Reason.PLAN_UNKNOWN}
    assert all(f.surprise is not None and f.surprise < 1e-4 for f in published[SPAN + B :])


def test_short_plan_goes_on_with_its_last_action() -> None:
    script = shots(20, plan=np.array([[0, 0], [3, 0]], np.float32))
    *_, last = _run(script)
    assert last.z is not None
    assert last.z_future is not None
    np.testing.assert_allclose(last.z_future[-1], last.z + 3.0 * (SPEC.plan_ticks - 1))


@pytest.mark.parametrize("graph", ["encode", "forecast"])
def test_nan_is_never_published_and_the_next_frame_recovers(graph: str) -> None:
    at = 20 if graph == "encode" else 20 - SPAN
    published = _run(_world(60), {graph: {"nan_at": [at]}})
    for forecast in published:
        for array in (forecast.z, forecast.z_future):
            assert array is None or np.isfinite(array).all()
        assert forecast.surprise is None or np.isfinite(forecast.surprise)
    bad, after = published[20], published[21]
    expected = Reason.LATENT_NOT_FINITE if graph == "encode" else Reason.FORECAST_NOT_FINITE
    assert (bad.valid, bad.reason) == (False, expected)
    assert (after.valid, after.reason) == (True, Reason.OK)


def test_broken_latent_enters_no_history() -> None:
    published = _run(_world(60), {"encode": {"nan_at": [20]}})
    invalid = [f.tick for f in published[SPAN:] if not f.valid]
    assert invalid == [20, 20 + B, 20 + 2 * B]  # its own tick, and the histories it is missing in


def test_ten_broken_latents_are_a_fault_that_heals() -> None:
    published = _run(shots(80), {"encode": {"nan_at": range(20, 30)}})
    assert published[28].mode is Mode.OK
    assert published[29].mode is Mode.FAULT
    assert published[79].valid


def test_engine_failure_costs_one_frame_and_three_end_the_stream() -> None:
    published = _run(shots(40), {"encode": {"fail_at": [20, 22]}})
    failed = [f.tick for f in published if f.reason is Reason.ENGINE_FAILED]
    assert failed == [20, 22]
    with pytest.raises(EngineError, match="scripted failure of run 22"):
        _run(shots(40), {"encode": {"fail_at": [20, 21, 22]}})


def test_lost_camera_is_published_with_its_true_age_and_recovers() -> None:
    published = _run(shots(50) + lost(40) + shots(50))
    stalled = [f for f in published if f.reason is Reason.CAMERA_LOST]
    assert [round(f.age_ms) for f in stalled] == list(range(300, 4100, 100))
    modes = [f.mode for f in stalled]
    assert modes == [Mode.DEGRADED] * 3 + [Mode.HOLD] * 5 + [Mode.FAULT] * 30
    back = published[published.index(stalled[-1]) + 1 :]
    assert [f.valid for f in back] == [False] * 10 + [True] * 40
    assert not any(f.valid for f in stalled)


def test_short_stall_is_not_reported() -> None:
    """Negative control: two periods are within tolerance."""
    published = _run(shots(30) + lost(1) + shots(30))
    assert Reason.CAMERA_LOST not in {f.reason for f in published}


def test_camera_that_never_starts_is_lost_from_the_beginning() -> None:
    published = _run(lost(20))
    assert {f.reason for f in published} == {Reason.CAMERA_LOST}
    assert published[-1].mode is Mode.FAULT
    assert published[-1].frame_index == -1


def test_stale_frame_is_not_valid() -> None:
    published = _run(shots(20) + shots(1, age_periods=2.5) + shots(20))
    assert (published[20].valid, published[20].reason) == (False, Reason.FRAME_STALE)
    assert published[20].mode is Mode.DEGRADED
    assert published[21].valid


def test_slow_engine_uses_the_newest_frame_and_counts_the_rest() -> None:
    clock = FakeClock()
    slow = {"encode": {"clock": clock, "latency_ns": round(1.3 * SPEC.period_ns)}}
    session, _, _ = _session(slow, clock)
    published = list(session.stream(ScriptedCamera(SPEC, shots(300), clock)))
    gaps = {b.tick - a.tick for a, b in itertools.pairwise(published)}
    assert gaps == {1, 2}
    assert published[-1].drops == published[-1].frame_index + 1 - len(published)
    assert published[-1].mode is Mode.DEGRADED  # 23 % of the frames are lost
    assert session.health.reason is Reason.OVERLOADED


def _bad_frames() -> dict[str, np.ndarray]:
    return {
        "size": np.ones((16, 16, 3), np.uint8),
        "type": np.ones((8, 8, 3), np.float32),
        "grey": np.ones((8, 8), np.uint8),
        "black": np.zeros((8, 8, 3), np.uint8),
    }


@pytest.mark.parametrize("bad", _bad_frames().values(), ids=_bad_frames())
def test_frame_the_model_cannot_take_never_reaches_the_encoder(bad: np.ndarray) -> None:
    session, backend, clock = _session()
    camera = ScriptedCamera(SPEC, shots(30) + shots(8, image_hwc_u8=bad) + shots(30), clock)
    published = list(session.stream(camera))
    assert camera.rejected == 8
    assert backend.engines["encode"].runs == 60
    assert Reason.FRAMES_REJECTED in {f.reason for f in published}
    assert published[-1].drops == 8
    assert published[-1].valid


def test_time_stamps_that_go_back_are_dropped_and_capture_times_increase() -> None:
    late = shots(1, tick_offset=-5)
    published = _run(shots(20) + late + shots(5) + late + shots(20))
    ticks = [f.tick for f in published]
    assert ticks == sorted(set(ticks))
    assert {20, 26}.isdisjoint(ticks)
    assert published[-1].drops == 2
    stamps = [f.captured_ns for f in published]
    assert stamps == sorted(set(stamps))


def test_time_line_set_back_for_good_is_followed_after_a_second() -> None:
    published = _run(shots(60, tick_offset=1000) + shots(60))
    assert published[59].tick == 1059
    assert published[-1].valid
    assert published[-1].drops == 9


def test_gap_clears_the_history_and_only_a_gap_does() -> None:
    for count, resets in ((4, 0), (5, 1)):
        session, _, clock = _session()
        script = shots(20) + lost(count) + shots(20)
        list(session.stream(ScriptedCamera(SPEC, script, clock)))
        assert session.summary()["resets"] == resets


def test_frozen_pixels_degrade_but_do_not_invalidate() -> None:
    session, _, clock = _session()
    camera = ScriptedCamera(SPEC, shots(30), clock, frozen=True)
    *_, last = session.stream(camera)
    assert (last.valid, last.mode) == (True, Mode.DEGRADED)
    assert session.health.reason is Reason.FROZEN


def test_published_arrays_are_locked_and_copies_are_yours() -> None:
    session, _, clock = _session()
    kept = []
    for forecast in session.stream(ScriptedCamera(SPEC, _world(30), clock)):
        kept.append(forecast.copy())
        assert forecast.z is not None
        with pytest.raises(ValueError, match="read-only"):
            forecast.z[0] = 0
    first, last = kept[0].z, kept[-1].z
    assert first is not None
    assert last is not None
    assert first[0] < last[0]


def test_stream_stops_at_the_asked_number_of_frames() -> None:
    session, _, clock = _session()
    camera = ScriptedCamera(SPEC, shots(50), clock)
    assert len(list(session.stream(camera, frames=7))) == 7
    assert camera.closed


def test_leaving_the_loop_closes_the_camera() -> None:
    session, _, clock = _session()
    camera = ScriptedCamera(SPEC, shots(50), clock)
    stream = session.stream(camera)
    next(stream)
    stream.close()
    assert camera.closed


def test_second_stream_starts_from_nothing() -> None:
    session, _, clock = _session()
    for _ in range(2):
        published = list(session.stream(ScriptedCamera(SPEC, shots(30), clock)))
        assert [f.valid for f in published] == [False] * SPAN + [True] * 20
        assert session.summary()["frames"] == 30


def test_error_of_the_camera_comes_after_its_last_frame() -> None:
    class Broken(ScriptedCamera):
        def raise_for_error(self) -> None:
            raise CameraError("cut off")

    session, _, clock = _session()
    seen = []
    with pytest.raises(CameraError, match="cut off"):
        seen.extend(f.tick for f in session.stream(Broken(SPEC, shots(12), clock)))
    assert seen == list(range(12))
    camera = Broken(SPEC, shots(12), clock)
    assert len(list(session.stream(camera, frames=5))) == 5  # not asked for more


def test_closing_releases_both_engines() -> None:
    session, backend, _ = _session()
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


def test_every_reason_is_produced_by_some_test() -> None:
    """A reason nobody can provoke is one nobody can rely on."""
    with open(__file__, encoding="utf-8") as stream:
        text = stream.read()
    unprovoked = {Reason.NOT_COMPUTED, Reason.RECOVERING}  # defaults, and the test below
    named = {reason for reason in Reason if f"Reason.{reason.name}" in text}
    assert named >= set(Reason) - unprovoked


def test_recovering_is_said_while_the_history_is_full_but_trust_is_not() -> None:
    session, _, clock = _session(history=2, action_block=2)
    facts = session.spec
    camera = ScriptedCamera(facts, shots(20) + lost(8) + shots(20), clock)
    back = [f for f in session.stream(camera) if f.tick >= 28]
    assert [f.reason for f in back[2:9]] == [Reason.RECOVERING] * 7
    assert back[9].valid
