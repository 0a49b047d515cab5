"""The benchmark's arithmetic on a clock that only contestants move. Times in ms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.runtime.live_bundle import HEIGHT, WIDTH, D, encode_graph, make_live_bundle
from onnx import TensorProto, helper

from jetsight.errors import EngineError
from jetsight.testing import FakeClock
from jetsight.testing.overhead import Overhead
from jetsight_compile.bench import contestants, process, report
from jetsight_compile.bench.contestants import EAGER
from jetsight_compile.bench.requirements import (
    BenchRow,
    encode_rows,
    import_rows,
    memory_rows,
    overhead_rows,
)
from jetsight_compile.bench.run import peak_rates
from jetsight_compile.bench.timing import CallTimes, Contestant, race
from jetsight_compile.export.onnx_graph import graph_flop
from jetsight_compile.pipeline.environment import cpu_features, machine_spec

MS = 1_000_000


class Runner:
    """A contestant that takes as long as it says, and remembers when it was called."""

    def __init__(self, clock: FakeClock, log: list[str], name: str, takes: Callable[[int], float]):
        self.clock, self.log, self.name, self.takes = clock, log, name, takes
        self.calls, self.closed = 0, False

    def contestant(self) -> Contestant:
        return Contestant(self.name, self.prepare, self.close)

    def prepare(self) -> Callable[[int], object]:
        self.clock.advance(70 * MS)
        return self.call

    def call(self, number: int) -> None:
        self.clock.advance(round(self.takes(self.calls) * MS))
        self.calls += 1
        self.log.append(self.name)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_ratios_are_those_of_the_medians(clock: FakeClock) -> None:
    slow = Runner(clock, [], EAGER, lambda call: 1000.0 if call == 0 else 40.0)
    fast = Runner(clock, [], "openvino cpu-fp32", lambda call: 16.0)
    timings = race([slow.contestant(), fast.contestant()], clock, rounds=4)
    (row,) = encode_rows("lewm", timings)
    assert row.value == pytest.approx(2.5, rel=0.01)
    assert (row.bar, row.verdict) == (1.5, "met")
    assert slow.closed
    assert fast.closed


def test_the_first_call_is_shown_and_counted_nowhere(clock: FakeClock) -> None:
    runner = Runner(clock, [], "a", lambda call: 1000.0 if call == 0 else 5.0)
    timing = race([runner.contestant()], clock, rounds=3)["a"]
    assert (timing.prepare_ms, timing.first_ms) == (70.0, 1000.0)
    assert timing.calls_ms.summary() == {"p50": 5.0, "p99": 5.0, "max": 5.0}
    assert timing.calls_ms.count == 9


def test_nothing_after_the_warm_up_is_left_out(clock: FakeClock) -> None:
    runner = Runner(clock, [], "a", lambda call: 500.0 if call == 6 else 5.0)
    timing = race([runner.contestant()], clock, rounds=3, warmup=3)["a"]
    assert timing.calls_ms.max == 500.0  # call 6 is the second timed one of the first turn


def test_contestants_take_turns_and_none_is_always_first(clock: FakeClock) -> None:
    log: list[str] = []
    runners = [Runner(clock, log, name, lambda call: 1.0) for name in "abc"]
    race([r.contestant() for r in runners], clock, rounds=3, calls=1, warmup=0)
    turns = [name for name, before in zip(log[3:], log[2:], strict=False) if name != before]
    assert turns == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_race_ends_when_its_time_is_over(clock: FakeClock) -> None:
    slow = Runner(clock, [], "a", lambda call: 1000.0)
    timing = race([slow.contestant()], clock, rounds=40, budget_s=30.0)["a"]
    # 4 s per round and 4 more in rounds 0 and 4: after five rounds it is 28 s, after six 32 s.
    assert timing.calls_ms.count == 3 * 6
    hurried = Runner(clock, [], "b", lambda call: 1000.0)
    timing = race([hurried.contestant()], clock, rounds=40, budget_s=1.0)["b"]
    assert timing.calls_ms.count == 3 * 5  # never fewer than five rounds


def test_what_cannot_run_is_named_and_the_rest_goes_on(clock: FakeClock) -> None:
    def no_compiler() -> Callable[[int], object]:
        raise RuntimeError("No working C++ compiler found\nand a long story")

    well = Runner(clock, [], EAGER, lambda call: 2.0)
    entered = [Contestant("torch.compile", no_compiler), well.contestant()]
    timings = race(entered, clock, rounds=2)
    assert timings["torch.compile"].failed == "RuntimeError: No working C++ compiler found"
    assert timings[EAGER].calls_ms.count == 6
    assert encode_rows("lewm", timings) == []
    lines = list(report.race_table(timings, 10**6, {"fp32": 1.0}))
    assert lines[-1] == ("torch.compile: not measured, RuntimeError: No working C++ compiler found")


@pytest.mark.parametrize(("repeated_ms", "remembers"), [(1.0, True), (9.5, False), (10.0, False)])
def test_an_engine_that_remembers_answers_is_flagged(
    clock: FakeClock, repeated_ms: float, remembers: bool
) -> None:
    last: list[int] = []

    def call(number: int) -> None:
        clock.advance(round((repeated_ms if last == [number] else 10.0) * MS))
        last[:] = [number]

    timing = race([Contestant("cpu-fp32", lambda: call)], clock, rounds=5)["cpu-fp32"]
    assert timing.remembers is remembers
    assert timing.as_dict()["remembers"] is remembers


def timing(*calls_ms: float) -> CallTimes:
    made = CallTimes()
    for value in calls_ms:
        made.calls_ms.add(value)
    return made


@pytest.mark.parametrize(
    ("model", "name", "bar"),
    [
        ("lewm", "openvino cpu-int8", 2.5),
        ("lewm", "onnxruntime cpu-fp32", 1.5),
        ("lewm", "torch.compile", None),
        ("pusht-nano", "openvino cpu-int8", None),
    ],
)
def test_bars_are_for_our_engines_on_the_published_geometry(
    model: str, name: str, bar: float | None
) -> None:
    (row,) = encode_rows(model, {EAGER: timing(10.0), name: timing(5.0)})
    assert row.bar == bar
    assert row.value == pytest.approx(2.0)


def test_noise_that_hits_eager_alone_favours_no_contestant() -> None:
    disturbed = timing(10.0, 90.0, 90.0)
    (row,) = encode_rows("lewm", {EAGER: disturbed, "onnxruntime cpu-int8": timing(5.0, 5.0, 5.0)})
    assert row.value == pytest.approx(2.0)
    assert row.verdict == "MISSED"
    assert "fastest calls 2.00" in row.note


def test_a_missed_bar_is_printed_and_counted() -> None:
    rows = encode_rows("lewm", {EAGER: timing(10.0), "openvino cpu-int8": timing(5.0)})
    lines = list(report.bar_table([*rows, BenchRow("import jetsight, p50", 90.0, "ms", 150.0)]))
    assert "MISSED" in lines[1]
    assert lines[-1] == "1 of 2 bars met; MISSED: encode lewm, openvino cpu-int8"


def overhead(p99_ms: float, kept: int) -> Overhead:
    numbers = {"p50": 0.1, "p99": p99_ms, "max": 9.0}
    return Overhead(1000, numbers, numbers, period_ms=10.0, kept_bytes=kept, peak_bytes=80)


def test_loop_start_and_memory_have_their_bars() -> None:
    assert [row.met for row in overhead_rows(overhead(0.4, 0))] == [True, True, True]
    assert [row.met for row in overhead_rows(overhead(0.6, 1))] == [True, False, False]
    times = {"import": {"p50": 151.0}, "import_streaming": {"p50": 300.0}}
    assert [row.met for row in import_rows(times)] == [False, None]
    facts = {"resident_mb": 251.0, "peak_mb": 260.0, "heavy": ["torch"]}
    (row,) = memory_rows({"openvino cpu-int8": facts})
    assert row.met is False
    assert row.note == "peak 260 MB while loading; imported torch"


def test_peaks_are_the_fastest_call_of_each_precision() -> None:
    timings = {
        "torch fp32": timing(20.0, 30.0),
        "openvino cpu-fp32": timing(10.0, 40.0),
        "openvino cpu-int8": timing(5.0),
        "onnxruntime cpu-int8": CallTimes(failed="absent"),
    }
    flop = 2 * 1024**3
    assert peak_rates(timings) == pytest.approx({"fp32": flop / 1e7, "int8": flop / 5e6})


def test_arithmetic_is_counted_from_the_graph() -> None:
    assert graph_flop(encode_graph()) == 2 * HEIGHT * WIDTH * 3 * D
    assert graph_flop(contestants.gemm_graph(int8=False)) == contestants.gemm_flop()
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 6, 9, 9)), ("w", (8, 3, 3, 3)), ("y", (1, 8, 7, 7)))
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    conv = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert graph_flop(conv.SerializeToString()) == 2 * 8 * 7 * 7 * 3 * 3 * 3


def test_arithmetic_of_unknown_size_is_refused() -> None:
    model = onnx.load_from_string(encode_graph())
    model.graph.node[1].op_type, model.graph.node[1].domain = "Odd", "x.y"
    model.opset_import.append(helper.make_opsetid("x.y", 1))
    with pytest.raises(EngineError, match="not static"):
        graph_flop(model.SerializeToString())


def test_import_time_and_memory_are_those_of_a_lean_process(tmp_path: Path) -> None:
    times = process.import_times(1)
    assert 0 < times["import"]["p50"] <= times["import_streaming"]["p50"] < 60_000
    bundle = make_live_bundle(tmp_path / "b.jetsight")
    facts = process.session_memory(bundle.path, "onnxruntime", "cpu-fp32")
    assert facts["heavy"] == []
    assert facts["valid"] is True
    assert 10 < facts["resident_mb"] <= facts["peak_mb"]


def test_a_measuring_process_that_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ended with code 1: .*no bundle"):
        process.session_memory(tmp_path / "no bundle", "onnxruntime", "cpu-fp32")


@pytest.mark.parametrize(
    ("flags", "vnni"),
    [
        ("flags\t: fpu avx2 avx512f avx512_vnni", True),
        ("flags\t: fpu avx2 avx_vnni", True),
        ("flags\t: fpu avx2", False),
        ("Features\t: fp asimddp", False),
    ],
)
def test_the_instructions_int8_depends_on_are_found(tmp_path: Path, flags: str, vnni: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"model name\t: test\n{flags}\n")
    assert cpu_features(tmp_path)["vnni"] is vnni
    lines = "\n".join(report.header({**machine_spec(tmp_path), "architecture": "x86_64"}, {}, 2))
    assert ("no VNNI" in lines) is not vnni


def test_a_busy_machine_is_said_to_be(tmp_path: Path) -> None:
    facts = machine_spec(tmp_path)
    for load, busy in ((0.9, True), (0.1, False)):
        lines = "\n".join(report.header({**facts, "load_per_core": load}, {}, 2))
        assert ("BUSY" in lines) is busy
    assert np.isfinite(facts["load_per_core"])
