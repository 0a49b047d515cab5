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


def encode(frames_u8: NDArray[np.uint8], fps: int) -> bytes:
    """Encode `frames_u8` [T,h,w,3] RGB as an H.264 mp4 file, frame t at t / fps seconds."""
    av = import_av(_PURPOSE)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(CODEC, rate=fps, options=dict(OPTIONS))
        stream.width, stream.height = frames_u8.shape[2], frames_u8.shape[1]
        stream.pix_fmt = PIXELS
        context = stream.codec_context
        context.thread_count = 1  # the same frames give the same bytes
        context.time_base = Fraction(1, fps)
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = 1  # limited ("tv")
        for index, frame_u8 in enumerate(frames_u8):
            picture = av.VideoFrame.from_ndarray(frame_u8, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def join(path: Path, parts: Sequence[Path], lengths: Iterable[int], fps: int) -> None:
    """Concatenate `parts` into one mp4 at `path` by copying packets.

    Args:
        path: file to write.
        parts: mp4 files made by `encode` with equal size and settings.
        lengths: number of frames in each part.
        fps: frames per second of all of them.
    """
    av = import_av(_PURPOSE)
    with av.open(str(path), "w", format="mp4") as out:
        stream: Any = None
        start = 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                # From the number of frames and exact, so that no rounding adds up over many parts.
                shift = round(Fraction(start, fps) / video.time_base)
                for packet in source.demux(video):
                    if packet.dts is None:  # the flush packet at the end
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
            start += length
