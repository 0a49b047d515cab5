"""Tiny recordings made on the spot, and a way to read a source to its end."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np

from jetsight.cameras import Reading, Source, StreamRequest

REQUEST = StreamRequest(32, 48, 10.0, action_block=5, plan_ticks=25, step_size=2)


def picture(i: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A frame whose brightness says its number."""
    return np.full((height, width, 3), 20 + 4 * i, np.uint8)


def number(image: np.ndarray | None) -> int:
    """The number of a frame made by `picture`."""
    assert image is not None
    return round((float(image.mean()) - 20) / 4)


def video(path: Path, count: int = 40, fps: int = 10, codec: str = "libx264") -> Path:
    """A film of `count` numbered key frames."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 1
        for i in range(count):
            shot = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            container.mux(stream.encode(shot))
        container.mux(stream.encode())
    return path


def encoded(image: np.ndarray, codec: str) -> bytes:
    """One picture as a file."""
    with io.BytesIO() as file:
        with av.open(file, "w", format="image2pipe") as container:
            stream = container.add_stream(codec, rate=1)
            stream.width, stream.height = image.shape[1], image.shape[0]
            stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
            shot = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(shot))
            container.mux(stream.encode())
        return file.getvalue()


def readings(source: Source, request: StreamRequest = REQUEST, limit: int = 1000) -> list[Reading]:
    """Everything a source delivers, up to `limit`."""
    source.start(request)
    found: list[Reading] = []
    try:
        while len(found) < limit and (reading := source.read()) is not None:
            found.append(reading)
    finally:
        source.close()
    return found
