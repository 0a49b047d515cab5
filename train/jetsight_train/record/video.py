"""H.264 for recorded episodes: encode one episode, join many without encoding again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pyav import import_av

_PURPOSE = "writing video"
CODEC = "libx264"
PIXELS = "yuv420p"
# A key frame every second frame, so that any frame is reached by decoding two; no B-frames, so that
# decode order is display order. At 96x96 px, PushT: 560 bytes a frame and 38.8 dB, the loss of
# halving the chroma alone.
OPTIONS = {"crf": "14", "preset": "medium", "g": "2", "bf": "0"}
_BT601 = 6  # AVCOL_*_SMPTE170M, the default with which swscale converts RGB


def exact_rate(fps: float) -> Fraction:
    """Return the exact rate that a rounded number of frames per second stands for."""
    # Television's rates, such as 30000/1001, have this denominator.
    return Fraction(fps).limit_denominator(1001)


class Encoder:
    """Encoder of one H.264 mp4 file in memory, frame t at t / fps seconds.

    Args:
        fps: frames per second.

    Raises:
        MissingDependency: PyAV is not installed.
    """

    def __init__(self, fps: float) -> None:
        self._av = import_av(_PURPOSE)
        self._rate = exact_rate(fps)
        self._file = io.BytesIO()
        self._container = self._av.open(self._file, "w", format="mp4")
        self._stream: Any = None
        self._count = 0

    def add(self, frame_hwc_u8: NDArray[np.uint8]) -> None:
        """Append a frame [h,w,3] RGB."""
        if self._stream is None:
            self._stream = self._open(*frame_hwc_u8.shape[:2])
        picture = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame_hwc_u8), format="rgb24"
        )
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._count += 1

    def finish(self) -> bytes:
        """Return the file; at least one frame must have been added."""
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._file.getvalue()

    def _open(self, height: int, width: int) -> Any:
        stream = self._container.add_stream(CODEC, rate=self._rate, options=dict(OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, PIXELS
        context = stream.codec_context
        context.thread_count = 1  # the same frames give the same bytes
        context.time_base = 1 / self._rate
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = 1  # limited ("tv")
        return stream


def encode(frames_u8: NDArray[np.uint8], fps: float) -> bytes:
    """Encode `frames_u8` [T,h,w,3] RGB as an H.264 mp4 file, frame t at t / fps seconds."""
    encoder = Encoder(fps)
    for frame_u8 in frames_u8:
        encoder.add(frame_u8)
    return encoder.finish()


def join(path: Path, parts: Sequence[Path], lengths: Iterable[int], fps: float) -> None:
    """Concatenate `parts` into one mp4 at `path` by copying packets.

    Args:
        path: file to write.
        parts: mp4 files made by `encode` with equal size and settings.
        lengths: number of frames in each part.
        fps: frames per second of all of them.
    """
    av, rate = import_av(_PURPOSE), exact_rate(fps)
    with av.open(str(path), "w", format="mp4") as out:
        stream: Any = None
        start = 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                # From the number of frames and exact, so that no rounding adds up over many parts.
                shift = round(start / rate / video.time_base)
                for packet in source.demux(video):
                    if packet.dts is None:  # the flush packet at the end
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
            start += length
