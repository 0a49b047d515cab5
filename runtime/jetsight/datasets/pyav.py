"""PyAV, used one way everywhere: import, conversion to RGB, and resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import MissingDependency


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


def rgb(picture: Any) -> NDArray:
    """Convert a decoded picture to RGB, `uint8 [h, w, 3]`.

    The one conversion from YUV: swscale's, with the matrix and range the picture declares, so
    training, calibration and the running robot see the same pixels.
    """
    return np.asarray(picture.to_ndarray(format="rgb24"))


def resize(image: NDArray, height: int, width: int) -> NDArray:
    """Resize an image `uint8 [h, w, 3]` by area averaging; unchanged if it has that size.

    Raises:
        MissingDependency: PyAV is not installed.
    """
    image = np.ascontiguousarray(image)
    if image.shape[:2] == (height, width):
        return image
    picture = import_av("resizing a frame").VideoFrame.from_ndarray(image, format="rgb24")
    return rgb(picture.reformat(width=width, height=height, interpolation="AREA"))


def whole_only(stream: Any) -> None:
    """Make the decoder of JPEG pictures refuse a damaged one instead of filling it with grey."""
    # Only JPEG: video codecs flag a damaged picture themselves, and with this option they refuse
    # good ones too.
    if stream.codec_context.name == "mjpeg":
        stream.codec_context.options = {"err_detect": "explode"}
