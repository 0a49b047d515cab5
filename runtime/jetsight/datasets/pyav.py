"""PyAV, used one way everywhere: import, images from memory, decoder options, and resizing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import MissingDependency

_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS of FFmpeg


def import_av(purpose: str = "reading a camera or video") -> Any:
    """Import PyAV, an optional library.

    Args:
        purpose: noun phrase for its use, in the message.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingDependency("av", "camera", purpose) from None
    return av


def resize(image: NDArray, height: int, width: int) -> NDArray:
    """Resize an image `uint8 [h, w, 3]` by area averaging; unchanged if it has that size.

    Raises:
        MissingDependency: PyAV is not installed.
    """
    image = np.ascontiguousarray(image)
    if image.shape[:2] == (height, width):
        return image
    picture = import_av("resizing a frame").VideoFrame.from_ndarray(image, format="rgb24")
    small = picture.reformat(width=width, height=height, interpolation="AREA")
    return np.asarray(small.to_ndarray(format="rgb24"))


def has_no_timestamps(container: Any) -> bool:
    """Return whether the format of an input stores no time stamps, so that FFmpeg invents them."""
    return bool(container.format.flags & _NO_TIMESTAMPS)


def decode_image(data: bytes) -> Any | None:
    """Decode an image file in memory to a picture; None if it holds no intact one.

    Raises:
        FFmpegError: PyAV's; it is no image, or damaged.
        MissingDependency: PyAV is not installed.
    """
    # From memory: in a path, FFmpeg would read a % as a number pattern.
    with import_av().open(io.BytesIO(data)) as container:
        if not container.streams.video:
            return None
        # A truncated JPEG would otherwise be filled up with grey.
        whole_only(container.streams.video[0])
        picture = next(container.decode(video=0), None)
    return None if picture is None or picture.is_corrupt else picture


def whole_only(stream: Any) -> None:
    """Make the decoder of JPEG pictures refuse a damaged one instead of filling it with grey."""
    # Only JPEG: video codecs flag a damaged picture themselves, and with this option they refuse
    # good ones too.
    if stream.codec_context.name == "mjpeg":
        stream.codec_context.options = {"err_detect": "explode"}
