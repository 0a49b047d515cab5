"""Physical cameras: V4L2 devices and RTSP streams, through PyAV."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource, pts_ns
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.clock import Clock
from jetsight.datasets.pyav import import_av, rgb
from jetsight.errors import CameraError, first_line

_PLAUSIBLE_NS = 1_000_000_000  # a driver stamp is at most this old when its frame arrives
_OPEN_S, _READ_S = 5.0, 2.0  # how long a network camera may take before it counts as gone
_RATES_HZ = (1.0, 1000.0)  # containers without a rate report nonsense like 90000


class DriverStamps:
    """Decides whether a driver's stamps are on our clock, and turns them into capture times.

    V4L2 stamps frames with CLOCK_MONOTONIC, the session's clock; but some drivers leave them zero,
    and some use the wall clock. A stamp is believed if it is in the last second; one that is not
    ends belief for good, because a stamp that is sometimes wrong is worse than none.

    Args:
        clock: the session's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.trusted = True

    def capture_ns(self, driver_ns: int | None) -> int | None:
        """`driver_ns` as a time on the session's clock; None when arrival time must do."""
        if driver_ns is None or not 0 <= self._clock.now_ns() - driver_ns < _PLAUSIBLE_NS:
            self.trusted = False
        return driver_ns if self.trusted else None


class _LiveSource(ReadingsSource, ABC):
    """Frames of one FFmpeg input that paces itself."""

    def __init__(self, label: str, clock: Clock) -> None:
        super().__init__(label)
        self._clock = clock

    def _begin(self, open_input: Callable[[Any], Any], hint: str) -> SourceInfo:
        cannot = f"cannot open {self._label}"
        stream = self._open_video(open_input, cannot, advice=hint, no_video=hint)
        rate = float(stream.average_rate or 0)
        fps = rate if _RATES_HZ[0] <= rate <= _RATES_HZ[1] else None
        self._readings = self._decoded(stream)
        context = stream.codec_context
        return SourceInfo(self._label, context.height, context.width, fps, physical=True)

    def _decoded(self, stream: Any) -> Iterator[Reading]:
        av = import_av()
        packets = stream.container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                raise CameraError(
                    f"{self._label} stopped delivering ({first_line(error)})"
                ) from error
            if packet is None:
                return
            yield from self._pictures(av, packet, stream)

    def _pictures(self, av: Any, packet: Any, stream: Any) -> Iterator[Reading]:
        try:
            pictures = packet.decode()
        except av.error.FFmpegError:
            yield Reading(None, self._clock.now_ns())
            return
        for picture in pictures:
            image = None if picture.is_corrupt else rgb(picture)
            yield self._reading(image, pts_ns(picture, stream))

    @abstractmethod
    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        """Stamp a decoded picture; `input_ns` is the input's own time stamp."""


class DeviceSource(_LiveSource):
    """A V4L2 device, opened at exactly the model's size and rate.

    Args:
        path: e.g. `/dev/video0`.
        clock: the session's clock, which the driver's stamps are compared with.
        rate_hz: rate to ask for; None for the model's.
    """

    def __init__(self, path: str, *, clock: Clock, rate_hz: float | None = None) -> None:
        super().__init__(path, clock)
        self._rate_hz = rate_hz
        self._stamps = DriverStamps(clock)

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the device.

        Raises:
            CameraError: there is no such device, it may not be read, is busy, or cannot do this.
        """
        _check_device(self._label)
        rate_hz = self._rate_hz or request.camera_hz
        options = {
            "video_size": f"{request.width_px}x{request.height_px}",
            "framerate": f"{rate_hz:g}",
        }
        hint = (
            "it is in use by another program, or cannot deliver "
            f"{options['video_size']} at {options['framerate']} Hz: see v4l2-ctl "
            f"--device {self._label} --list-formats-ext"
        )
        return self._begin(lambda av: av.open(self._label, format="v4l2", options=options), hint)

    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        stamp_ns = self._stamps.capture_ns(input_ns)
        media_ns = self._clock.now_ns() if stamp_ns is None else stamp_ns
        return Reading(image, media_ns, stamp_ns)


class RtspSource(_LiveSource):
    """An RTSP stream over TCP with the buffers of FFmpeg turned down.

    The tick is taken from the sender's time stamps, the capture time from arrival: nothing in RTSP
    says how long a frame was on its way.

    Args:
        url: `rtsp://...`.
        clock: the session's clock.
        options: more options for FFmpeg's RTSP demuxer.
    """

    def __init__(self, url: str, *, clock: Clock, options: dict[str, str] | None = None) -> None:
        super().__init__(url, clock)
        self._options = {
            "rtsp_transport": "tcp",
            "fflags": "nobuffer",
            "flags": "low_delay",
            "reorder_queue_size": "0",
            "timeout": str(round(_OPEN_S * 1e6)),
            **(options or {}),
        }

    def start(self, request: StreamRequest) -> SourceInfo:
        """Connect.

        Raises:
            CameraError: nothing answers, or there is no video.
        """
        return self._begin(
            lambda av: av.open(self._label, options=self._options, timeout=(_OPEN_S, _READ_S)),
            "check the address, and that the camera is on and reachable",
        )

    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        return Reading(image, self._clock.now_ns() if input_ns is None else input_ns)


def _check_device(path: str) -> None:
    if not os.path.exists(path):
        found = ", ".join(str(p) for p in sorted(Path("/dev").glob("video*"))) or "none"
        raise CameraError(f"there is no camera {path}; devices found: {found}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(
            f"this user may not use {path}; add it to the group: sudo usermod -aG video $USER, "
            "then log in again"
        )
