"""The whole of `jetsight build`: gates in order, and nothing kept of what fails one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.runtime.engine_factory import ORIN, make_plan, make_tensorrt_bundle
from helpers.runtime.fake_builder import FakePlanBackend, FakeTensorRT

from jetsight.bundle.bundle import Bundle
from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight.tensorrt.builder.build import build_bundle
from jetsight.tensorrt.builder.progress import ProgressLine
from jetsight.tensorrt.builder.request import BuildContext, BuildRequest, choose_families
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import BuildOptions
from jetsight.testing import FakeClock


def inspected(kind: str = "Half") -> str:
    tensor = {"Name": "x", "Dimensions": [1, 288], "Format/Datatype": kind}
    layer = {"Name": "product", "LayerType": "gemm", "Inputs": [tensor], "Outputs": [tensor]}
    return json.dumps({"Layers": [layer], "Bindings": ["x"]})


class Bench:
    """A bundle, a scripted TensorRT, a store, and a clock that each run moves by 2 ms."""

    def __init__(self, tmp_path: Path, family: str = "trt-op20-fp16") -> None:
        self.bundle = make_tensorrt_bundle(tmp_path / "t.jetsight", families=(family,))
        self.trt = FakeTensorRT(inspector=inspected())
        self.store, self.clock = EngineStore(tmp_path / "engines"), FakeClock()
        self.host, self.spoil, self.called = ORIN, 0.0, "z"
        self.err = io.StringIO()

    def backend(self) -> FakePlanBackend:
        golden: Any = self.bundle.golden()
        return FakePlanBackend(
            golden,
            spoil=self.spoil,
            called=self.called,
            on_run=lambda: self.clock.advance(2_000_000),
        )

    def build(self, **changes: Any) -> list[Any]:
        problem = None if self.host.gpu else "no CUDA device"
        context = BuildContext(
            self.trt.library(), self.host, problem, self.store, self.backend, self.clock
        )
        request = BuildRequest(**{"graphs": ("encode",), **changes})
        return build_bundle(self.bundle, request, context, ProgressLine(self.err))

    def refused(self, says: str, **changes: Any) -> str:
        with pytest.raises(EngineError, match=says) as caught:
            self.build(**changes)
        assert "\n" not in str(caught.value)
        assert self.store.records() == [], "something was kept"
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_engine_that_passes_every_gate_is_kept_and_found(bench) -> None:
    (made,) = bench.build()
    record = made.record
    assert record.proof is not None
    assert record.proof.shares == {"fp16": 1.0}
    assert record.parity is not None
    assert record.parity.smallest_cosine == pytest.approx(1.0)
    assert record.latency is not None
    latency = record.latency
    assert (latency.runs, latency.warm_up) == (500, 50)
    assert [latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms] == [2.0] * 4
    assert record.skipped == {}
    assert bench.store.find(record.fingerprint.graph_sha256, ORIN).plan == bench.trt.plan
    steps = ["building", "proving precision", "comparing with PyTorch", "measuring latency"]
    assert bench.err.getvalue().split("\n") == [
        *(f"  trt-op20-fp16 encode: {s}" for s in steps),
        "",
    ]


def test_what_is_there_is_not_built_again(bench) -> None:
    (first,) = bench.build()
    bench.trt.plan = make_plan(body=b"other kernels")
    (again,) = bench.build()
    assert (again.reused, again.record) == (True, first.record)
    (forced,) = bench.build(force=True)
    assert not forced.reused
    assert [r.plan_sha256 for r in bench.store.records()] == [forced.record.plan_sha256]
    (other,) = bench.build(options=BuildOptions(level=5))
    assert not other.reused


def test_latency_left_out_is_measured_when_asked_for(bench) -> None:
    (quick,) = bench.build(measure=False)
    assert quick.record.latency is None
    assert quick.record.skipped == {"latency": "not requested (--no-measure)"}
    assert bench.build(measure=False)[0].reused
    assert bench.build()[0].record.latency is not None


def test_a_graph_without_reference_data_is_not_built_again_either(bench, monkeypatch) -> None:
    from jetsight.tensorrt.builder import verify

    monkeypatch.setattr(verify, "REFERENCE", {})
    (made,) = bench.build(measure=False)
    assert made.record.parity is None
    assert "no reference data for this graph" in made.record.skipped["parity"]
    assert bench.build(measure=False)[0].reused


@pytest.mark.parametrize("kind", ["Half", "Float"])
def test_gate_precision(tmp_path, kind) -> None:
    bench = Bench(tmp_path, "trt-op20-int8")
    bench.trt.inspector, bench.trt.quantized = inspected(kind), True
    text = bench.refused("silent precision fallback, int8 was requested")
    assert "build.log" in text
    bench.trt.inspector = inspected("Int8")  # the negative control
    (made,) = bench.build()
    assert made.record.proof.shares == {"int8": 1.0}
    assert made.record.quantized == 1


def test_gate_quantized_network(tmp_path) -> None:
    """Q/DQ that the parser dropped, or that were never inserted, is seen without a GPU."""
    bench = Bench(tmp_path, "trt-op20-int8")
    bench.trt.inspector = inspected("Int8")
    bench.refused("is of int8, but TensorRT read no product with a dequantized input")
    bench.trt.quantized = True
    bench.build()


@pytest.mark.parametrize("spoil", [5.0, float("nan"), float("inf")])
def test_gate_parity(bench, spoil) -> None:
    bench.spoil = spoil
    text = bench.refused("does not agree with PyTorch, cosine .* expected at least 0.999")
    assert "--family" in text
    assert "build.log" in text
    bench.spoil = 0.0
    bench.build()


def test_an_older_engine_survives_a_failing_rebuild(bench) -> None:
    (made,) = bench.build()
    bench.spoil = 5.0
    with pytest.raises(EngineError, match="does not agree"):
        bench.build(force=True)
    assert bench.store.records() == [made.record]


@pytest.mark.parametrize(
    "plan",
    [b"", b"short", make_plan((10, 16, 2, 10)), make_plan((1, 7, 1, 116)), b"x" + make_plan()[1:]],
)
def test_a_foreign_plan_is_refused_before_tensorrt_sees_it(bench, plan) -> None:
    bench.trt.plan = plan or b"\0"
    bench.refused("no TensorRT engine|built for TensorRT|does not start like")
    assert bench.trt.deserialized == [], "the deserializer was called"


def test_tensorrt_without_a_gpu_is_refused_before_any_work(bench) -> None:
    bench.host = replace(ORIN, gpu=None)
    bench.trt.raises = AssertionError("built all the same")
    bench.refused("TensorRT 10.3.0.26 needs a GPU to build: no CUDA device; run jetsight build")


def test_what_running_engines_needs_is_missed_before_the_build(bench, monkeypatch) -> None:
    def absent() -> FakePlanBackend:
        raise MissingDependency("pycuda", "jetson", "running engines")

    bench.trt.raises = AssertionError("built all the same")
    monkeypatch.setattr(bench, "backend", absent)
    with pytest.raises(MissingDependency, match=r"jetsight\[jetson\]"):
        bench.build()


def test_tensorrt_rtx_without_a_gpu_builds_and_says_what_it_could_not_check(bench) -> None:
    bench.trt = FakeTensorRT((1, 7, 1, 116))
    bench.host = replace(ORIN, gpu=None, library="tensorrt_rtx", version="1.7.1.116")
    (made,) = bench.build()
    assert set(made.record.skipped) == {"proof", "parity", "latency"}
    assert bench.trt.deserialized == []
    assert bench.build()[0].reused
    with pytest.raises(EngineError, match="built without a GPU and never compared"):
        bench.store.find(made.record.fingerprint.graph_sha256, bench.host)


def test_a_proof_that_shows_nothing_is_recorded_as_skipped(bench) -> None:
    bench.trt.inspector = json.dumps({"Layers": [], "Bindings": []})
    (made,) = bench.build()
    assert made.record.proof is None
    assert "no layer that computes matrix products" in made.record.skipped["proof"]


def test_types_that_tensorrt_rtx_does_not_show_are_no_fallback(bench) -> None:
    """Its kernels are chosen when they run; TensorRT's own inspector always says the types."""
    bench.trt = FakeTensorRT((1, 7, 1, 116), inspector=inspected("?"))
    bench.host = replace(ORIN, library="tensorrt_rtx", version="1.7.1.116")
    (made,) = bench.build()
    assert made.record.proof is None
    assert "does not list the types" in made.record.skipped["proof"]
    bench.trt.inspector = inspected("Float")  # the negative control: it says another type
    with pytest.raises(EngineError, match="silent precision fallback"):
        bench.build(force=True)


def test_types_that_tensorrt_does_not_show_are_refused(bench) -> None:
    bench.trt.inspector = inspected("?")
    bench.refused("silent precision fallback, fp16 was requested, but TensorRT runs unknown")


def test_a_failed_build_leaves_its_log_and_a_good_one_takes_it_away(bench) -> None:
    good, bench.trt.plan, bench.trt.says = bench.trt.plan, None, [("ERROR", "no luck")]
    text = bench.refused("cannot compile the graph: no luck")
    log = Path(text.rpartition("its log is in ")[2])
    assert "ERROR no luck" in log.read_text()
    bench.trt.plan = good
    bench.build()
    assert not log.exists()
    assert "no luck" in next(bench.store.root.glob("*-*/build.log")).read_text()


def test_through_torch_tensorrt_the_same_gates_hold(bench, monkeypatch, tmp_path) -> None:
    import types

    from jetsight.tensorrt.builder import build

    def convert(checkpoint, manifest, family, graph, library, options, log, *, gpu):
        ports = {"frame_hwc_u8": ("uint8", (8, 12, 3))}, {"z": ("float32", (4,))}
        return types.SimpleNamespace(
            plan=bench.trt.plan, inputs=ports[0], outputs=ports[1], renamed={"output0": "z"}
        )

    route = types.SimpleNamespace(convert=convert)
    monkeypatch.setattr(build.importlib, "import_module", lambda name: route)
    options, bench.called = BuildOptions(via="torch-tensorrt"), "output0"
    (made,) = bench.build(options=options, checkpoint=tmp_path)
    assert made.record.renamed == {"output0": "z"}
    assert made.record.parity is not None
    with pytest.raises(UsageError, match="add --checkpoint CKPT"):
        bench.build(options=options, force=True)


@pytest.mark.parametrize(
    ("names", "says"),
    [(("nope",), "has no family 'nope'; it has: trt-op20-fp16"), (("cpu-fp32",), "has no family")],
)
def test_unknown_families_are_refused(bench, names, says) -> None:
    with pytest.raises(UsageError, match=says):
        choose_families(bench.bundle, names, ORIN)


def test_families_for_this_machine_come_first(tmp_path) -> None:
    bundle = make_tensorrt_bundle(tmp_path / "b", families=("trt-op20-fp16", "trt-op23-fp16"))
    old, new = bundle.manifest.families
    facts = replace(bundle.manifest, families=(replace(old, targets=("orin-jp6",)), new))
    both = Bundle(bundle.path, facts, bundle._store)
    assert [f.name for f in choose_families(both, (), ORIN)] == ["trt-op20-fp16"]
    elsewhere = replace(ORIN, l4t=None, version="10.16.1.11")
    assert len(choose_families(both, (), elsewhere)) == 2
