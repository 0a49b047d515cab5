"""Frames of a video file, at the times in the file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource, pts_ns
from jetsight.cameras.source import Reading, SourceFormat, SourceInfo, StreamRequest
from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pyav import has_no_timestamps, import_av
from jetsight.engine import NDArray
from jetsight.errors import CameraError

_Timed = tuple[NDArray | None, int | None]  # a frame, and its time stamp in ns
_SLACK = 0.05  # containers round durations, and edit lists hide a few frames


class VideoSource(ReadingsSource):
    """Video file, decoded once from its start, without actions.

    Args:
        path: any container FFmpeg reads.
        declared: rate of its frames, and the form of its pictures.
    """

    def __init__(self, path: Path, declared: SourceFormat | None = None) -> None:
        super().__init__(str(path))
        self._declared = declared or SourceFormat()

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the file and decode its first picture.

        Raises:
            CameraError: it is no video, is truncated before its first frame, or has no time stamps
                and no declared rate.
            DataError: nothing says what the samples of its pictures mean.
        """
        stream = self._open_video(
            lambda av: av.open(self._label),
            cannot=f"cannot read {self._label} as a video",
            advice="it is truncated or of an unknown format, so copy it again or convert it to mp4",
            no_video="give a video or a folder",
        )
        stream.codec_context.thread_count = 1  # frame threads would delay every frame by one
        frames = _frames(stream, PictureReader(self._label, self._declared.picture))
        head: list[_Timed] = []
        # The first intact picture gives the size: a container states that before rotation.
        while not head or head[-1][0] is None:
            head.append(self._next(frames, len(head)))
        image, stamp_ns = head[-1]
        assert image is not None
        fps = self._fps(stream, stamped=stamp_ns is not None)
        self._readings = self._timed(itertools.chain(head, frames), stream, request.camera_hz)
        return SourceInfo(self._label, image.shape[0], image.shape[1], fps)

    def _next(self, frames: Iterator[_Timed], count: int) -> _Timed:
        found = next(frames, None)
        if found is None:
            raise CameraError(
                f"{self._label} holds no intact picture ({count} could not be decoded); it is "
                "damaged or truncated, so copy it again or convert it to mp4"
            )
        return found

    def _fps(self, stream: Any, *, stamped: bool) -> float | None:
        if self._declared.fps is not None:
            return self._declared.fps
        # Without stamps FFmpeg invents 25 frames per second.
        if not stamped or has_no_timestamps(stream.container):
            raise CameraError(
                f"{self._label} stores no time stamps, so the times of its frames are not known; "
                "give its rate, e.g. --fps 30"
            )
        return _own_rate(stream)

    def _timed(self, frames: Iterator[_Timed], stream: Any, model_hz: float) -> Iterator[Reading]:
        rate, declared = _own_rate(stream), self._declared.fps
        expected = _expected(stream, rate) if rate is not None else 0
        period_ns, count = round(1e9 / (declared or rate or model_hz)), 0
        media_ns = -period_ns
        for image, stamp_ns in frames:
            # A picture that was not decoded, or has no stamp, is one period after the one before.
            media_ns = media_ns + period_ns if stamp_ns is None or declared else stamp_ns
            count += 1
            yield Reading(image, media_ns)
        # At the end, after every intact frame was delivered.
        if count < expected * (1 - _SLACK):
            raise CameraError(
                f"{self._label} ends after {count} of about {expected} frames, which were all "
                "delivered; the file is truncated or damaged, so copy or record it again"
            )


def _frames(stream: Any, reader: PictureReader) -> Iterator[_Timed]:
    """Decode all frames with their stamps in ns; None for what is not intact or not stamped."""
    for picture in _pictures(stream):
        if picture is None:
            yield None, None
        else:
            image = None if picture.is_corrupt else reader.rgb(picture)
            yield image, pts_ns(picture, stream)


def _pictures(stream: Any) -> Iterator[Any]:
    """Decode all pictures; None for one that could not be decoded."""
    av = import_av()
    packets = stream.container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return  # the container is truncated; the number of frames reveals that
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            yield None


def _own_rate(stream: Any) -> float | None:
    """Return the rate that the file states or its stamps have; None if it has none."""
    return float(stream.average_rate or stream.guessed_rate or 0) or None


def _expected(stream: Any, fps: float) -> int:
    """Estimate the number of frames from the file's header; 0 if it is not recorded."""
    if has_no_timestamps(stream.container):
        return 0
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return round(float(stream.duration * stream.time_base) * fps)
    duration = stream.container.duration
    return round(duration / import_av().time_base * fps) if duration else 0
