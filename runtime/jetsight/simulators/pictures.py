"""Arrays of a simulator as RGB pictures: axes, channels and scale, and refusals instead of guesses.

An observation's space says what its numbers mean, so the format follows from the space; of a render
it follows from the array. A picture has at least 16 px a side, and its smaller axis of 1, 3 or 4 is
the channels, so that `[h,w,3]` and `[3,h,w]` cannot be confused.

Shapes: h, w picture size, c channels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEAST_PX = 16  # smaller grids, such as MiniGrid's 7x7, hold codes
_LEAST_WHITE = 128  # integers that end below are codes or classes
_MEASURED = (0.0, 0.0)  # a scale that the first picture decides
_NO_COLOUR = {
    **dict.fromkeys(("depth", "depths", "disparity", "rgbd", "zbuffer"), "depth"),
    **dict.fromkeys(("mask", "masks", "seg", "segm", "semantic", "instance"), "a segmentation"),
    **dict.fromkeys(("segmentation", "segmentations", "labels", "classes"), "a segmentation"),
    **dict.fromkeys(("normal", "normals", "flow", "heightmap", "occupancy"), "geometry"),
}


@dataclass(frozen=True)
class ArrayFormat:
    """Format of the arrays that become pictures.

    Args:
        axes: order of the axes, once those of size 1 are gone.
        channels: 1 grey, 3 colour, 4 colour with transparency.
        scale: values of black and white.
        whole: integers, whose scale ends at their own type's or space's end.
        sure: a colour picture by all that its space says, so that it may be chosen unasked.
    """

    axes: Literal["hwc", "chw", "hw"]
    channels: int
    scale: tuple[float, float]
    whole: bool
    sure: bool


class NoPicture(Exception):  # raised and caught inside this room
    """The array is none, for the reason given as the rest of a sentence."""


def named_otherwise(name: str) -> str:
    """Return the kind of data that a name declares where it is no colour picture, else empty."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return next((_NO_COLOUR[word] for word in words if word in _NO_COLOUR), "")


def of_space(name: str, space: Any) -> ArrayFormat:
    """Derive the format from an observation's name and `Box` space.

    Raises:
        NoPicture: it is no colour picture.
    """
    kind = named_otherwise(name)
    if kind:
        raise NoPicture(f"is {kind} by its name")
    form = _layout(tuple(space.shape), alpha="rgba" in name.lower())
    low, high = float(np.min(space.low)), float(np.max(space.high))
    dtype = np.dtype(space.dtype)
    if dtype.kind in "biu":
        return _integers(form, dtype, low, high)
    if dtype.kind != "f":
        raise NoPicture(f"holds {dtype}")
    return _floats(form, low, high)


def of_render(array: Any) -> ArrayFormat:
    """Derive the format from the first picture that was rendered.

    Raises:
        NoPicture: it is none.
    """
    if not isinstance(array, np.ndarray):
        kind = "a list of pictures" if isinstance(array, list) else str(array)[:60]
        raise NoPicture(f"is {kind}, expected an array [h,w,3] in render_mode 'rgb_array'")
    form = _layout(array.shape, alpha=True)
    if array.dtype == np.uint8:
        return replace(form, scale=(0.0, 255.0), whole=True)
    if array.dtype.kind in "iu":
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        return _integers(form, array.dtype, low, 255.0 if high <= 255 else 65535.0)
    if array.dtype.kind != "f":
        raise NoPicture(f"holds {array.dtype}")
    return form


def _layout(shape: tuple[int, ...], *, alpha: bool) -> ArrayFormat:
    """Find height, width and channels in a shape; the scale is still to be measured."""
    sizes = tuple(n for n in shape if n != 1) if len(shape) != 3 else shape
    form = ArrayFormat("hw", 1, _MEASURED, whole=False, sure=False)
    if len(sizes) == 3:
        last = sizes[2] in (1, 3, 4) and min(sizes[:2]) >= LEAST_PX
        first = sizes[0] in (1, 3, 4) and min(sizes[1:]) >= LEAST_PX
        if not last and not first:
            raise NoPicture(_why_none(sizes))
        form = replace(form, axes="hwc" if last else "chw", channels=sizes[2 if last else 0])
    elif len(sizes) == 4 and any(n in (1, 3, 4) for n in (sizes[1], sizes[3])):
        raise NoPicture(
            f"is a stack of {sizes[0]} frames {list(shape)}; name one of them with [-1] at the end "
            "if the last is the newest"
        )
    elif len(sizes) != 2 or min(sizes) < LEAST_PX:
        raise NoPicture(_why_none(sizes))
    if form.channels == 4 and not alpha:
        stack = "; name one frame of a stack with [-1] at the end" if form.axes == "chw" else ""
        raise NoPicture(
            f"has 4 channels {list(shape)}, which may be a stack of grey frames or colour with "
            f"depth unless its name says rgba{stack}"
        )
    return form


def _why_none(sizes: tuple[int, ...]) -> str:
    small = len(sizes) in (2, 3) and sum(n >= LEAST_PX for n in sizes) < 2
    if small:
        size = "x".join(str(n) for n in sizes)
        return f"is {size}, too small for a picture (at least {LEAST_PX} px a side)"
    return f"has shape {list(sizes)}, expected [h,w,3], [3,h,w] or one grey channel"


def _integers(form: ArrayFormat, dtype: np.dtype[Any], low: float, high: float) -> ArrayFormat:
    if dtype.kind == "b" or high < _LEAST_WHITE:
        raise NoPicture(f"holds {dtype} from {low:g} to {high:g}, codes and not brightness")
    # 254 is a careless 255; any other end is the white of a camera with more or fewer bits.
    white = 255.0 if dtype == np.uint8 else high
    if white > np.iinfo(np.uint16).max or low < 0:
        raise NoPicture(f"holds {dtype} from {low:g} to {high:g}, expected 0 to 255 or to 65535")
    # A single channel of more than 8 bits is more often a distance than a brightness.
    sure = form.channels > 1 or dtype == np.uint8
    return replace(form, scale=(0.0, white), whole=True, sure=sure)


def _floats(form: ArrayFormat, low: float, high: float) -> ArrayFormat:
    scale = (low, high)
    if scale in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        return replace(form, scale=scale, sure=form.channels > 1)
    if np.isinf(low) and np.isinf(high):
        return form
    raise NoPicture(f"holds numbers from {low:g} to {high:g}, expected 0 to 1 or 0 to 255")


def to_rgb(array: Any, form: ArrayFormat) -> tuple[NDArray[np.uint8], ArrayFormat]:
    """Convert one array to `uint8 [h,w,3]` RGB, in memory of its own.

    Args:
        array: in the format.
        form: format of the array.

    Returns:
        The picture, and the format with the scale that was measured if it was still open.

    Raises:
        NoPicture: the array is not what the format says, or has values outside the scale.
    """
    values = _ordered(array, form)
    if values.dtype != np.uint8 or form.scale != (0.0, 255.0):
        black, white = _scale_of(values, form)
        # A first picture that is all black says nothing about white.
        form = replace(form, scale=(black, white)) if values.any() else form
        values = np.rint((values.astype(np.float64) - black) * (255.0 / (white - black)))
    if values.shape[2] == 1:
        values = np.broadcast_to(values, (*values.shape[:2], 3))
    # A copy: many simulators draw every picture into the same memory.
    return np.array(values[..., :3], np.uint8, order="C"), form


def _ordered(array: Any, form: ArrayFormat) -> NDArray[Any]:
    """Bring an array to `[h,w,c]`, and refuse one of another shape or kind than the format's."""
    if not isinstance(array, np.ndarray) or (array.dtype.kind in "iu") != form.whole:
        found = getattr(array, "dtype", type(array).__name__)
        raise NoPicture(f"is {found}, expected {'integers' if form.whole else 'floats'}")
    found = _layout(array.shape, alpha=True)
    if (found.axes, found.channels) != (form.axes, form.channels):
        raise NoPicture(f"has shape {list(array.shape)}, unlike the first one")
    values = array if array.ndim == 3 else array.squeeze()
    if form.axes == "hw":
        return values[..., None]
    return values if form.axes == "hwc" else values.transpose(1, 2, 0)


def _scale_of(values: NDArray[Any], form: ArrayFormat) -> tuple[float, float]:
    """Check the values against the scale, or measure it: up to 1, or up to 255."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise NoPicture("holds NaN or infinity")
    scale = form.scale
    if scale == _MEASURED:
        scale = (0.0, 1.0 if high <= 1.0 else 255.0)
    # Rounding of a simulator's own arithmetic is no reason to stop.
    margin = 1e-3 * (scale[1] - scale[0])
    if low < scale[0] - margin or high > scale[1] + margin:
        raise NoPicture(f"holds {low:g} to {high:g}, but its scale is {scale[0]:g} to {scale[1]:g}")
    return scale
