"""A session on the TensorRT backend: from a bundle and a store of engines to forecasts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.runtime import live_bundle
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.engine_factory import make_record
from helpers.runtime.live_bundle import make_live_bundle
from helpers.runtime.scripted_world import SPEC, world

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.errors import EngineError
from jetsight.machine import system
from jetsight.machine.system import Cuda, Gpu
from jetsight.session import Session
from jetsight.stream.frames import Frame
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import host_spec
from jetsight.testing import FakeBackend, FakeClock, FakeDevice, FakeTensorRt, ScriptedCamera

FAMILY = Family("trt-op20-fp16", 20, {"encode": "fp16", "forecast": "fp16"}, ("orin-jp6",))
ORIN = Gpu("Orin", 8 << 30, "8.7", multiprocessors=16, integrated=True)
F32 = np.float32
ENCODE = ({"frame_hwc_u8": ((8, 12, 3), np.uint8)}, {"z": ((4,), F32)})
FORECAST = (
    {"z_hist": ((3, 4), F32), "a_hist": ((2, 4), F32), "actions": ((2, 4), F32)},
    {"z_future": ((2, 4), F32)},
)


def _encode(inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    outputs["z"][...] = live_bundle.encode(inputs["frame_hwc_u8"])


def _forecast(inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    outputs["z_future"][...] = live_bundle.forecast(**inputs)


class Robot:
    """A Jetson with a bundle and, once it was built, its engines."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "cuda", lambda _: Cuda("540", "12.6", (ORIN,), None))
        graphs = {
            f"graphs/{FAMILY.name}/encode.onnx": live_bundle.encode_graph(),
            f"graphs/{FAMILY.name}/forecast.onnx": live_bundle.forecast_graph(),
        }
        self.bundle: Bundle = make_live_bundle(
            folder / "x.jetsight", graphs, families=(FAMILY, *make_manifest().families)
        )
        self.device = FakeDevice(integrated=True)
        self.trt = FakeTensorRt(self.device)
        self.store = EngineStore(folder / "engines")
        kind = registry._KINDS["tensorrt"]
        made = type(kind)(("numpy",), kind.families, lambda _: self.backend())
        monkeypatch.setitem(registry._KINDS, "tensorrt", made)
        # Where a session looks for what is fastest here.
        monkeypatch.setattr("jetsight.tensorrt.engine_cache.default_root", lambda: self.store.root)
        monkeypatch.setattr("jetsight.tensorrt.bindings.open_library", lambda: self.trt.library)

    def backend(self) -> TensorRtBackend:
        return TensorRtBackend(device=self.device, library=self.trt.library, store=self.store)

    def build(self) -> None:
        """What `jetsight build` leaves behind."""
        for graph, ports, compute in (
            ("encode", ENCODE, _encode),
            ("forecast", FORECAST, _forecast),
        ):
            plan = self.trt.plan(*ports, compute, scratch_bytes=len(graph) * 1000)
            digest = hashlib.sha256(self.bundle.graph(FAMILY.name, graph)).hexdigest()
            host = host_spec(self.trt.library)
            record = make_record(plan, graph_sha256=digest, graph=graph, host=host)
            self.store.add(plan, record, "log")


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Robot:
    return Robot(tmp_path, monkeypatch)


def test_session_runs_the_engines_built_here_and_leaves_nothing(robot: Robot) -> None:
    robot.build()
    rng = np.random.default_rng(5)
    frames = rng.integers(1, 255, (9, 8, 12, 3), np.uint8)
    actions = rng.uniform(0, 512, (12, 2)).astype(np.float32)
    with Session.open(robot.bundle) as session:
        assert (session.backend, session.family) == ("tensorrt", "trt-op20-fp16")
        for t, image in enumerate(frames):
            done = actions[t - 1 : t] if t else None
            forecast = session.step(Frame(image, t, t, session.clock.now_ns(), done, actions[t:]))
        assert forecast is not None
        assert forecast.valid
        z_hist = np.stack([live_bundle.encode(frames[t]) for t in (4, 6, 8)])
        plan = actions[8:12].reshape(2, 4)
        expected = live_bundle.forecast(z_hist, actions[4:8].reshape(2, 4), plan)
        np.testing.assert_allclose(forecast.z_future, expected, rtol=1e-6, atol=1e-6)
        assert any(name.startswith("launch_graph") for name in robot.device.calls)
    assert robot.device.live == []


def test_engine_that_computes_something_else_is_refused_and_released(robot: Robot) -> None:
    robot.build()
    trt = robot.trt
    scripts = {plan: script for plan, script in trt._scripts.items() if "z" in script.outputs}
    for plan, script in scripts.items():
        wrong = type(script)(script.inputs, script.outputs, _upside_down, script.scratch_bytes)
        trt._scripts[plan] = wrong
    with pytest.raises(EngineError, match="'encode' of trt-op20-fp16 on tensorrt does not agree"):
        Session.open(robot.bundle)
    assert robot.device.live == []


def _upside_down(inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    outputs["z"][...] = -live_bundle.encode(inputs["frame_hwc_u8"])


def test_without_engines_the_command_that_builds_them_is_named(robot: Robot) -> None:
    with pytest.raises(EngineError, match=r"no engine was built .*: jetsight build BUNDLE"):
        Session.open(robot.bundle, "tensorrt")
    assert robot.trt.deserialized == 0
    assert robot.device.live == []


def test_without_engines_the_cpu_family_runs_and_the_log_says_so(robot: Robot, caplog) -> None:
    with Session.open(robot.bundle) as session:
        assert session.family == "cpu-fp32"
    assert "no engines of" in caplog.text
    assert "run: jetsight build" in caplog.text


def test_a_second_graph_without_engine_releases_the_first(robot: Robot) -> None:
    robot.build()
    for record in robot.store.records():
        if record.graph == "forecast":
            folder = next(robot.store.root.glob(f"{record.fingerprint.key}-*"))
            (folder / "record.json").unlink()
    with pytest.raises(EngineError, match="no engine was built for this graph"):
        Session.open(robot.bundle, "tensorrt")
    assert robot.trt.deserialized == 1
    assert robot.device.live == []


def test_a_damaged_engine_never_reaches_tensorrt(robot: Robot) -> None:
    robot.build()
    for plan in robot.store.root.glob("*/engine.plan"):
        data = bytearray(plan.read_bytes())
        data[-1] ^= 1
        plan.write_bytes(bytes(data))
    with pytest.raises(EngineError, match="does not match the SHA-256"):
        Session.open(robot.bundle)
    assert robot.trt.deserialized == 0


def test_a_machine_without_a_gpu_says_so_before_it_looks_for_engines(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "cuda", lambda _: Cuda(None, None, (), "no CUDA device"))
    with pytest.raises(EngineError, match=r"need an NVIDIA GPU.*\(no CUDA device\)"):
        TensorRtBackend(library=robot.trt.library, store=robot.store)


@pytest.mark.parametrize("integrated", [True, False])
def test_a_whole_stream_is_forecast_as_on_any_other_backend(integrated: bool) -> None:
    """The little world that `FakeBackend` predicts exactly, computed on the fake GPU."""
    device, clock = FakeDevice(integrated=integrated), FakeClock()
    trt, reference = FakeTensorRt(device), FakeBackend(SPEC)
    backend = TensorRtBackend(device=device, library=trt.library)
    engines = []
    for graph in (b"encode", b"forecast"):
        fake = reference.load(graph)
        ports = [
            {name: (array.shape, array.dtype.type) for name, array in side.items()}
            for side in (fake.inputs, fake.outputs)
        ]
        engines.append(backend.load_plan(trt.plan(*ports, fake._compute)))
    session = Session(SPEC, *engines, clock=clock)
    camera = ScriptedCamera(SPEC, world(40), clock)
    published = [forecast.copy() for forecast in session.stream(camera)]
    assert sum(forecast.valid for forecast in published) == 30
    assert all(forecast.surprise < 1e-5 for forecast in published if forecast.surprise is not None)
    assert engines[0].replays
    assert engines[1].replays
    session.close()
    assert device.live == []
