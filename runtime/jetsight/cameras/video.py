"""Frames of a video file, at the times the file gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.pyav import import_av, rgb, whole_only
from jetsight.errors import CameraError, first_line

_SLACK = 0.05  # containers round durations, and edit lists hide a few frames


class VideoSource:
    """Decodes a file once from its start; a recording knows no actions.

    Args:
        path: any container FFmpeg reads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: Any = None
        self._readings: Iterator[Reading] = iter(())

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the file.

        Raises:
            CameraError: it is no video, or cut off before anything can be read.
        """
        av = import_av()
        try:
            self._container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError) as error:
            raise CameraError(
                f"cannot read {self._path} as a video ({first_line(error)}); it is truncated "
                "or of an unknown format, so copy it again or convert it to mp4"
            ) from error
        streams = self._container.streams.video
        if not streams:
            raise CameraError(f"{self._path} has no video stream; give a video or a folder")
        stream = streams[0]
        whole_only(stream)
        context = stream.codec_context
        context.thread_count = 1  # frame threads would delay every frame by one
        fps = float(stream.average_rate or stream.guessed_rate or request.camera_hz)
        self._readings = self._decoded(av, stream, fps)
        return SourceInfo(str(self._path), context.height, context.width, fps)

    def read(self) -> Reading | None:
        """Next frame.

        Raises:
            CameraError: at the end, when there are fewer frames than the file says.
        """
        return next(self._readings, None)

    def close(self) -> None:
        """Close the file."""
        self._readings = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decoded(self, av: Any, stream: Any, fps: float) -> Iterator[Reading]:
        expected = self._expected(av, stream, fps)
        period_ns, media_ns, count = round(1e9 / fps), 0, 0
        for picture in self._pictures(av, stream):
            count += 1
            known = picture is not None and picture.pts is not None
            pts_ns = round(picture.pts * stream.time_base * 1_000_000_000) if known else None
            media_ns = media_ns + period_ns if pts_ns is None else pts_ns
            whole = picture is not None and not picture.is_corrupt
            yield Reading(rgb(picture) if whole else None, media_ns)
        if count < expected * (1 - _SLACK):
            raise CameraError(
                f"{self._path} ends after {count} of about {expected} frames, which were all "
                "delivered; the file is truncated or damaged, so copy or record it again"
            )

    def _pictures(self, av: Any, stream: Any) -> Iterator[Any]:
        """Decoded pictures; None for what could not be decoded."""
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                return  # the container itself is cut off; the frame count tells
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                yield None

    def _expected(self, av: Any, stream: Any, fps: float) -> int:
        """How many frames the file says it has; 0 when it does not say."""
        if stream.frames:
            return int(stream.frames)
        if stream.duration:
            return round(float(stream.duration * stream.time_base) * fps)
        duration = self._container.duration
        return round(duration / av.time_base * fps) if duration else 0
