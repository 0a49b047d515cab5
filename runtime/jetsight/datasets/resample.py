"""Resampling of recordings to another frame size and another rate, by rules that are declared.

The spatial rule is a crop, then an antialiased bilinear resize, written as two products with
constant matrices: graphs, PyTorch and NumPy run the same one. The temporal rule keeps the frame
nearest to each tick, and reduces actions by `hold` or `mean`.

Shapes: T recorded rows, M ticks of the new rate, a action size, h w recorded and H W new pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.bundle.model_spec import RESAMPLE_RULES
from jetsight.datasets.fit import rates_agree
from jetsight.errors import DataError, UsageError

Crop = tuple[int, int, int, int]  # top, left, height, width
# Stamps are float32 in LeRobot rows: 8 us of rounding after two minutes, and never a hundredth of a
# period of a camera.
_STAMP_SHARE = 0.01


def resize_matrix(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Make the matrix `[n_out, n_in]` of an antialiased bilinear resize along one axis.

    A triangle filter, widened by the scale when shrinking, with its weights normalised over the
    pixels that exist (the rule of Pillow and of PyTorch's antialias mode).
    """
    scale = n_in / n_out
    support = max(scale, 1.0)
    # In float64, rounded once at the end.
    matrix = np.zeros((n_out, n_in), dtype=np.float64)
    for row in range(n_out):
        center = scale * (row + 0.5)  # pixel centres are at half-integers
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), n_in)
        distance = np.abs(np.arange(first, last) - center + 0.5) / support
        weights = np.clip(1.0 - distance, 0.0, None)
        matrix[row, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


def resize_through(sizes: Sequence[int]) -> NDArray[np.float32]:
    """Make the matrix of several resizes after one another along one axis, as one product.

    Args:
        sizes: pixels before, between and after them.
    """
    product = np.eye(sizes[0])
    for before, after in itertools.pairwise(sizes):
        product = resize_matrix(before, after) @ product  # in float64, rounded once
    return product.astype(np.float32)


def centred_crop(camera_hw: Sequence[int], size_hw: Sequence[int]) -> Crop:
    """Choose the largest centred region of a camera frame with the aspect ratio of `size_hw`.

    Example:
        >>> centred_crop((480, 640), (96, 96))
        (0, 80, 480, 480)
    """
    (camera_h, camera_w), (height, width) = camera_hw, size_hw
    # In integers, so that the same ratio keeps the whole frame whatever the size.
    if camera_w * height >= camera_h * width:
        crop_h, crop_w = camera_h, max(1, round(camera_h * width / height))
    else:
        crop_h, crop_w = max(1, round(camera_w * height / width)), camera_w
    return (camera_h - crop_h) // 2, (camera_w - crop_w) // 2, crop_h, crop_w


class FrameResize:
    """Frames `uint8 [..., h, w, 3]` to `uint8 [..., H, W, 3]`: crop, then antialiased resize.

    Equal to `torch.nn.functional.interpolate(mode="bilinear", antialias=True)` of the cropped
    pixels in float32, rounded to the nearest level.

    Args:
        size_hw: H and W.
        crop: `(top, left, height, width)` in pixels of the recorded frame, see `centred_crop`.

    Raises:
        UsageError: a size is below one pixel.

    Example:
        >>> resize = FrameResize((96, 96), centred_crop((480, 640), (96, 96)))
        >>> resize(np.zeros((480, 640, 3), np.uint8)).shape
        (96, 96, 3)
    """

    def __init__(self, size_hw: Sequence[int], crop: Sequence[int]) -> None:
        self.size_hw = (int(size_hw[0]), int(size_hw[1]))
        top, left, height, width = (int(value) for value in crop)
        self.crop: Crop = (top, left, height, width)
        if min(*self.size_hw, height, width) < 1 or min(top, left) < 0:
            raise UsageError(
                f"crop {list(self.crop)} (top, left, height, width) to {list(self.size_hw)} "
                "(height, width) has no pixels; give sizes of at least 1"
            )
        self._rows_used = slice(top, top + height)
        self._columns_used = slice(left, left + width)
        self._identical = self.size_hw == (height, width)
        self._rows = resize_matrix(height, self.size_hw[0])
        self._columns = resize_matrix(width, self.size_hw[1])

    def __call__(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize all frames; the result is new memory.

        Raises:
            DataError: the crop is outside of the frames.
        """
        height, width = frames_u8.shape[-3:-1]
        top, left, crop_h, crop_w = self.crop
        if top + crop_h > height or left + crop_w > width:
            raise DataError(
                f"crop {list(self.crop)} (top, left, height, width) is outside the {height}x"
                f"{width} frames; give a crop inside of them"
            )
        cropped = frames_u8[..., self._rows_used, self._columns_used, :]
        if self._identical:
            return np.ascontiguousarray(cropped)
        out = np.empty((*frames_u8.shape[:-3], *self.size_hw, 3), np.uint8)
        # Frame by frame, because float32 copies of a whole episode are four times its memory.
        for index in np.ndindex(frames_u8.shape[:-3]):
            out[index] = self._resized(cropped[index])
        return out

    def _resized(self, frame_u8: NDArray[np.uint8]) -> NDArray[Any]:
        crop_h, crop_w = self.crop[2:]
        new_h, new_w = self.size_hw
        # Rows first: interleaved pixels `[h, w * 3]` are a matrix already.
        x = self._rows @ frame_u8.reshape(crop_h, crop_w * 3).astype(np.float32)
        # One product of all rows and colours is several times as fast as one per row.
        by_colour = x.reshape(new_h, crop_w, 3).swapaxes(1, 2).reshape(-1, crop_w)
        y = by_colour @ self._columns.T
        # Weights sum to one, so only rounding of float32 can leave 0..255.
        levels = np.clip(np.rint(y), 0, 255).reshape(new_h, 3, new_w)
        return np.asarray(levels.swapaxes(1, 2))


@dataclass(frozen=True)
class TickRows:
    """Rows of one episode that become the ticks of another rate; make it with `of` or `even`.

    Row t is in force from its stamp to the next one.

    Attributes:
        hz: the new rate.
        frames: `[M]` row whose frame is nearest to each tick.
        held: `[M]` row whose action is in force at each tick.
        borders_s: `[M + 1]` start of each tick, and the end of the last one.
        edges_s: `[T + 1]` start of each row, and the end of the last one.

    Example:
        >>> TickRows.even(rows=10, source_hz=30, hz=10).frames.tolist()
        [0, 3, 6, 9]
    """

    hz: float
    frames: NDArray[np.int64]
    held: NDArray[np.int64]
    borders_s: NDArray[np.float64]
    edges_s: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the ticks."""
        return len(self.frames)

    @classmethod
    def even(cls, rows: int, source_hz: float, hz: float) -> TickRows:
        """Resample `rows` evenly spaced rows of `source_hz`; see `of`."""
        return cls.of(np.arange(rows) / source_hz, source_hz, hz)

    @classmethod
    def of(cls, stamps_s: NDArray[Any], source_hz: float, hz: float) -> TickRows:
        """Resample an episode recorded at `stamps_s` to ticks of `hz`, the first at its start.

        Rates that agree (`fit.RATE_TOLERANCE`) keep every row as it is. There is one tick for each
        new period that begins before the last frame.

        Args:
            stamps_s: `[T]` time of each row, ascending.
            source_hz: rate of the recording.
            hz: the new rate, at most `source_hz`.

        Raises:
            DataError: the recording is slower, its stamps do not ascend, or a tick has no frame
                within half a period: rows are missing there.
        """
        stamps = np.asarray(stamps_s, np.float64)
        if len(stamps) == 0 or not (np.diff(stamps) > 0).all():
            raise DataError(
                f"its {len(stamps)} time stamps do not ascend, so they have no rate; record it "
                "again"
            )
        edges_s = np.append(stamps, stamps[-1] + 1.0 / source_hz) - stamps[0]
        if rates_agree(source_hz, hz):
            rows = np.arange(len(stamps), dtype=np.int64)
            return cls(hz, rows, rows, edges_s, edges_s)
        if source_hz < hz:
            raise DataError(
                f"recorded at {source_hz:g} Hz, which has no frame for every tick of {hz:g} Hz; "
                f"choose a rate of at most {source_hz:g} Hz"
            )
        return cls._placed(edges_s, _STAMP_SHARE / source_hz, hz)

    @classmethod
    def _placed(cls, edges_s: NDArray[np.float64], slack_s: float, hz: float) -> TickRows:
        starts, last_s = edges_s[:-1], edges_s[-2]
        ticks_s = np.arange(int(np.floor((last_s + slack_s) * hz)) + 1) / hz
        after = np.minimum(np.searchsorted(starts, ticks_s), len(starts) - 1)
        before = np.maximum(after - 1, 0)
        # Of two frames at the same distance the earlier one, which was seen by then.
        later = starts[after] - ticks_s < ticks_s - starts[before] - slack_s
        frames = np.where(later, after, before).astype(np.int64)
        far = np.abs(starts[frames] - ticks_s) > 0.5 / hz + slack_s
        if far.any():
            raise DataError(
                f"there is no frame within {0.5 / hz:.3g} s of {ticks_s[np.argmax(far)]:.3f} s "
                "after its start; frames are missing there, so cut the episode or record it again"
            )
        held = np.searchsorted(starts, ticks_s + slack_s, side="right").astype(np.int64) - 1
        # The last tick may be cut; its start is before the last row's end by about a period.
        borders_s = np.append(ticks_s, min(ticks_s[-1] + 1.0 / hz, edges_s[-1]))
        return cls(hz, frames, held, borders_s, edges_s)

    def hold(self, values: NDArray[Any]) -> NDArray[Any]:
        """Take the value in force at each tick: right for positions, targets and states."""
        return values[self.held]

    def mean(self, values: NDArray[Any]) -> NDArray[Any]:
        """Average `values [T, ...]` over the time of each tick: right for velocities.

        A value counts for the time that it was in force; the last tick averages what was recorded.
        """
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        # The integral of a step function is linear between its steps.
        steps = flat * np.diff(self.edges_s)[:, None]
        total = np.concatenate([np.zeros((1, flat.shape[1])), np.cumsum(steps, axis=0)])
        at = [np.interp(self.borders_s, self.edges_s, column) for column in total.T]
        means = np.diff(np.stack(at, axis=-1), axis=0) / np.diff(self.borders_s)[:, None]
        return means.reshape(len(self), *values.shape[1:]).astype(values.dtype)

    def actions(self, actions: NDArray[np.float32], rule: str) -> NDArray[np.float32]:
        """Resample `actions [T, a]` by the rule `hold` or `mean`.

        Raises:
            UsageError: there is no such rule.
        """
        if rule not in RESAMPLE_RULES:
            raise UsageError(f"resample is {rule!r}, expected one of: {', '.join(RESAMPLE_RULES)}")
        return np.asarray(self.mean(actions) if rule == "mean" else self.hold(actions))
