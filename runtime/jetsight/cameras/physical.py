"""Physical cameras: V4L2 devices and RTSP streams, through PyAV."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource, pts_ns
from jetsight.cameras.source import Reading, SourceFormat, SourceInfo, StreamRequest
from jetsight.clock import Clock
from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pyav import import_av
from jetsight.errors import CameraError, first_line

_PLAUSIBLE_NS = 1_000_000_000  # largest age of a driver stamp when its frame arrives
_OPEN_S, _READ_S = 5.0, 2.0  # time-outs after which a network camera counts as lost
_RATES_HZ = (1.0, 1000.0)  # containers without a rate report nonsense like 90000


class DriverStamps:
    """Conversion of a driver's stamps into capture times, as long as they are plausible.

    V4L2 stamps frames with CLOCK_MONOTONIC, the session's clock; but some drivers leave them zero,
    and some use the wall clock. A stamp is trusted if it is in the last second.

    Args:
        clock: the session's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.trusted = True

    def capture_ns(self, driver_ns: int | None) -> int | None:
        """Convert `driver_ns` to the session's clock; None to use the time of arrival."""
        if driver_ns is None or not 0 <= self._clock.now_ns() - driver_ns < _PLAUSIBLE_NS:
            self.trusted = False  # for good: a stamp that is sometimes wrong is worse than none
        return driver_ns if self.trusted else None


class _LiveSource(ReadingsSource, ABC):
    """Frames of one FFmpeg input that paces itself."""

    def __init__(self, label: str, clock: Clock, declared: SourceFormat | None) -> None:
        super().__init__(label)
        self._clock = clock
        # A live source is stamped on arrival where it has no stamps: no rate has to be declared.
        self._reader = PictureReader(label, declared.picture if declared else None)

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
            # A damaged packet costs one frame, which is rejected and counted; the stream goes on.
            yield Reading(None, self._clock.now_ns())
            return
        for picture in pictures:
            image = None if picture.is_corrupt else self._reader.rgb(picture)
            yield self._reading(image, pts_ns(picture, stream))

    @abstractmethod
    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        """Stamp a decoded picture; `input_ns` is the input's own time stamp."""


class DeviceSource(_LiveSource):
    """A V4L2 device, opened at exactly the model's size and rate.

    Args:
        path: e.g. `/dev/video0`.
        clock: the session's clock, to check the driver's stamps.
        rate_hz: frames per second to set; None for the model's.
        declared: form of its pictures.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        rate_hz: float | None = None,
        declared: SourceFormat | None = None,
    ) -> None:
        super().__init__(path, clock, declared)
        self._rate_hz = rate_hz
        self._stamps = DriverStamps(clock)

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the device.

        Raises:
            CameraError: there is no such device, it may not be read, is busy, or has no such mode.
        """
        _check_device(self._label)
        size, rate = f"{request.width_px}x{request.height_px}", self._rate_hz or request.camera_hz
        options = {"video_size": size, "framerate": f"{rate:g}"}
        hint = (
            f"it is in use by another program, or cannot deliver {size} at {rate:g} Hz: see "
            f"v4l2-ctl --device {self._label} --list-formats-ext"
        )
        return self._begin(lambda av: av.open(self._label, format="v4l2", options=options), hint)

    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        stamp_ns = self._stamps.capture_ns(input_ns)
        # Ticks follow the same clock as the stamps, so they agree with the age of a frame.
        media_ns = self._clock.now_ns() if stamp_ns is None else stamp_ns
        return Reading(image, media_ns, stamp_ns)


class RtspSource(_LiveSource):
    """RTSP stream over TCP with the smallest buffers of FFmpeg.

    The tick is taken from the sender's time stamps, the capture time from arrival: RTSP does not
    report the time a frame spent in transit.

    Args:
        url: `rtsp://...`.
        clock: the session's clock.
        declared: form of its pictures.
    """

    def __init__(self, url: str, *, clock: Clock, declared: SourceFormat | None = None) -> None:
        super().__init__(url, clock, declared)
        self._options = {
            "rtsp_transport": "tcp",
            "fflags": "nobuffer",
            "flags": "low_delay",
            "reorder_queue_size": "0",
            "timeout": str(round(_OPEN_S * 1e6)),  # us
        }

    def start(self, request: StreamRequest) -> SourceInfo:
        """Connect.

        Raises:
            CameraError: the camera does not respond, or has no video.
        """
        return self._begin(
            lambda av: av.open(self._label, options=self._options, timeout=(_OPEN_S, _READ_S)),
            "check the address, and that the camera is on and reachable",
        )

    def _reading(self, image: Any, input_ns: int | None) -> Reading:
        return Reading(image, self._clock.now_ns() if input_ns is None else input_ns)


def _check_device(path: str) -> None:
    # FFmpeg's own error names neither the other devices nor the missing group.
    if not os.path.exists(path):
        found = ", ".join(str(p) for p in sorted(Path("/dev").glob("video*"))) or "none"
        raise CameraError(f"there is no camera {path}; devices found: {found}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(
            f"this user may not use {path}; add it to the group: sudo usermod -aG video $USER, "
            "then log in again"
        )
