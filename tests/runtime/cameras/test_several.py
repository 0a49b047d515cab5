"""Frames of several cameras that were captured together, without a clock and with threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from helpers.runtime.camera_factory import REQUEST, number, picture, readings, video

from jetsight.cameras import Camera, Reading, SourceInfo, StreamRequest
from jetsight.cameras.several import FramePairing, SeveralSources, TimedReading
from jetsight.cameras.source_uri import named_sources, open_sources
from jetsight.errors import CameraError, UsageError
from jetsight.testing import FakeClock

PERIOD_MS = 100
TWO = replace(REQUEST, cameras=("front", "wrist"))


def paired(front_ms: list[int], wrist_ms: list[int]) -> tuple[list[tuple[int, ...]], FramePairing]:
    """Pairs of capture times, as the frames arrive in order of time."""
    pairing = FramePairing(("front", "wrist"), PERIOD_MS * 1_000_000)
    found = []
    arrivals = [(t, 0) for t in front_ms] + [(t, 1) for t in wrist_ms]
    for time_ms, camera in sorted(arrivals):
        pairing.add(camera, TimedReading(time_ms * 1_000_000, Reading(None, 0)))
        while shots := pairing.match():
            found.append(tuple(shot.time_ns // 1_000_000 for shot in shots))
    return found, pairing


def test_frames_of_one_instant_are_paired() -> None:
    found, pairing = paired([0, 100, 200], [0, 100, 200])
    assert found == [(0, 0), (100, 100), (200, 200)]
    assert pairing.unpaired == {"front": 0, "wrist": 0}


@pytest.mark.parametrize(("skew", "together"), [(20, True), (21, False), (-20, True), (-21, False)])
def test_a_fifth_of_a_period_is_the_limit(skew: int, together: bool) -> None:
    front = [1000, 1100, 1200]
    found, pairing = paired(front, [t + skew for t in front])
    assert found == ([(t, t + skew) for t in front] if together else [])
    assert together == (sum(pairing.unpaired.values()) == 0)


def test_a_lost_frame_drops_its_partner_and_nothing_else() -> None:
    found, pairing = paired([0, 100, 200, 300], [5, 205, 305])
    assert found == [(0, 5), (200, 205), (300, 305)]
    assert pairing.unpaired == {"front": 1, "wrist": 0}


def test_a_faster_camera_gives_its_nearest_frame() -> None:
    pairing = FramePairing(("front", "wrist"), PERIOD_MS * 1_000_000)
    for time_ms in (85, 95, 105):
        pairing.add(0, TimedReading(time_ms * 1_000_000, Reading(None, 0)))
    pairing.add(1, TimedReading(97 * 1_000_000, Reading(None, 0)))
    shots = pairing.match()
    assert shots is not None
    assert [shot.time_ns // 1_000_000 for shot in shots] == [95, 97]
    assert pairing.unpaired == {"front": 0, "wrist": 0}


def test_a_camera_out_of_step_is_named_once_per_period() -> None:
    pairing = FramePairing(("front", "wrist"), PERIOD_MS * 1_000_000)
    said = []
    for time_ms in range(0, 1000, PERIOD_MS):
        for camera, late in ((0, 0), (1, 30)):
            pairing.add(camera, TimedReading((time_ms + late) * 1_000_000, Reading(None, 0)))
            assert pairing.match() is None
            said += [late.reading.why] if (late := pairing.overdue()) else []
    assert len(said) in (7, 8)
    assert "camera 'wrist' is 30 ms later than 'front', expected at most 20 ms" in said[0]


def test_recordings_are_read_in_step(tmp_path) -> None:
    files = [str(video(tmp_path / f"{name}.mp4")) for name in ("front", "wrist")]
    found = readings(open_sources(files, clock=FakeClock()), TWO)
    assert len(found) == 40
    assert all(reading.image_hwc_u8 is not None for reading in found)
    camera = Camera.open({"wrist": files[1], "front": files[0]}, rate_hz=0)
    info = camera.start(TWO)
    assert (info.cameras, info.height_px, info.width_px) == (2, 32, 48)
    frame = camera.next(5_000_000_000)
    assert frame is not None
    assert frame.image_hwc_u8.shape == (2, 32, 48, 3)
    assert [number(each) for each in frame.image_hwc_u8] == [0, 0]
    camera.close()


def test_recordings_of_two_rates_pair_what_belongs_together(tmp_path) -> None:
    files = [str(video(tmp_path / f"{fps}.mp4", fps=fps)) for fps in (10, 20)]
    sources = open_sources(files, clock=FakeClock())
    numbers = []
    sources.start(TWO)
    while (reading := sources.read()) is not None:
        assert reading.image_hwc_u8 is not None
        numbers.append([number(each) for each in reading.image_hwc_u8])
    assert numbers == [[i, 2 * i] for i in range(20)]
    sources.close()


class Live:
    """A physical camera that delivers a script, then waits until its cable is pulled."""

    def __init__(self, label: str, script: Iterable[Reading]) -> None:
        self.label, self._script = label, iter(script)
        self.pulled = threading.Event()

    def start(self, request: StreamRequest) -> SourceInfo:
        size = request.height_px, request.width_px
        return SourceInfo(self.label, *size, request.camera_hz, physical=True)

    def read(self) -> Reading | None:
        reading = next(self._script, None)
        if reading is None:
            self.pulled.wait(5.0)
            raise CameraError("the cable was pulled")
        return reading

    def close(self) -> None:
        return None


@contextlib.contextmanager
def live(*scripts: Iterable[Reading]) -> Iterator[tuple[SeveralSources, list[Live], FakeClock]]:
    cameras = [Live(f"/dev/video{i}", script) for i, script in enumerate(scripts)]
    clock = FakeClock()
    sources = SeveralSources(cameras, clock)
    try:
        yield sources, cameras, clock
    finally:
        for camera in cameras:  # a reader that still waits would hold up `close`
            camera.pulled.set()
        sources.close()


def stamped(late_ms: int = 0, count: int = 4) -> list[Reading]:
    """Numbered pictures 100 ms apart, stamped by the driver."""
    stamps = [(1000 + 100 * i + late_ms) * 1_000_000 for i in range(count)]
    return [Reading(picture(i), stamp, stamp) for i, stamp in enumerate(stamps)]


def test_live_cameras_are_paired_by_the_stamps_of_their_drivers() -> None:
    with live(stamped(), stamped(late_ms=7)) as (sources, cameras, _):
        info = sources.start(TWO)
        assert (info.physical, info.cameras, info.label) == (True, 2, "/dev/video0 + /dev/video1")
        for i in range(4):
            reading = sources.read()
            assert reading is not None
            assert reading.image_hwc_u8 is not None
            assert [number(each) for each in reading.image_hwc_u8] == [i, i]
            assert reading.stamp_ns == (1000 + 100 * i) * 1_000_000
        cameras[1].pulled.set()
        with pytest.raises(CameraError, match="camera 'wrist': the cable was pulled"):
            sources.read()


def test_a_silent_camera_is_named() -> None:
    """The front camera goes on delivering as time passes; the wrist camera does not."""
    clock = FakeClock()

    def front() -> Iterator[Reading]:
        for i in range(16):
            yield Reading(picture(i), clock.now_ns())
            clock.advance(100_000_000)

    cameras = [Live("front", front()), Live("wrist", ())]
    sources = SeveralSources(cameras, clock)
    sources.start(TWO)
    with pytest.raises(CameraError, match=r"camera 'wrist' delivered no frame for 1\.\d s"):
        sources.read()
    for camera in cameras:
        camera.pulled.set()
    sources.close()


def test_a_recording_beside_a_physical_camera_is_refused(tmp_path) -> None:
    recording = open_sources(str(video(tmp_path / "a.mp4")), clock=FakeClock())
    both = SeveralSources([Live("arm", ()), recording], FakeClock())
    with pytest.raises(CameraError, match="no common time line"):
        both.start(TWO)
    both.close()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("front", "wirst"), "no camera 'wirst'; did you mean 'wrist'?"),
        (("front",), "no source of 'wrist'; add --source wrist=..."),
    ],
)
def test_names_that_are_not_the_models_are_refused(names, message: str, tmp_path) -> None:
    path = str(video(tmp_path / "a.mp4"))
    sources = open_sources(dict.fromkeys(names, path), clock=FakeClock())
    with pytest.raises(CameraError, match=message.replace("?", r"\?")):
        sources.start(TWO)


def test_another_number_of_sources_is_refused(tmp_path) -> None:
    path = str(video(tmp_path / "a.mp4"))
    for count in (3, 2):
        request = TWO if count == 3 else REQUEST
        with pytest.raises(CameraError, match=f"{count} sources were given, but the model takes"):
            open_sources([path] * count, clock=FakeClock()).start(request)
    camera = Camera.open(path)
    with pytest.raises(CameraError, match=r"--source front=\.\.\. --source wrist=\.\.\."):
        camera.start(TWO)


def test_options_name_every_camera_or_none(tmp_path) -> None:
    assert named_sources(["front=/dev/video0", "wrist=/dev/video2"]) == {
        "front": "/dev/video0",
        "wrist": "/dev/video2",
    }
    assert named_sources(["a.mp4", "b.mp4"]) == ["a.mp4", "b.mp4"]
    assert named_sources(["rtsp://host/x?y=1"]) == "rtsp://host/x?y=1"
    odd = tmp_path / "a=b.mp4"
    odd.touch()
    assert named_sources([str(odd)]) == str(odd)
    for wrong in (["front=a", "b"], ["front=a", "front=b"]):
        with pytest.raises(UsageError, match="name every camera once"):
            named_sources(wrong)
    with pytest.raises(UsageError, match="a world of its own"):
        open_sources(["gym:A-v0", "gym:A-v0"], clock=FakeClock())


def test_a_picture_that_cannot_be_decoded_names_its_camera() -> None:
    with live(stamped(), [Reading(None, 0, 1_000_000_000)]) as (sources, _, _):
        sources.start(TWO)
        reading = sources.read()
        assert reading is not None
        assert reading.image_hwc_u8 is None
        assert "of camera 'wrist' is no picture" in reading.why


def test_a_state_function_stands_beside_live_cameras() -> None:
    request = replace(TWO, state_names=("x", "grip"))
    state = np.array([0.25, 1.0], np.float32)
    with live(stamped(), stamped()) as (sources, cameras, clock):
        camera = Camera(sources, clock=clock, state=lambda: state)
        assert camera.start(request).cameras == 2
        frame = camera.next(5_000_000_000)
        assert frame is not None
        assert frame.state is not None
        assert frame.state.tolist() == [0.25, 1.0]
        for each in cameras:
            each.pulled.set()
        camera.close()
    no_state = pytest.raises(CameraError, match="has no state, but the model reads x, grip")
    with live(stamped(), stamped()) as (sources, _, clock), no_state:
        Camera(sources, clock=clock).start(request)


def test_a_state_of_another_size_ends_the_stream() -> None:
    request = replace(TWO, state_names=("x", "grip"))
    with live(stamped(), stamped()) as (sources, _, clock):
        camera = Camera(sources, clock=clock, state=lambda: np.zeros(3, np.float32))
        camera.start(request)
        while not camera.ended:
            camera.next(10_000_000)
        with pytest.raises(CameraError, match=r"has the shape \[3\], but the model reads x, grip"):
            camera.raise_for_error()
