"""Frames as pictures: the cameras of a frame side by side.

Shapes: C cameras, h, w frame size.
"""

from __future__ import annotations

import numpy as np

from jetsight.engine import NDArray

_GAP_PX, _GAP_LEVEL = 2, 255  # white between two cameras, as the pages and figures are


def side_by_side(frame_u8: NDArray) -> NDArray:
    """Make one picture of a frame: `[h, w, 3]` as it is, `[C, h, w, 3]` in a row, left to right."""
    if frame_u8.ndim == 3:
        return frame_u8
    gap = np.full((frame_u8.shape[1], _GAP_PX, 3), _GAP_LEVEL, np.uint8)
    parts = [part for camera in frame_u8 for part in (gap, camera)]
    return np.concatenate(parts[1:], axis=1)
