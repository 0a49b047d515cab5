"""Recorded frames of the size in training, shown to a model that was given a larger camera.

The camera's frame is one that its crop and antialiased resize turn back into the recorded frame, as
near as pixels of 8 bits allow: the least-squares inverse of the resize, clipped, with the borders
of the crop repeated around it. So latents, windows and dynamics stay those of the recording.

Shapes: F frames, C cameras, h w the camera's frame, H W the frame in training.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jetsight.bundle.model_spec import FrameSpec
from jetsight.datasets.resample import resize_matrix

FramesU8 = npt.NDArray[np.uint8]


class FrameRows(Protocol):
    """Frames by row: an array, or frames that are made when they are read."""

    def __len__(self) -> int:
        """Count the frames."""
        ...

    def __getitem__(self, rows: Any) -> FramesU8:
        """Return the frames of some rows, of any shape: `[*rows, *frame]`."""
        ...


class EmbeddedFrames:
    """Frames `[F, H, W, 3]` or `[F, C, H, W, 3]` as a larger camera would have taken them.

    They are made when they are read, because those of a whole recording may not fit into memory.

    Args:
        recorded_u8: frames of the size in training.
        frame: of the camera; its `via` is the size of the recorded frames.
    """

    def __init__(self, recorded_u8: FramesU8, frame: FrameSpec) -> None:
        assert frame.via is not None
        self._recorded_u8 = recorded_u8
        top, left, height, width = frame.crop
        below, right = frame.height_px - top - height, frame.width_px - left - width
        self._margins = ((top, below), (left, right), (0, 0))
        self._shape = (frame.height_px, frame.width_px, 3)
        # Of all frames that the resize maps to the recorded one, the shortest has no needless edge.
        self._rows = _inverse(resize_matrix(height, frame.via[0]))
        self._columns = _inverse(resize_matrix(width, frame.via[1])).T

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._recorded_u8)

    def __getitem__(self, rows: Any) -> FramesU8:
        """Return the frames of some rows: `[*rows, h, w, 3]`, with the cameras before h."""
        recorded = self._recorded_u8[rows]
        out = np.empty((*recorded.shape[:-3], *self._shape), np.uint8)
        for index in np.ndindex(recorded.shape[:-3]):
            out[index] = self._embedded(recorded[index])
        return out

    def _embedded(self, frame_u8: FramesU8) -> FramesU8:
        height, width = frame_u8.shape[:2]
        x = self._rows @ frame_u8.reshape(height, width * 3).astype(np.float32)
        # One product of all rows and colours is several times as fast as one per row.
        by_colour = x.reshape(-1, width, 3).swapaxes(1, 2).reshape(-1, width)
        y = np.clip(np.rint(by_colour @ self._columns), 0, 255).astype(np.uint8)
        pixels = y.reshape(len(x), 3, -1).swapaxes(1, 2)
        return np.pad(pixels, self._margins, mode="edge")


def _inverse(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.linalg.pinv(matrix.astype(np.float64)).astype(np.float32)
