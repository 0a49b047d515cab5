"""V4L2 devices (on a stand-in for the driver) and RTSP (from a real server on this machine)."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from helpers.rtsp_server import RtspServer
from helpers.runtime.camera_factory import REQUEST, number, picture

from jetsight.cameras import Camera, StreamRequest
from jetsight.cameras.physical import DeviceSource, DriverStamps, RtspSource
from jetsight.clock import MonotonicClock
from jetsight.errors import CameraError
from jetsight.testing import FakeClock

RTSP = StreamRequest(32, 48, 10.0, action_block=2, plan_ticks=4, step_size=2)


class _FakeContainer:
    """What PyAV gives for a V4L2 device: packets of raw pictures with driver time stamps."""

    def __init__(self, stamps_us: list[int | None], width: int = 48, height: int = 32) -> None:
        context = SimpleNamespace(width=width, height=height, name="rawvideo")
        self.stream = SimpleNamespace(
            container=self,
            codec_context=context,
            average_rate=Fraction(30),
            time_base=Fraction(1, 1_000_000),
        )
        self.streams = SimpleNamespace(video=[self.stream])
        self._stamps_us = stamps_us
        self.closed = False

    def demux(self, stream: Any) -> Iterator[Any]:
        for i, stamp in enumerate(self._stamps_us):
            decoded = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            decoded.pts = stamp
            yield SimpleNamespace(decode=lambda decoded=decoded: [decoded])
        raise av.error.OSError(19, "No such device", "/dev/video0")

    def close(self) -> None:
        self.closed = True


def _device(
    monkeypatch: pytest.MonkeyPatch, stamps_us: list[int | None], clock: FakeClock
) -> tuple[DeviceSource, dict[str, Any]]:
    """A device source over a fake container, and the arguments it was opened with."""
    asked: dict[str, Any] = {}

    def fake_open(path: str, **options: Any) -> _FakeContainer:
        asked.update(path=path, **options)
        return _FakeContainer(stamps_us)

    monkeypatch.setattr(av, "open", fake_open)
    return DeviceSource("/dev/null", clock=clock), asked


def test_device_is_asked_for_size_and_rate_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = _device(monkeypatch, [], FakeClock())
    info = source.start(REQUEST)
    assert asked["format"] == "v4l2"
    assert asked["options"] == {"video_size": "48x32", "framerate": "10"}
    assert (info.physical, info.fps) == (True, 30.0)


def test_monotonic_driver_stamps_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(5_000_000_000)
    source, _ = _device(monkeypatch, [4_980_000, 4_990_000], clock)
    source.start(REQUEST)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert (first.stamp_ns, first.media_ns) == (4_980_000_000, 4_980_000_000)
    assert second.stamp_ns == 4_990_000_000
    with pytest.raises(CameraError, match=r"stopped delivering \(No such device\)"):
        source.read()


@pytest.mark.parametrize(
    "stamp_us",
    [None, 0, 1_790_000_000_000_000, 5_100_000, 3_900_000],
    ids=["none", "zero", "wall", "future", "old"],
)
def test_implausible_driver_stamps_are_given_up_for_good(
    monkeypatch: pytest.MonkeyPatch, stamp_us: int | None
) -> None:
    source, _ = _device(monkeypatch, [stamp_us, 4_990_000], FakeClock(5_000_000_000))
    source.start(REQUEST)
    for _ in range(2):  # the second stamp would be plausible; belief is gone
        reading = source.read()
        assert reading is not None
        assert (reading.stamp_ns, reading.media_ns) == (None, 5_000_000_000)


def test_stamps_at_the_edge_of_plausible() -> None:
    clock = FakeClock(5_000_000_000)
    assert DriverStamps(clock).capture_ns(5_000_000_000) == 5_000_000_000
    assert DriverStamps(clock).capture_ns(4_000_000_001) == 4_000_000_001
    assert DriverStamps(clock).capture_ns(4_000_000_000) is None


def test_missing_and_forbidden_devices_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CameraError, match="there is no camera /dev/video99"):
        DeviceSource("/dev/video99", clock=FakeClock()).start(REQUEST)
    path = tmp_path / "video0"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(CameraError, match="usermod -aG video"):
        DeviceSource(str(path), clock=FakeClock()).start(REQUEST)


def test_device_that_is_no_camera_says_what_to_look_at() -> None:
    with pytest.raises(CameraError, match=r"cannot open /dev/null .*v4l2-ctl"):
        DeviceSource("/dev/null", clock=FakeClock()).start(REQUEST)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_rtsp_without_a_server_is_one_line() -> None:
    url = f"rtsp://127.0.0.1:{_free_port()}/camera"
    with pytest.raises(CameraError, match=r"cannot open rtsp://.*Connection refused.*reachable"):
        RtspSource(url, clock=MonotonicClock()).start(REQUEST)


def test_rtsp_stream_is_received_at_the_times_of_the_sender() -> None:
    with RtspServer() as server:
        source = RtspSource(server.url, clock=MonotonicClock())
        info = source.start(RTSP)
        found = [source.read() for _ in range(8)]
        source.close()
    assert (info.height_px, info.width_px, info.fps, info.physical) == (32, 48, 10.0, True)
    numbers = [number(reading.image_hwc_u8) for reading in found if reading is not None]
    assert np.diff(numbers).tolist() == [1] * 7 or 0 in numbers  # the film repeats after 40
    gaps = np.diff([reading.media_ns for reading in found if reading is not None])
    assert gaps.tolist() == [100_000_000] * 7
    assert all(reading is not None and reading.stamp_ns is None for reading in found)


def test_rtsp_camera_that_hangs_up_is_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetsight.cameras.camera._BACKOFF_NS", (10_000_000, 10_000_000))
    with RtspServer(frames=60, interval_s=0.005) as server:
        camera = Camera.open(server.url)
        camera.start(RTSP)
        ticks: list[int] = []
        while server.connections < 3:
            frame = camera.next(20_000_000)
            ticks += [] if frame is None else [frame.tick]
        camera.close()
    assert ticks == sorted(set(ticks))
    assert camera.stamps == "arrival"
    jumps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(jumps) > RTSP.action_block  # no history reaches across the reconnection
