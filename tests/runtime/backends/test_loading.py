"""From a real bundle to a session: choice of family and backend, and proof on reference data."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.runtime import live_bundle
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.live_bundle import make_live_bundle

from jetsight.backends import loading, registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.errors import BundleError, EngineError, UsageError
from jetsight.machine import system
from jetsight.machine.system import Cuda
from jetsight.session import Session
from jetsight.stream.frames import Frame

BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_live_bundle(tmp_path_factory.mktemp("bundle") / "tiny.jetsight")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["cpu-fp32", "cpu-int8"])
def test_session_opens_and_proves_itself(bundle: Bundle, backend: str, family: str) -> None:
    with Session.open(bundle, backend, family) as session:
        assert (session.backend, session.family) == (backend, family)
        smallest = 0.99999 if family == "cpu-fp32" else 0.999
        assert min(session.parity.values()) > smallest
        assert session.precision == {"encode": family[4:], "forecast": family[4:]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_session_forecasts_what_numpy_does(bundle: Bundle, backend: str) -> None:
    rng = np.random.default_rng(5)
    frames = rng.integers(1, 255, (9, 8, 12, 3), np.uint8)
    actions = rng.uniform(0, 512, (12, 2)).astype(np.float32)
    with Session.open(bundle, backend, "cpu-fp32") as session:
        for t, image in enumerate(frames):
            done = actions[t - 1 : t] if t else None
            forecast = session.step(Frame(image, t, t, session.clock.now_ns(), done, actions[t:]))
        assert forecast is not None
        assert forecast.valid
        z_hist = np.stack([live_bundle.encode(frames[t]) for t in (4, 6, 8)])
        plan = np.concatenate([actions[8:12]]).reshape(2, 4)
        expected = live_bundle.forecast(z_hist, actions[4:8].reshape(2, 4), plan)
        assert forecast.z_future is not None
        np.testing.assert_allclose(forecast.z_future, expected, rtol=1e-4, atol=1e-4)
        wrong = live_bundle.forecast(z_hist, actions[3:7].reshape(2, 4), plan)
        assert not np.allclose(forecast.z_future, wrong, rtol=1e-4, atol=1e-4)


def test_bundle_may_be_named_by_its_path(bundle: Bundle) -> None:
    with Session.open(str(bundle.path)) as session:
        assert session.family == "cpu-fp32"


def test_first_family_that_can_run_here_is_chosen(tmp_path: Path) -> None:
    precision = {"encode": "fp16", "forecast": "fp16"}
    gpu = Family("trt-op20-fp16", 20, precision, ("orin-jp6",))
    families = (gpu, *make_manifest().families[::-1])
    graphs = {
        f"graphs/trt-op20-fp16/{name}.onnx": b"for another machine"
        for name in ("encode", "forecast")
    }
    bundle = make_live_bundle(tmp_path / "x.jetsight", graphs, families=families)
    with Session.open(bundle) as session:
        assert session.family == "cpu-int8"


def test_bundle_for_other_machines_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cuda", lambda _: Cuda(None, None, (), "no CUDA device"))
    bundle = make_live_bundle(tmp_path / "x.jetsight")
    for name, message in (
        ("npu-int8", r"families npu-int8.*--target cpu"),
        ("trt-op23-fp16", r"need an NVIDIA GPU.*\(no CUDA device\).*--target cpu"),
    ):
        other = dataclasses.replace(bundle.manifest.families[0], name=name)
        only = dataclasses.replace(bundle.manifest, families=(other,), gates=())
        with pytest.raises(EngineError, match=message):
            loading.load(dataclasses.replace(bundle, manifest=only), None, None)


def test_unknown_family_lists_what_there_is(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="choose one of cpu-fp32, cpu-int8"):
        Session.open(bundle, family="cpu-int4")


@pytest.mark.parametrize("backend", BACKENDS)
def test_engine_that_computes_something_else_is_refused(tmp_path: Path, backend: str) -> None:
    """A graph that is valid, hashed and loads, but is not what the reference data says."""
    other = live_bundle.encode_graph(-1.0)
    bundle = make_live_bundle(tmp_path / "x.jetsight", {"graphs/cpu-fp32/encode.onnx": other})
    with pytest.raises(EngineError, match=r"'encode' of cpu-fp32 on .* cosine -1\.0000"):
        Session.open(bundle, backend, "cpu-fp32")
    with Session.open(bundle, backend, "cpu-int8"):
        pass  # negative control: the other family is untouched


def test_engine_that_computes_nan_is_refused(tmp_path: Path) -> None:
    broken = live_bundle.encode_graph(float("nan"))
    bundle = make_live_bundle(tmp_path / "x.jetsight", {"graphs/cpu-fp32/encode.onnx": broken})
    with pytest.raises(EngineError, match="cosine nan"):
        Session.open(bundle, "onnxruntime", "cpu-fp32")


def test_graph_of_another_size_is_refused(tmp_path: Path) -> None:
    small = live_bundle.encode_graph(height=4)
    bundle = make_live_bundle(tmp_path / "x.jetsight", {"graphs/cpu-fp32/encode.onnx": small})
    with pytest.raises(EngineError, match=r"is uint8 \[4, 12, 3\], but the manifest says"):
        Session.open(bundle, "onnxruntime", "cpu-fp32")


def test_tampered_bundle_is_refused_before_a_backend_sees_it(tmp_path: Path) -> None:
    path = make_live_bundle(tmp_path / "x.jetsight").path
    graph = path / "graphs/cpu-fp32/encode.onnx"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="SHA-256"):
        Session.open(path)


def test_spec_repeats_the_manifest() -> None:
    manifest = make_manifest()
    spec = StreamSpec.from_manifest(manifest)
    assert (spec.period_ns, spec.step_size, spec.span_ticks, spec.plan_ticks) == (10**8, 2, 4, 4)
    assert spec.neutral.tolist() == [256.0, 256.0]
    assert spec.surprise_limit == manifest.latent.surprise_quantiles.p999


def test_cpu_bundle_runs_without_torch_and_onnx(bundle: Bundle) -> None:
    code = """
import sys
for name in ("torch", "onnx", "av", "pyarrow", "gymnasium"):
    sys.modules[name] = None
from jetsight import Session
from jetsight.testing import ScriptedCamera, FakeClock, shots
clock = FakeClock()
with Session.open(sys.argv[1], clock=clock) as session:
    camera = ScriptedCamera(session.spec, shots(20), clock)
    assert sum(forecast.valid for forecast in session.stream(camera)) == 16
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(bundle.path)]
    subprocess.run(command, check=True, env=env, timeout=60)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_outside_the_bundle_are_never_read(
    bundle: Bundle, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both libraries would follow the reference, relative to the working directory."""
    model = onnx.ModelProto.FromString(bundle.graph("cpu-fp32", "encode"))
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    monkeypatch.chdir(tmp_path)
    hostile = model.SerializeToString()
    registry.open_backend(backend, "cpu-fp32").load(hostile).close()  # the control: it does load
    monkeypatch.setattr(Bundle, "graph", lambda self, family, name: hostile)
    with pytest.raises(EngineError, match=r"graph 'encode' of cpu-fp32: weight .* is outside"):
        Session.open(bundle, backend, "cpu-fp32")
