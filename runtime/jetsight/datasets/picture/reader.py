"""Decoded pictures as frames: the one place that says what the pixels of a source mean.

A frame is `uint8 [h, w, 3]`, RGB, upright. Datasets, files and live cameras all convert here:

- YUV by the matrix and range that the picture declares (swscale's conversion);
- upright by the display matrix of the container or the EXIF orientation of the image;
- more than 8 bits by the significant bits that the pixel format, an sBIT chunk or the user
  declares, since a 12-bit camera in 16-bit files would else be nearly black;
- grey, which is full range, to three equal channels;
- opaque alpha is dropped, any other is refused, because the colour behind it is not recorded;
- depth is no colour and refused.

Shapes: h, w frame size.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.datasets.picture.header import ImageHeader, read_header
from jetsight.datasets.pyav import decode_image
from jetsight.engine import NDArray
from jetsight.errors import DataError, UsageError

CHANNELS = ("rgb", "bgr")
BITS = (8, 16)  # fewest and most significant bits of a sample
_DEPTH = re.compile(r"(?<![a-z])(depth|disparity)(s|map|image)?s?(?![a-z])", re.IGNORECASE)
_USUAL_BITS = (10, 12, 14, 16)  # of cameras
_TOP_HALF = 1 << 15  # a 16-bit sample from here on uses all 16 bits
# (transposed, flipped left to right, flipped upside down), in this order, per EXIF orientation.
_EXIF_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_ROTATIONS = {90: 8, 180: 3, -180: 3, -90: 6}  # counterclockwise, as EXIF orientations
_OPAQUE = 255


@dataclass(frozen=True)
class PictureFormat:
    """Declaration of a source about its pictures, beyond their own headers.

    Args:
        bits: significant bits of each sample in 16-bit pictures; None if nothing is declared.
        channels: order of the colour channels as they are stored.

    Raises:
        UsageError: no camera has that many bits, or no such order is known.
    """

    bits: int | None = None
    channels: str = "rgb"

    def __post_init__(self) -> None:
        low, high = BITS
        if self.bits is not None and not low <= self.bits <= high:
            raise UsageError(f"bits is {self.bits}, expected {low} to {high} per sample")
        if self.channels not in CHANNELS:
            raise UsageError(
                f"channels is {self.channels!r}, expected one of: {', '.join(CHANNELS)}"
            )


def names_depth(name: str) -> bool:
    """Return whether the name of a file, folder or feature says that it holds depth."""
    return _DEPTH.search(name) is not None


class PictureReader:
    """Pictures of one source to frames.

    The bits of 16-bit samples are decided by the first picture and hold for all, so that no picture
    of a sequence is brighter than the others.

    Args:
        label: name of the source, first words of a message.
        declared: by the user or the dataset.
        declare: where bits are declared, with `{bits}` for their number: end of a message.
    """

    def __init__(
        self,
        label: str,
        declared: PictureFormat | None = None,
        declare: str = "give --bits {bits}",
    ) -> None:
        self._label = label
        self._declared = declared or PictureFormat()
        self._declare = declare
        self._bits = self._declared.bits

    def rgb(self, picture: Any, header: ImageHeader | None = None) -> NDArray:
        """Convert a decoded picture (PyAV's) to a frame `uint8 [h, w, 3]`.

        Args:
            picture: the picture.
            header: of its image file; None for a picture of a video, which has its own.

        Raises:
            DataError: it is depth or not opaque, or nothing says what its samples mean.
        """
        if _has_16_bits(picture):
            image = self._from_16_bits(picture, header)
        elif picture.format.has_palette or any(c.is_alpha for c in picture.format.components):
            image = self._opaque(picture.to_ndarray(format="rgba"), _OPAQUE)
        else:
            image = picture.to_ndarray(format="rgb24")
        if self._declared.channels == "bgr":
            image = image[..., ::-1]
        transposed, mirrored, flipped = self._turns(picture, header)
        image = image.swapaxes(0, 1) if transposed else image
        image = image[:, ::-1] if mirrored else image
        image = image[::-1] if flipped else image
        return np.ascontiguousarray(image)

    def image(self, data: bytes) -> NDArray | None:
        """Decode an image file in memory to a frame; None if it holds no intact picture.

        Raises:
            DataError: see `rgb`.
            FFmpegError: PyAV's; it is no image, or damaged.
            MissingDependency: PyAV is not installed.
        """
        picture = decode_image(data)
        return None if picture is None else self.rgb(picture, read_header(data))

    def _opaque(self, rgba: NDArray, opaque: int) -> NDArray:
        share = float((rgba[..., 3] != opaque).mean())
        if share > 0:
            raise DataError(
                f"{self._label}: {max(share, 0.01):.0%} of the pixels are transparent, and the "
                "colour behind them is not recorded; record opaque pictures, or put them on a "
                "colour: magick mogrify -background black -alpha remove -alpha off FOLDER/*.png"
            )
        return rgba[..., :3]

    def _from_16_bits(self, picture: Any, header: ImageHeader | None) -> NDArray:
        grey, alpha = len(picture.format.components) < 3, len(picture.format.components) in (2, 4)
        if grey and not alpha:
            samples = picture.to_ndarray(format="gray16le")[..., None]
        else:
            samples = picture.to_ndarray(format="rgba64le" if alpha else "rgb48le")
        if alpha:
            samples = self._opaque(samples, 0xFFFF)
        if grey:
            self._refuse_depth()
        largest = int(samples.max())
        if self._bits is None:
            self._bits = self._decided(largest, grey, header)
        if largest >> self._bits:
            raise DataError(
                f"{self._label}: a sample is {largest}, above the {self._bits} bits of the source; "
                f"{self._declaration(largest)}"
            )
        image = _levels(self._bits)[samples]
        return np.broadcast_to(image, (*image.shape[:2], 3))

    def _refuse_depth(self) -> None:
        # The source's own name: a folder above it may be named for anything.
        if names_depth(os.path.basename(self._label)):
            raise DataError(
                f"{self._label} holds depth (16 bits, one channel, and its name says so), which "
                "is never used as a colour camera; give the colour images recorded beside it"
            )

    def _decided(self, largest: int, grey: bool, header: ImageHeader | None) -> int:
        """Decide the bits of 16-bit samples by a picture with the sample `largest`."""
        significant = header.significant_bits if header is not None else None
        if significant is not None and 8 <= significant <= 16:
            # PNG wants samples scaled to 16 bits; many cameras store them as they are.
            return 16 if largest >> significant else significant
        # Colour is never depth, and what uses the top bit has 16.
        if not grey and largest >= _TOP_HALF:
            return 16
        or_depth = " or depth, which is never used as a colour camera" if grey else ""
        raise DataError(
            f"{self._label}: 16-bit samples up to {largest} may be of a camera of "
            f"{_fewest_bits(largest)} bits or more{or_depth}, and nothing says which; for a camera "
            f"{self._declaration(largest)}"
        )

    def _declaration(self, largest: int) -> str:
        return self._declare.format(bits=_fewest_bits(largest))

    def _turns(self, picture: Any, header: ImageHeader | None) -> tuple[bool, bool, bool]:
        if header is not None:
            return _EXIF_TURNS[header.orientation]
        return display_turns(picture, self._label)


def display_turns(picture: Any, label: str) -> tuple[bool, bool, bool]:
    """Read the display matrix of a picture: transposed, mirrored, upside down, in this order.

    Raises:
        DataError: it turns by other than quarter turns.
    """
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV refuses all side data beside a kind it does not know, such as EXIF in Motion JPEG.
        return _EXIF_TURNS[_ROTATIONS.get(picture.rotation, 1)]
    if matrix is None:
        return _EXIF_TURNS[1]
    # x' = a x + c y and y' = b x + d y; the rest are translations and the perspective.
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if b == c == 0 and a and d:
        return False, a < 0, d < 0
    if a == d == 0 and b and c:
        return True, c < 0, b < 0
    raise DataError(
        f"{label}: its display matrix turns the picture by other than 90, 180 or 270 degrees; "
        "write the pixels upright: ffmpeg -i IN OUT"
    )


def _has_16_bits(picture: Any) -> bool:
    """Return whether samples are 16-bit grey or RGB, whose significant bits the format omits."""
    form = picture.format
    luma_only = len(form.components) < 3
    return form.components[0].bits == 16 and (form.is_rgb or luma_only)


def _fewest_bits(largest: int) -> int:
    """Return the fewest bits, of those cameras have, that hold the sample `largest`."""
    return next(bits for bits in _USUAL_BITS if not largest >> bits)


@functools.cache
def _levels(bits: int) -> NDArray:
    """Tabulate the 8-bit levels of samples of `bits` bits, rounded to the nearest."""
    top = (1 << bits) - 1
    return ((np.arange(top + 1, dtype=np.int64) * 255 + top // 2) // top).astype(np.uint8)
