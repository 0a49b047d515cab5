"""Latency and parity of a loaded engine: what is counted, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.runtime.bundle_factory import make_golden, make_manifest
from helpers.runtime.fake_builder import FakePlanBackend
from helpers.runtime.live_planner import PLANNER, golden_problem, planner_graph

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError
from jetsight.tensorrt.builder import verify
from jetsight.testing import FakeClock

MS = 1_000_000


def timed(durations_ms: list[float], tmp_path: Path) -> Any:
    """Latency of an engine whose runs take these times, the last one for ever."""
    clock, left = FakeClock(), list(durations_ms)

    def run() -> None:
        clock.advance(int((left.pop(0) if len(left) > 1 else left[0]) * MS))

    golden = make_golden(make_manifest())
    engine = FakePlanBackend(golden, on_run=run).load_plan(b"")
    engine.inputs["frame_hwc_u8"].write(golden["frame_hwc_u8"][0])
    return verify.latency(engine, clock, tmp_path)


def test_warm_up_is_excluded_and_nothing_else(tmp_path) -> None:
    found = timed([20.0] * 10 + [5.0] * 40 + [1.0] * 490 + [9.0] * 9 + [50.0], tmp_path)
    assert (found.warm_up, found.runs) == (50, 500)
    assert found.p50_ms == pytest.approx(1.0, rel=0.003)
    assert found.p90_ms == pytest.approx(1.0, rel=0.003)
    assert found.p99_ms == pytest.approx(9.0, rel=0.003)
    assert found.max_ms == 50.0


def test_a_slow_engine_gets_fewer_runs_but_enough(tmp_path) -> None:
    found = timed([2000.0], tmp_path)
    assert (found.warm_up, found.runs) == (1, 20)
    assert timed([100.0], tmp_path).runs == 100


def test_clocks_are_recorded(tmp_path) -> None:
    folder = tmp_path / "sys/class/devfreq/17000000.gpu"
    folder.mkdir(parents=True)
    for name, hertz in (("cur", 918_000_000), ("min", 306_000_000), ("max", 918_000_000)):
        (folder / f"{name}_freq").write_text(f"{hertz}\n")
    (rate,) = timed([1.0], tmp_path).clocks.gpu
    assert (rate.current_hz, rate.max_hz) == (918_000_000, 918_000_000)


def test_parity_names_the_worst_sample() -> None:
    golden = make_golden(make_manifest(), samples=3)
    engine = FakePlanBackend(golden).load_plan(b"")
    found = verify.parity(engine, golden, "encode", "fp16", "x")
    assert (found.samples, found.limit) == (3, 0.999)
    assert found.smallest_cosine == pytest.approx(1.0)
    spoiled = FakePlanBackend(golden, spoil=1.0).load_plan(b"")
    with pytest.raises(EngineError, match=r"^x: does not agree with PyTorch, cosine 0\."):
        verify.parity(spoiled, golden, "encode", "fp16", "x")


def test_another_signature_is_refused() -> None:
    golden = make_golden(make_manifest())
    engine = FakePlanBackend(golden, output="z_future").load_plan(b"")
    with pytest.raises(EngineError, match=r"are not those of graph 'encode'"):
        verify.parity(engine, golden, "encode", "fp16", "x")


def test_a_planner_is_proven_by_how_it_ranks() -> None:
    graph, golden = PLANNER.graph, golden_problem(PLANNER)
    engine, turned = (OnnxRuntimeBackend(threads=1).load(planner_graph(s)) for s in (1.0, -1.0))
    assert verify.can_compare(golden, graph)
    assert not verify.can_compare({}, graph)  # planners may come without reference data
    assert verify.can_compare({}, "encode")
    found = verify.parity(engine, golden, graph, "fp16", "x")
    assert (found.samples, found.limit) == (1, 0.99)
    assert found.smallest_cosine == pytest.approx(1.0)
    with pytest.raises(EngineError, match=r"^x: does not rank plans like PyTorch, .* -1\.0"):
        verify.parity(turned, golden, graph, "int8", "x")
    del golden[f"{graph}__z_goal"]
    with pytest.raises(EngineError, match="are not those of graph 'imagine_cem_16x2'"):
        verify.parity(engine, golden, graph, "fp16", "x")
