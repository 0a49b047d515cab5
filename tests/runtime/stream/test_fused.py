"""Streams of a model of two cameras that also reads a state, on fake engines and a fake clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jetsight.cameras.source import SourceInfo, StreamRequest, check_start, defect
from jetsight.errors import CameraError, EngineError
from jetsight.session import Session
from jetsight.stream.forecaster import check_engines
from jetsight.stream.frames import Forecast, Frame, Mode, Reason
from jetsight.testing import FakeClock, ScriptedCamera, Shot, shots
from jetsight.testing.engine import FakeBackend, tiny_spec

SPEC = tiny_spec(cameras=("front", "wrist"), state_names=("x", "grip"))
REQUEST = StreamRequest.of(SPEC)
KNOWN = np.array([0.5, 0.25], np.float32)


def run(script: list[Shot], spec=SPEC) -> list[Forecast]:
    clock, backend = FakeClock(), FakeBackend(spec)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    with Session(spec, *engines, clock=clock) as session:
        return [f.copy() for f in session.stream(ScriptedCamera(spec, script, clock))]


def test_frames_of_two_cameras_and_the_state_reach_the_encoder() -> None:
    image = np.full((2, 8, 8, 3), 100, np.uint8)
    image[1] = 50
    first, *_ = run(shots(1, image_hwc_u8=image, state=KNOWN))
    assert first.z == pytest.approx(np.full(4, 75.75))
    assert run(shots(40, state=KNOWN))[-1].valid


@pytest.mark.parametrize("state", [None, np.array([0.5, np.nan], np.float32)])
def test_a_frame_without_its_state_is_never_encoded(state: np.ndarray | None) -> None:
    published = run(shots(20, state=KNOWN) + shots(1, state=state) + shots(30, state=KNOWN))
    bad, after = published[20], published[21]
    assert (bad.valid, bad.reason, bad.z) == (False, Reason.STATE_UNKNOWN, None)
    # Its own tick is missing in later histories, and nothing else.
    invalid = [f.tick for f in published[SPEC.span_ticks :] if not f.valid]
    assert invalid == [20, 25, 30]
    assert after.valid


def test_a_state_that_stays_unknown_is_a_fault() -> None:
    published = run(shots(20, state=None))
    assert {f.reason for f in published} == {Reason.STATE_UNKNOWN}
    assert published[-1].mode is Mode.FAULT


def test_a_state_of_another_size_is_an_error_of_the_caller() -> None:
    script = shots(20, state=np.zeros(3, np.float32))
    with pytest.raises(EngineError, match=r"takes float32 \(2,\), got float32 \(3,\)"):
        run(script)


def test_a_model_without_a_state_ignores_one() -> None:
    """Negative control: a state is needed only where the model reads it."""
    plain = tiny_spec()
    assert run(shots(40, state=KNOWN), plain)[-1].valid
    assert run(shots(40), plain)[-1].valid


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"cameras": ()}, r"'frame_hwc_u8' is uint8 \[8, 8, 3\]"),
        ({"cameras": ("a", "b", "c")}, r"'frame_hwc_u8' is uint8 \[3, 8, 8, 3\]"),
        ({"state_names": ()}, "'state' is nothing"),
        ({"state_names": ("x",)}, r"'state' is float32 \[1\]"),
    ],
)
def test_engines_of_another_signature_are_refused(changes: dict, found: str) -> None:
    backend = FakeBackend(dataclasses.replace(SPEC, **changes))
    with pytest.raises(EngineError, match=found):
        check_engines(SPEC, backend.load(b"encode"), backend.load(b"forecast"))


def test_a_covered_camera_is_named_beside_one_that_sees() -> None:
    image = np.full((2, 8, 8, 3), 100, np.uint8)
    assert defect(image, REQUEST) is None
    image[1] = 0
    assert "all black of camera 'wrist'" in str(defect(image, REQUEST))
    assert "expected [2, 8, 8, 3]" in str(defect(image[0], REQUEST))


def test_a_source_without_the_state_or_with_other_cameras_is_refused_at_the_start() -> None:
    info = SourceInfo("arm", 8, 8, 10.0, cameras=2, has_state=True)
    check_start(info, REQUEST)
    with pytest.raises(CameraError, match="arm has no state, but the model reads x, grip"):
        check_start(dataclasses.replace(info, has_state=False), REQUEST)
    with pytest.raises(CameraError, match=r"--source front=\.\.\. --source wrist=\.\.\."):
        check_start(dataclasses.replace(info, cameras=1), REQUEST)
    with pytest.raises(CameraError, match="frames of 2 cameras, but the model takes one camera"):
        check_start(info, StreamRequest.of(tiny_spec()))


def test_a_robot_with_its_own_loop_gives_the_state_with_the_frame() -> None:
    clock, backend = FakeClock(), FakeBackend(SPEC)
    session = Session(SPEC, backend.load(b"encode"), backend.load(b"forecast"), clock=clock)
    image = np.full(SPEC.frame_shape, 100, np.uint8)
    given = session.step(Frame(image, state=KNOWN))
    assert given is not None
    assert given.z is not None
    assert given.z[0] == pytest.approx(100.75)
    missing = session.step(Frame(image, index=1, tick=1))
    assert missing is not None
    assert missing.reason is Reason.STATE_UNKNOWN
