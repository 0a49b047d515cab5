"""Frames of a video file, at the times in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource, pts_ns
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.pyav import import_av, rgb
from jetsight.errors import CameraError

_SLACK = 0.05  # containers round durations, and edit lists hide a few frames


class VideoSource(ReadingsSource):
    """Video file, decoded once from its start, without actions.

    Args:
        path: any container FFmpeg reads.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the file.

        Raises:
            CameraError: it is no video, or truncated before its first frame.
        """
        stream = self._open_video(
            lambda av: av.open(self._label),
            cannot=f"cannot read {self._label} as a video",
            advice="it is truncated or of an unknown format, so copy it again or convert it to mp4",
            no_video="give a video or a folder",
        )
        context = stream.codec_context
        context.thread_count = 1  # frame threads would delay every frame by one
        # A file that states no rate is taken to have the model's.
        fps = float(stream.average_rate or stream.guessed_rate or request.camera_hz)
        self._readings = self._decoded(stream, fps)
        return SourceInfo(self._label, context.height, context.width, fps)

    def _decoded(self, stream: Any, fps: float) -> Iterator[Reading]:
        expected = _expected(stream, fps)
        period_ns, media_ns, count = round(1e9 / fps), 0, 0
        for picture in _pictures(stream):
            count += 1
            known_ns = None if picture is None else pts_ns(picture, stream)
            # A picture that was not decoded, or has no stamp, is one period after the one before.
            media_ns = media_ns + period_ns if known_ns is None else known_ns
            whole = picture is not None and not picture.is_corrupt
            yield Reading(rgb(picture) if whole else None, media_ns)
        # At the end, after every intact frame was delivered.
        if count < expected * (1 - _SLACK):
            raise CameraError(
                f"{self._label} ends after {count} of about {expected} frames, which were all "
                "delivered; the file is truncated or damaged, so copy or record it again"
            )


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


def _expected(stream: Any, fps: float) -> int:
    """Estimate the number of frames from the file's header; 0 if it is not recorded."""
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return round(float(stream.duration * stream.time_base) * fps)
    duration = stream.container.duration
    return round(duration / import_av().time_base * fps) if duration else 0
