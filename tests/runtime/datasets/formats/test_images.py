"""Arrays of pixels as RGB: axes, grey and alpha; what has no clear colour is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.datasets.formats.images import as_rgb
from jetsight.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("pixels", [RGB, RGB.transpose(2, 0, 1)])
def test_axes_are_found_by_their_size(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb(pixels, "x"), RGB)


def test_grey_is_repeated() -> None:
    for pixels in (RGB[..., 0], RGB[..., :1]):
        np.testing.assert_array_equal(as_rgb(pixels, "x"), np.repeat(RGB[..., :1], 3, axis=2))


def test_opaque_alpha_is_dropped_and_any_other_refused() -> None:
    alpha = np.full((24, 32, 1), 255, np.uint8)
    np.testing.assert_array_equal(as_rgb(np.concatenate([RGB, alpha], 2), "x"), RGB)
    alpha[3, 4] = 254
    with pytest.raises(DataError, match="x has transparent pixels"):
        as_rgb(np.concatenate([RGB, alpha], 2), "x")


@pytest.mark.parametrize("pixels", [RGB.astype(np.uint16), RGB / 255, RGB[..., :2], RGB[None]])
def test_what_is_no_picture_of_8_bits_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8 pixels"):
        as_rgb(pixels, "x")
