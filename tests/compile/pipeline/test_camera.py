"""A larger camera for a trained model: its resize equals PyTorch's, and its gate sees faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile.tiny_model import model_of, save_checkpoint, square_episode, write_dataset
from helpers.picture_factory import film

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.model_spec import FrameSpec
from jetsight.cameras import Camera, StreamRequest
from jetsight.cameras.video import VideoSource
from jetsight.cli import main
from jetsight.datasets.resample import FrameResize
from jetsight.errors import ArtefactError, CameraError, DataError, UsageError
from jetsight.session import Session
from jetsight.stream.jsonl import read
from jetsight_compile.calibration.camera_frames import EmbeddedFrames
from jetsight_compile.calibration.data import load_episodes
from jetsight_compile.export.layers import Style
from jetsight_compile.pipeline import family as families
from jetsight_compile.pipeline.camera import CameraRequest, camera_gate
from jetsight_compile.pipeline.compile import CompileRequest, compile_checkpoint
from jetsight_train.model.preprocess import Preprocess, of_camera, whole_frame
from jetsight_train.model.world_model import WorldModel

TRAINED = whole_frame((24, 24), (24, 24))
WIDE = (56, 72)  # height and width of the larger camera


def wide_episode(seed: int, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """The scene of `square_episode` as a camera of `WIDE` sees it, with more scene at the sides."""
    frames, actions = square_episode(seed, length)
    whole = EmbeddedFrames(frames, of_camera(TRAINED, WIDE))[:]
    whole[:, :, :8] = (40, 90, 140)
    return whole, actions


@pytest.mark.parametrize(
    ("size", "crop", "found"),
    [
        ("72x56", "center", (0, 8, 56, 56)),
        ("72x56", "full", (0, 0, 56, 72)),
        ("72x56", "4,10,24,30", (4, 10, 24, 30)),
        ("56x72", "center", (8, 0, 56, 56)),
    ],
)
def test_region_of_the_camera(size: str, crop: str, found: tuple[int, ...]) -> None:
    frame = CameraRequest.parse(size, crop).frame(TRAINED)
    assert (frame.crop, frame.via, frame.resize) == (found, (24, 24), (24, 24))
    assert f"{frame.width_px}x{frame.height_px}" == size


def test_camera_of_training_changes_nothing() -> None:
    assert CameraRequest.parse("24x24").frame(TRAINED) == TRAINED


@pytest.mark.parametrize(
    ("size", "crop", "error", "says"),
    [
        ("640", "center", UsageError, "WIDTHxHEIGHT, like 640x480"),
        ("640x480px", "center", UsageError, "WIDTHxHEIGHT"),
        ("72x56", "left", UsageError, "center, full or TOP,LEFT,HEIGHT,WIDTH"),
        ("72x56", "1,2,3", UsageError, "like 0,80,480,480"),
        ("72x56", "40,0,40,40", ArtefactError, "outside the 56x72 frame"),
        ("72x20", "center", UsageError, "smaller than the 24x24 frames of training"),
        ("72x56", "0,0,20,56", UsageError, "use a larger camera or crop"),
        ("99999x99999", "center", ArtefactError, "expected 1 to 16384"),
    ],
)
def test_unusable_cameras_are_refused(size: str, crop: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        CameraRequest.parse(size, crop).frame(TRAINED)


@pytest.mark.parametrize("crop", ["center", "full", "3,5,40,60"])
def test_embedded_frames_are_resized_to_the_recorded_ones(crop: str) -> None:
    frame = CameraRequest.parse("72x56", crop).frame(TRAINED)
    # A natural picture: without the single pixels of full contrast that no camera can take.
    recorded = square_episode(0)[0][:3]
    embedded = EmbeddedFrames(recorded, frame)
    assert len(embedded) == 3
    assert embedded[:].shape == (3, 56, 72, 3)
    back = FrameResize((24, 24), frame.crop)(embedded[:])
    assert np.abs(back.astype(int) - recorded).mean() < 2
    nearest = recorded.repeat(2, axis=1).repeat(2, axis=2)
    blurred = FrameResize((24, 24), (0, 0, 48, 48))(nearest)
    assert np.abs(blurred.astype(int) - recorded).mean() > 4
    two = np.stack([recorded, recorded[:, ::-1]], axis=1)
    assert np.array_equal(EmbeddedFrames(two, frame)[np.array([2])][0, 0], embedded[2])


def held_out(model: WorldModel, folder: Path, *, camera: bool) -> object:
    make = wide_episode if camera else square_episode
    path = write_dataset(folder / "calib", [make(seed) for seed in range(2)])
    return load_episodes(path, model, trained=TRAINED).held_out


def shifted(model: WorldModel) -> None:
    top, left, height, width = model.frame.crop
    model.preprocess = Preprocess(replace(model.frame, crop=(top, left - 2, height, width)))


def aliased(model: WorldModel) -> None:
    for name in ("rows", "columns"):
        matrix = torch.zeros_like(getattr(model.preprocess, name))
        picks = ((torch.arange(len(matrix)) + 0.5) * matrix.shape[1] / len(matrix)).long()
        matrix[torch.arange(len(matrix)), picks] = 1.0
        setattr(model.preprocess, name, matrix)


def squeezed(model: WorldModel) -> None:
    model.preprocess = Preprocess(replace(model.frame, crop=(0, 0, *WIDE)))


@pytest.mark.parametrize("camera", [True, False], ids=["real frames", "embedded frames"])
def test_gate_passes_and_sees_every_fault(camera: bool, tmp_path: Path) -> None:
    model = model_of()
    model.take_camera(of_camera(TRAINED, WIDE))
    side = held_out(model, tmp_path, camera=camera)
    good = camera_gate(model, TRAINED, side)
    assert good.passed
    assert good.control_failed
    assert good.value == pytest.approx(good.limit + 1, abs=0.3)  # rounding explains all of it
    assert float(good.detail.split("; ")[1].split(" dB")[0]) > 90
    faults: tuple[Callable[[WorldModel], None], ...] = (shifted, aliased, squeezed)
    for fault in faults:
        model.take_camera(of_camera(TRAINED, WIDE))
        fault(model)
        assert not camera_gate(model, TRAINED, side).passed, fault.__name__


def test_recordings_of_neither_size_are_refused(tmp_path: Path) -> None:
    model = model_of()
    model.take_camera(of_camera(TRAINED, WIDE))
    path = write_dataset(tmp_path / "calib", [square_episode(s, side=32) for s in range(2)])
    with pytest.raises(DataError, match="frames are 32x32, but the model takes 72x56"):
        load_episodes(path, model, trained=TRAINED)


@pytest.fixture(scope="module")
def bundle(exports: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("camera")
    checkpoint = save_checkpoint(folder / "ckpt", exports.model("conv"))
    calib = write_dataset(folder / "calib", [square_episode(seed) for seed in range(4)])
    request = CompileRequest(
        checkpoint,
        calib,
        folder / "tiny.jetsight",
        precisions=("fp32",),
        camera=CameraRequest.parse("72x56"),
    )
    # The camera changes nothing behind `encode`, so the forecast is that of all other tests.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.EXPORTS, "forecast", partial(shared_forecast, exports))
        return compile_checkpoint(request).bundle


def shared_forecast(exports: Any, model: WorldModel, style: Style) -> Any:
    return exports.graph("conv", "forecast", style)


def test_bundle_declares_camera_and_gate(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    frame: FrameSpec = bundle.manifest.frame
    assert (frame.height_px, frame.width_px, frame.crop) == (56, 72, (0, 8, 56, 56))
    assert (frame.via, frame.resize) == ((24, 24), (24, 24))
    (gate,) = (gate for gate in bundle.manifest.gates if gate.name == "camera_path")
    assert gate.passed
    assert main(["inspect", str(bundle.path)]) == 0
    text = capsys.readouterr().out
    assert "crop 56 x 56 at (0, 8), resize 24 x 24 as in training, resize 24 x 24" in text
    assert "camera_path" in text
    assert "frames moved by one pixel of training" in text


def test_video_of_the_camera_gives_the_latents_of_the_trained_model(
    bundle: Bundle, tmp_path: Path
) -> None:
    frames, _ = wide_episode(7, 12)
    path = film(tmp_path / "a.mkv", list(frames), "ffv1")
    resized = FrameResize((24, 24), (0, 8, 56, 56))
    with Session.open(bundle.path) as session:
        found = [f.copy() for f in session.stream(Camera.open(str(path), rate_hz=0))]

    source = VideoSource(path)
    source.start(StreamRequest(56, 72, 10.0, 2, 4, 2))
    shown = np.stack([reading.image_hwc_u8 for reading in iter(source.read, None)])
    source.close()
    with torch.inference_mode():
        expected = model_of().encode(torch.from_numpy(resized(shown))).numpy()
    z = np.stack([forecast.z for forecast in found])
    spread = expected.std(0).mean()
    assert np.abs(z - expected).max() < 0.2 * spread
    other = np.roll(expected, 1, axis=0)
    assert np.abs(z - other).max() > spread


def test_faster_dataset_of_the_camera_runs_with_resampled_actions(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, actions = wide_episode(8)
    path = write_dataset(tmp_path / "fast", [(frames, actions)], fps=20)
    out = tmp_path / "f.jsonl"
    options = ["--source", str(path), "--rate", "0", "--out", str(out), "--json"]
    assert main(["run", str(bundle.path), *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["source_hz"], summary["drops"]) == (20, 20.0, 0)
    assert summary["valid"] > 10
    assert summary["notes"] == [
        "20 frames per second on the model's 10 Hz: the one nearest to each tick is used",
        "recorded actions are resampled by hold",
    ]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["source_hz"] for line in lines} == {20.0}
    assert {forecast.source_hz for forecast in read(out)} == {20.0}


def test_sources_of_other_sizes_are_refused_with_the_line_to_type(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 3)
    says = "jetsight compile CHECKPOINT --camera 128x96"
    with Session.open(bundle.path) as session, pytest.raises(CameraError, match=says):
        next(iter(session.stream(Camera.open(str(path), rate_hz=0))))


def test_crop_without_a_camera_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["compile", "x", "--calib", "y", "--out", "z", "--crop", "full"]
    assert main(line) == 2
    assert "--crop full needs the size of the camera: --camera 640x480" in capsys.readouterr().err
