"""Skill, surprise and parity against numbers made by hand.

Shapes: F frames, H horizon, D latent size; the model is K=3, B=2, H=2, D=4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runtime.live_bundle import encode_graph, make_live_bundle

from jetsight.errors import DataError
from jetsight.testing import tiny_spec
from jetsight_compile.demo.metrics import engine_parity, horizon_errors, surprise_report
from jetsight_compile.demo.positions import Places, Probe, located_things
from jetsight_compile.demo.scenario import Piece, Replay, Scenario
from jetsight_compile.demo.watch import Watched

SPEC = tiny_spec(history=3, action_block=2, horizon=2, latent_size=4, surprise_limit=3.0)
SCENARIO = Scenario((Piece(0, 0, 20), Piece(1, 20, 40, announced=False)))
F = SCENARIO.frames
COLUMNS = ("index", "tick", "encode_ms", "forecast_ms", "age_ms", "surprise", "surprising", "valid")


def watched(**changes: Any) -> Watched:
    """A stream whose latents drift by 1 per frame in every dimension, and jump at the change."""
    z = np.repeat(np.arange(F, dtype=np.float32)[:, None], 4, axis=1)
    z[20:] += 100.0
    future = np.full((F, 2, 4), np.nan, np.float32)
    for row in range(4, F):  # perfect as long as the scene goes on
        future[row] = z[row] + np.array([2.0, 4.0], np.float32)[:, None]
    surprise = np.full(F, np.nan)
    surprise[6:] = 1.0
    surprise[20:22] = 9.0
    columns: dict[str, Any] = {
        "spec": SPEC,
        "replay": Replay(SCENARIO, {}, 10.0, (), "made by hand"),
        "index": np.arange(F),
        "tick": np.arange(F),
        "encode_ms": np.ones(F),
        "forecast_ms": np.ones(F),
        "age_ms": np.ones(F),
        "surprise": surprise,
        "surprising": surprise > 3.0,
        "valid": np.arange(F) >= 4,
        "z": z,
        "z_future": future,
        "summary": {"drops": 0},
    }
    return Watched(**{**columns, **changes})


def without_rows(stream: Watched, gone: list[int]) -> Watched:
    """The same stream with frames dropped."""
    kept = np.setdiff1d(np.arange(F), gone)
    columns = {name: getattr(stream, name)[kept] for name in (*COLUMNS, "z", "z_future")}
    return replace(stream, **columns, summary={"drops": len(gone)})


def test_a_perfect_forecast_has_skill_one_and_a_copy_none() -> None:
    assert horizon_errors(watched()).skill == pytest.approx([1.0, 1.0])
    copied = watched(z_future=np.repeat(watched().z[:, None], 2, axis=1))
    assert horizon_errors(copied).skill == pytest.approx([0.0, 0.0])


def test_half_the_way_has_the_skill_of_half_the_error() -> None:
    stream = watched()
    halfway = (stream.z_future + stream.z[:, None]) / 2
    assert horizon_errors(watched(z_future=halfway)).skill == pytest.approx([0.75, 0.75])


def test_forecasts_that_reach_across_the_change_are_not_judged() -> None:
    errors = horizon_errors(watched())
    judged = np.isfinite(errors.model)
    # History is t-4..t, so rows 4..17 see a frame 2 later in their scene, and 24..37 after it.
    assert np.flatnonzero(judged[:, 0]).tolist() == [*range(4, 18), *range(24, 38)]
    assert errors.counts == [28, 24]
    # Without the exclusion the jump would count: the same rows in one scene give another skill.
    one_scene = replace(watched().replay, scenario=Scenario((Piece(0, 0, F),)))
    assert horizon_errors(watched(replay=one_scene)).skill[0] < 0.5


def test_a_dropped_frame_costs_its_comparisons_only() -> None:
    errors = horizon_errors(without_rows(watched(), [10]))
    assert errors.skill == pytest.approx([1.0, 1.0])
    assert errors.counts == [25, 21]  # as a start, as an oldest latent, as a target


def test_a_stream_too_short_to_judge_is_refused() -> None:
    stream = without_rows(watched(), list(range(6, F)))
    with pytest.raises(DataError, match="34 frames were dropped"):
        horizon_errors(stream)


def control(peak: float = 1.2) -> Watched:
    """Frame i of the control is frame i of the first scene; the change would come at 20."""
    surprise = np.full(F, 1.0)
    surprise[21] = peak
    return watched(surprise=surprise, surprising=surprise > 3.0)


def test_the_planted_change_is_caught_and_its_control_is_not() -> None:
    report = surprise_report(watched(), control())
    assert (report.caught, report.flagged_frame, report.at_change) == (True, 20, 9.0)
    assert (report.control_flagged, report.control_at_change) == (False, 1.2)
    assert (report.normal_p99, report.false_alarms) == (1.0, 0)
    assert report.normal_frames == 14 + 14  # 6..19, and 26..39: three blocks after the change


def test_a_change_that_surprises_nobody_is_not_called_caught() -> None:
    flat = watched(surprise=np.full(F, 1.0), surprising=np.zeros(F, bool))
    report = surprise_report(flat, control())
    assert (report.caught, report.flagged_frame, report.at_change) == (False, None, 1.0)


def test_a_late_alarm_is_no_catch_but_a_false_one() -> None:
    surprise = np.full(F, 1.0)
    surprise[[10, 30]] = 9.0
    late = watched(surprise=surprise, surprising=surprise > 3.0)
    report = surprise_report(late, control())
    assert (report.caught, report.false_alarms) == (False, 2)


def test_a_control_that_is_flagged_is_reported() -> None:
    report = surprise_report(watched(), control(peak=8.0))
    assert report.control_flagged


def test_frames_dropped_at_the_change_leave_it_unjudged() -> None:
    report = surprise_report(without_rows(watched(), [20, 21]), control())
    assert (report.at_change, report.caught) == (None, False)


def test_parity_finds_a_backend_that_computes_something_else(tmp_path: Path) -> None:
    sound = engine_parity(make_live_bundle(tmp_path / "a"), "cpu-fp32")
    spoiled = make_live_bundle(
        tmp_path / "b", {"graphs/cpu-fp32/encode.onnx": encode_graph(scale=-1.0)}
    )
    assert sound
    for backend, graphs in sound.items():
        assert graphs["encode"]["cosine_min"] > 0.99999
        assert graphs["encode"]["control_cosine_max"] < graphs["encode"]["cosine_min"]
        assert engine_parity(spoiled, "cpu-fp32")[backend]["encode"]["cosine_min"] < -0.9


def test_a_probe_reads_what_is_there_and_not_what_is_not() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 4))
    states = np.stack([2 * z[:, 0] + 1, rng.standard_normal(300)], axis=1)
    found = Probe.fit(z[:200], states[:200]).read(z[200:])
    errors = np.abs(found - states[200:]).mean(axis=0)
    assert errors[0] < 0.02
    assert errors[1] > 0.5


def test_a_forecast_that_knows_no_more_is_not_called_better() -> None:
    assert Places("agent", [50.0, 50.0], [40.0, 100.0], [30.0, 30.0]).better
    assert not Places("block", [20.0, 74.0], [40.0, 73.0], [30.0, 30.0]).better


def test_things_are_found_by_their_names() -> None:
    assert located_things(["agent_x", "agent_y", "block_x", "angle"]) == {"agent": [0, 1]}
