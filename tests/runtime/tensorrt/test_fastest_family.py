from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.runtime.bundle_factory import make_bundle
from helpers.runtime.engine_factory import ORIN, encode, forecast, make_plan, make_record

from jetsight.backends import loading
from jetsight.backends.registry import BackendInfo
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family, graph_path
from jetsight.errors import EngineError
from jetsight.machine.clocks import Clocks
from jetsight.tensorrt import bindings, fingerprint
from jetsight.tensorrt.engine_cache import EngineStore, fastest_family
from jetsight.tensorrt.fingerprint import BuildOptions
from jetsight.tensorrt.record import Latency

FP16, INT8 = "trt-op20-fp16", "trt-op20-int8"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """A CPU family first, then two of TensorRT whose encoders differ and whose forecasts do not."""
    content = {
        graph_path("cpu-fp32", "encode"): encode(0).SerializeToString(),
        graph_path(FP16, "encode"): encode(1).SerializeToString(),
        graph_path(INT8, "encode"): encode(2).SerializeToString(),
    }
    families = ("cpu-fp32", FP16, INT8)
    content |= {graph_path(name, "forecast"): forecast().SerializeToString() for name in families}
    return make_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny.jetsight",
        families=tuple(
            Family(n, 20, dict.fromkeys(("encode", "forecast"), n[-4:]), ("any",)) for n in families
        ),
        gates=(),
        graphs=content,
    )


def add(
    store: EngineStore, bundle: Bundle, family: str, graph: str, p50_ms: float | None, **changes
) -> None:
    plan = make_plan(body=f"{family}{graph}{p50_ms}{changes}".encode() * 9)
    clocks = Clocks((), (), None)
    times = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "max_ms"), p50_ms)
    latency = None if p50_ms is None else Latency(runs=9, warm_up=1, clocks=clocks, **times)
    digest = bundle.manifest.files[graph_path(family, graph)].sha256
    record = make_record(plan, graph=graph, graph_sha256=digest, latency=latency, **changes)
    store.add(plan, record, "")


@pytest.mark.parametrize(
    ("fp16_ms", "int8_ms", "fastest"),
    [(2.0, 1.0, INT8), (1.0, 2.0, FP16), (None, 9.0, INT8), (None, None, FP16)],
)
def test_the_family_that_was_measured_fastest_is_taken(
    bundle, tmp_path: Path, fp16_ms, int8_ms, fastest
) -> None:
    store = EngineStore(tmp_path / "engines")
    add(store, bundle, FP16, "encode", fp16_ms)
    add(store, bundle, INT8, "encode", int8_ms)
    assert fastest_family(bundle, store, ORIN) is None, "no forecast was built yet"
    add(store, bundle, FP16, "forecast", 3.0)
    assert fastest_family(bundle, store, ORIN) == fastest


def test_the_newest_engine_of_a_graph_counts(bundle, tmp_path) -> None:
    store = EngineStore(tmp_path / "engines")
    for graph in ("encode", "forecast"):
        add(store, bundle, FP16, graph, 5.0)
        add(store, bundle, INT8, graph, 4.0)
    assert fastest_family(bundle, store, ORIN) == INT8
    later = {"options": BuildOptions(level=5), "built_utc": "2026-02-01T12:00:00.000Z"}
    add(store, bundle, FP16, "encode", 1.0, **later)
    assert fastest_family(bundle, store, ORIN) == FP16


def test_a_bundle_whose_engines_come_first_still_runs_on_the_cpu(tmp_path, monkeypatch) -> None:
    """TensorRT is usable and nothing was built: the CPU family runs."""
    content = {graph_path(n, "encode"): encode(1).SerializeToString() for n in (FP16, "cpu-fp32")}
    content |= {
        path.replace("encode", "forecast"): forecast().SerializeToString() for path in list(content)
    }
    families = tuple(
        Family(n, 20, dict.fromkeys(("encode", "forecast"), n[-4:]), ("any",))
        for n in (FP16, "cpu-fp32")
    )
    made = make_bundle(tmp_path / "x.jetsight", families=families, gates=(), graphs=content)
    infos = [
        BackendInfo("onnxruntime", "1", ("cpu-",), None),
        BackendInfo("tensorrt", "10.3", ("trt-",), None),
    ]
    monkeypatch.setattr(loading.registry, "available", lambda: infos)
    monkeypatch.setattr(loading, "_built_here", lambda bundle: None)
    assert loading._choose_family(made, None, None).name == "cpu-fp32"
    monkeypatch.setattr(loading, "_built_here", lambda bundle: FP16)
    assert loading._choose_family(made, None, None).name == FP16


def test_what_was_built_elsewhere_or_without_a_gpu_does_not_count(bundle, tmp_path) -> None:
    store = EngineStore(tmp_path / "engines")
    for graph in ("encode", "forecast"):
        add(store, bundle, INT8, graph, 1.0, host=dataclasses.replace(ORIN, gpu="another"))
        add(store, bundle, FP16, graph, None, host=dataclasses.replace(ORIN, gpu=None, sm=None))
    assert fastest_family(bundle, store, ORIN) is None
    assert fastest_family(bundle, store, dataclasses.replace(ORIN, gpu="another")) == INT8


def test_a_power_mode_does_not_hide_an_engine(bundle, tmp_path) -> None:
    store = EngineStore(tmp_path / "engines")
    for graph in ("encode", "forecast"):
        add(store, bundle, FP16, graph, 1.0)
    assert fastest_family(bundle, store, dataclasses.replace(ORIN, power_mode="2")) == FP16


@pytest.mark.parametrize("reason", [None, "no CUDA device"])
def test_a_session_prefers_what_was_built_here(bundle, monkeypatch, reason) -> None:
    infos = [
        BackendInfo("onnxruntime", "1", ("cpu-",), None),
        BackendInfo("tensorrt", "10.3", ("trt-",), reason),
    ]
    monkeypatch.setattr(loading.registry, "available", lambda: infos)
    monkeypatch.setattr(loading, "_built_here", lambda bundle: INT8)
    chosen = loading._choose_family(bundle, None, None)
    assert chosen.name == (INT8 if reason is None else "cpu-fp32")
    assert loading._choose_family(bundle, "onnxruntime", None).name == "cpu-fp32"
    monkeypatch.setattr(loading, "_built_here", lambda bundle: None)
    assert loading._choose_family(bundle, None, None).name == "cpu-fp32"
    assert loading._choose_family(bundle, "tensorrt", None).name == FP16  # and loading says why not


def test_a_store_that_cannot_be_trusted_leaves_the_cpu(bundle, monkeypatch, caplog) -> None:
    def broken() -> None:
        raise EngineError("TensorRT is broken")

    monkeypatch.setattr(bindings, "open_library", broken)
    assert loading._built_here(bundle) is None
    assert "no engines of this machine are used: TensorRT is broken" in caplog.text


def test_the_store_and_the_machine_are_asked(bundle, tmp_path, monkeypatch) -> None:
    store = EngineStore(tmp_path / "engines")
    for graph in ("encode", "forecast"):
        add(store, bundle, INT8, graph, 1.0)
    monkeypatch.setattr("jetsight.tensorrt.engine_cache.default_root", lambda: store.root)
    monkeypatch.setattr(bindings, "open_library", lambda: None)
    monkeypatch.setattr(fingerprint, "host_spec", lambda found: ORIN)
    assert loading._built_here(bundle) == INT8
