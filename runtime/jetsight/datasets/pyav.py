"""PyAV, used one way everywhere: RGB frames, one-line errors, no library text on stderr."""

from __future__ import annotations

from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import MissingDependency


def import_av(purpose: str = "reading a camera or video") -> Any:
    """Import PyAV, an optional library.

    Args:
        purpose: what it is needed for, as a noun phrase.

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


def whole_only(stream: Any) -> None:
    """Make the decoder of JPEG pictures refuse a broken one instead of filling it up with grey.

    Video codecs flag a damaged picture themselves, and asked to be strict they refuse good ones.
    """
    if stream.codec_context.name == "mjpeg":
        stream.codec_context.options = {"err_detect": "explode"}
