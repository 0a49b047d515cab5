"""Pictures of recordings: image files and arrays of pixels to RGB frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pictures import decode_picture
from jetsight.errors import DataError

_AGAIN = "record it or copy the dataset again"


def read_image(file: Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB `[h, w, 3]`.

    Raises:
        DataError: it is missing, damaged, or no image.
    """
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise DataError(f"cannot read {file} ({problem.strerror}); {_AGAIN}") from problem
    return decode_picture(data, file)


def as_rgb(pixels: NDArray[np.generic], where: object) -> NDArray[np.uint8]:
    """Bring an array of pixels, `[h, w]`, `[h, w, 1 | 3 | 4]` or channels first, to RGB.

    Raises:
        DataError: it is no picture of 8 bits per channel.
    """
    image = np.asarray(pixels)
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype != np.uint8:
        raise DataError(
            f"{where} is {image.dtype} {list(np.shape(pixels))}, expected uint8 pixels "
            "[height, width, 3]; convert the recording to 8 bits per channel"
        )
    # As for image files: what is under a transparent pixel is not defined.
    if image.shape[2] == 4 and int(image[..., 3].min()) < 255:
        raise DataError(
            f"{where} has transparent pixels, whose colour is not defined; convert the recording "
            "to opaque pictures"
        )
    # Grey is repeated.
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    return np.ascontiguousarray(image)
