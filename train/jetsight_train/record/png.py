"""PNG pictures of recorded episodes, which lose nothing.

Shapes: T frames of an episode, h, w frame size.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pyav import import_av


class PngEncoder:
    """Encoder of the pictures of one episode, into one file in memory.

    Raises:
        MissingDependency: PyAV is not installed.
    """

    def __init__(self) -> None:
        self._av = import_av("writing pictures")
        self._codec: Any = None
        self._pictures: list[bytes] = []

    def add(self, frame_hwc_u8: NDArray[np.uint8]) -> None:
        """Append a frame [h,w,3] RGB."""
        picture = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame_hwc_u8), format="rgb24"
        )
        if self._codec is None:
            self._codec = self._av.CodecContext.create("png", "w")
            self._codec.width, self._codec.height = picture.width, picture.height
            self._codec.pix_fmt, self._codec.time_base = "rgb24", Fraction(1, 1)
            self._codec.thread_count = 1
        picture.pts = len(self._pictures)
        self._pictures.append(b"".join(bytes(packet) for packet in self._codec.encode(picture)))

    def finish(self) -> bytes:
        """Return the file, for `read_pictures`."""
        sizes = np.array([len(picture) for picture in self._pictures], dtype=np.int64)
        stream = io.BytesIO()
        np.savez(stream, sizes=sizes, data=np.frombuffer(b"".join(self._pictures), np.uint8))
        return stream.getvalue()


def read_pictures(path: Path) -> list[bytes]:
    """Read the pictures of one episode, each a PNG file, that `PngEncoder` packed."""
    with np.load(path, allow_pickle=False) as archive:
        data, ends = archive["data"].tobytes(), np.cumsum(archive["sizes"]).tolist()
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
