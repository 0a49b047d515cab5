"""PyAV, used one way everywhere: RGB frames, one-line errors, no library text on stderr."""

from __future__ import annotations

from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import MissingDependency


def import_av() -> Any:
    """The PyAV module.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingDependency("av", "camera", "reading a camera or video") from None
    return av


def rgb(picture: Any) -> NDArray:
    """A decoded picture as `uint8 [h, w, 3]`: the conversion training data went through."""
    return np.asarray(picture.to_ndarray(format="rgb24"))


def whole_only(stream: Any) -> None:
    """Make the decoder of JPEG pictures refuse a broken one instead of filling it up with grey.

    Video codecs flag a damaged picture themselves, and asked to be strict they refuse good ones.
    """
    if stream.codec_context.name == "mjpeg":
        stream.codec_context.options = {"err_detect": "explode"}


def why(error: BaseException) -> str:
    """What FFmpeg says is wrong, without errno and path."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
