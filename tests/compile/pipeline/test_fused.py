"""Two cameras and a state from a checkpoint through every gate to a session, and back as a plan."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.compile.fused_model import fused_model
from helpers.compile.tiny_model import save_checkpoint
from helpers.train.two_cameras import CAMERAS, KEYS, STATE, fused_dataset, model_states

from jetsight import Camera, Session
from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle import manifest
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import GRAPHS
from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight.errors import BundleError, CameraError, DataError, UsageError
from jetsight.plan_report.nearest_frames import build_library
from jetsight.plan_report.tiles import side_by_side
from jetsight.planning.goal import Goal
from jetsight.stream.frames import Frame, Reason
from jetsight_compile.calibration.data import load_episodes
from jetsight_compile.demo.page import picture
from jetsight_compile.demo.scenario import Replay
from jetsight_compile.demo.watch import watch
from jetsight_compile.pipeline.compile import CompileRequest, compile_checkpoint
from jetsight_compile.planner_graph.settings import PlannerPreset
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate.metrics import FloatReference, reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused")
    fused_dataset(folder / "data")
    save_checkpoint(folder / "ckpt", fused_model())
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    request = CompileRequest(
        checkpoint=folder / "ckpt",
        calib=folder / "data",
        out=folder / "fused.jetsight",
        precisions=("fp32",),
        planners=(PlannerPreset("cem", 16, 2),),
    )
    return compile_checkpoint(request).bundle


def test_the_manifest_names_cameras_and_state(bundle: Bundle) -> None:
    found = bundle.manifest
    assert (found.version, found.frame.cameras, found.frame.shape) == (
        "1.3",
        CAMERAS,
        (2, 24, 24, 3),
    )
    assert found.state is not None
    assert found.state.names == STATE
    golden = bundle.golden()
    assert golden["frame_hwc_u8"].shape[1:] == (2, 24, 24, 3)
    assert golden["state"].shape[1:] == (3,)
    assert all(each.passed and each.control_failed for each in found.gates)
    details = {each.detail for each in found.gates if each.name == "inputs_matter"}
    assert details


def test_inspect_shows_cameras_state_and_shapes(bundle: Bundle) -> None:
    from click.testing import CliRunner

    from jetsight.cli.inspect import inspect

    text = CliRunner().invoke(inspect, [str(bundle.path)]).output
    assert "front, wrist" in text
    assert "x [px], speed [px/s], mode [1]" in text
    assert "frame_hwc_u8 uint8 [2, 24, 24, 3], state float32 [3]; one frame per call" in text
    found = json.loads(CliRunner().invoke(inspect, [str(bundle.path), "--json"]).output)
    assert found["encode_inputs"]["state"] == ["float32", [3]]


def test_a_reader_that_knows_neither_refuses_it(bundle: Bundle) -> None:
    """What an older reader sees: without the new keys, the golden data contradict the manifest."""
    plain = json.loads(manifest.dump(bundle.manifest))
    del plain["state"], plain["frame"]["cameras"]
    old = manifest.parse(json.dumps(plain).encode())
    arrays = (Path(bundle.path) / manifest.GOLDEN).read_bytes()
    from jetsight.bundle import golden

    golden.load(arrays, bundle.manifest, "golden.npz")
    with pytest.raises(BundleError, match="expected"):
        golden.load(arrays, old, "golden.npz")


def test_an_episode_streams_with_its_state(bundle: Bundle, folder: Path) -> None:
    with Session.open(bundle) as session:
        assert session.spec.state_names == STATE
        camera = Camera.open(f"{folder / 'data'}#1")
        found = [f.copy() for f in session.stream(camera, rate_hz=0)]
    assert len(found) == 40
    assert all(forecast.valid for forecast in found[session.spec.span_ticks :])


def test_swapped_cameras_and_a_permuted_state_change_the_forecast(
    bundle: Bundle, folder: Path
) -> None:
    """Negative control of the stream: a wrong order of either is no small error."""
    data = open_dataset(folder / "data", FeatureMap(cameras=CAMERAS))
    frame, rows = next(data.frames(1)), data.rows(1)
    state = model_states(rows.states)[0]
    std = np.asarray(bundle.manifest.latent.std)

    def latent(image: np.ndarray, state: np.ndarray) -> np.ndarray:
        with Session.open(bundle) as session:
            forecast = session.step(Frame(np.ascontiguousarray(image), state=state))
            assert forecast is not None
            assert forecast.z is not None
            return forecast.z / std

    z = latent(frame, state)
    assert np.abs(latent(frame, state) - z).max() == 0.0
    assert np.abs(latent(frame[::-1], state) - z).max() > 0.3
    assert np.abs(latent(frame, state[::-1].copy()) - z).max() > 0.3


def test_a_plan_needs_the_state_of_its_goal(bundle: Bundle, folder: Path) -> None:
    data = open_dataset(folder / "data", FeatureMap(cameras=CAMERAS))
    frame, states = list(data.frames(1))[30], model_states(data.rows(1).states)
    with Session.open(bundle) as session:
        list(session.stream(Camera.open(f"{folder / 'data'}#1"), rate_hz=0, frames=20))
        with pytest.raises(UsageError, match=r"x, speed, mode beside a frame.*Goal\.image"):
            session.imagine(frame)
        with pytest.raises(UsageError, match=r"uint8 \[2, 24, 24, 3\]"):
            session.imagine(Goal.image(frame[0], states[30]))
        with pytest.raises(UsageError, match="reads 3 numbers beside a goal image"):
            session.imagine(Goal.image(frame, states[30][:2]))
        first = session.imagine(Goal.image(frame, states[30]), seed=0, warm=False).copy()
        again = session.imagine(Goal.image(frame, states[0]), seed=0, warm=False).copy()
        broken = session.imagine(Goal.image(frame, np.full(3, np.nan, np.float32)))
        assert session.imagine(np.zeros(16, np.float32)).valid
    assert first.valid
    assert again.cost != first.cost
    assert str(broken.reason) == "goal_not_finite"


def test_a_plan_without_the_newest_state_says_so(bundle: Bundle) -> None:
    with Session.open(bundle) as session:
        image = np.full(session.spec.frame_shape, 100, np.uint8)
        for tick in range(8):
            state = None if tick == 7 else np.zeros(3, np.float32)
            forecast = session.step(
                Frame(
                    image,
                    tick,
                    tick,
                    session.clock.now_ns(),
                    np.zeros((1, 2), np.float32),
                    state=state,
                )
            )
        assert forecast is not None
        assert forecast.reason is Reason.STATE_UNKNOWN
        plan = session.imagine(np.zeros(16, np.float32))
    assert str(plan.reason) == "state_unknown"


def test_a_dataset_of_other_cameras_or_states_is_refused(bundle: Bundle, folder: Path) -> None:
    with Session.open(bundle) as session, pytest.raises(CameraError, match="takes 2 cameras"):
        next(session.stream(Camera.open(str(_video_of(folder)))))
    info = folder / "data/meta/info.json"
    whole = info.read_text()
    try:
        info.write_text(whole.replace('"speed"', '"velocity"'))
        with pytest.raises(DataError, match="no state 'speed', which the model reads"):
            load_episodes(folder / "data", fused_model())
        info.write_text(whole.replace(KEYS[1], "observation.images.hand"))
        with pytest.raises(UsageError, match="no camera 'wrist'"):
            load_episodes(folder / "data", fused_model())
    finally:
        info.write_text(whole)


def _video_of(folder: Path) -> Path:
    return next((folder / "data/videos" / KEYS[0]).rglob("*.mp4"))


@pytest.fixture(scope="module")
def judged(bundle: Bundle, folder: Path) -> tuple[FloatReference, gate.FamilyUnderTest]:
    model, name = fused_model(), "cpu-fp32"
    truth = reference(model, load_episodes(folder / "data", model).held_out)
    graphs = {each: onnx.load_from_string(bundle.graph(name, each)) for each in GRAPHS}
    precision = dict.fromkeys(GRAPHS, "fp32")
    return truth, gate.FamilyUnderTest(name, precision, **graphs, exact=graphs)


def test_the_gates_see_swapped_cameras_and_a_permuted_state(judged) -> None:
    truth, family = judged
    backend = OnnxRuntimeBackend()
    good = gate._values(family, truth, backend)
    assert good["latent_cosine"].value > 0.999999
    for name, wrong in (
        ("frame_hwc_u8", lambda frame: np.ascontiguousarray(frame[::-1])),
        ("state", lambda state: np.ascontiguousarray(state[::-1])),
    ):
        encode = [{**sample, name: wrong(sample[name])} for sample in truth.encode]
        found = gate._values(family, replace(truth, encode=encode), backend)
        assert found["latent_cosine"].value < 0.99


def test_the_gates_see_a_graph_that_reads_one_camera_twice(judged) -> None:
    truth, family = judged
    broken = onnx.ModelProto.FromString(family.encode.SerializeToString())
    slices = [n for n in broken.graph.node if n.op_type == "Slice" and n.input[0] == "_to_copy"]
    first, second = slices[:2]
    for node in broken.graph.node:
        node.input[:] = [first.output[0] if v == second.output[0] else v for v in node.input]
    found = gate._values(replace(family, encode=broken), truth, OnnxRuntimeBackend())
    assert found["inputs_matter"].value == 0.0
    assert found["inputs_matter"].detail == "least by frame_hwc_u8[wrist]"


def test_the_demo_streams_and_shows_every_camera(bundle: Bundle, folder: Path) -> None:
    data = open_dataset(folder / "data", FeatureMap(cameras=CAMERAS))
    with Session.open(bundle) as session:
        replay = Replay.load(data, [0, 2], 30, session.spec)
        watched = watch(session, replay, 0)
        spec = session.spec
    # Until the first history is full, and again after the announced start of an episode.
    assert watched.valid.sum() >= 30 - 2 * spec.span_ticks
    with closing(OnnxRuntimeBackend().load(bundle.graph("cpu-fp32", "encode"))) as encode:
        index = build_library(
            data, encode, spec.latent_std, among=[0], most=None, state_names=spec.state_names
        )
    # The library encodes frames with their states, as the stream did.
    assert index.z.shape == (40, 16)
    with Session.open(bundle) as session:
        camera = Camera.open(f"{folder / 'data'}#0")
        streamed = np.stack([f.z.copy() for f in session.stream(camera, rate_hz=0)])  # type: ignore[union-attr]
    np.testing.assert_allclose(index.z, streamed, atol=1e-5)
    shown = side_by_side(replay.frame(0))
    assert shown.shape == (24, 24 + 2 + 24, 3)
    np.testing.assert_array_equal(shown[:, :24], replay.frame(0)[0])
    np.testing.assert_array_equal(shown[:, 26:], replay.frame(0)[1])
    assert side_by_side(shown) is shown
    assert picture(replay.frame(0)).startswith("data:image/png;base64,")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precisions", "families"),
    [
        ("cpu", ("int8",), {"cpu-int8"}),
        ("orin-jp6", ("fp16", "int8"), {"trt-op20-fp16", "trt-op20-int8"}),
    ],
)
def test_it_compiles_for_every_kind_of_target(
    folder: Path, target: str, precisions: tuple[str, ...], families: set[str]
) -> None:
    request = CompileRequest(
        checkpoint=folder / "ckpt",
        calib=folder / "data",
        out=folder / f"{target}.jetsight",
        targets=(target,),
        precisions=precisions,
        methods=("max",),
    )
    gates = compile_checkpoint(request).bundle.manifest.gates
    assert {each.family for each in gates} == families
    assert all(each.passed and each.control_failed for each in gates)
