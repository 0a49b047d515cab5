"""Pictures that rows of a dataset hold as encoded bytes: PNG, JPEG and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pyav import import_av
from jetsight.errors import DataError, first_line

_AGAIN = "record it or copy the dataset again"


def decode_picture(
    data: bytes, where: object, reader: PictureReader | None = None
) -> NDArray[np.uint8]:
    """Decode one picture to an upright RGB frame `[h, w, 3]`.

    Args:
        data: a whole PNG, JPEG or other image file.
        where: its place, for messages.
        reader: of the recording that it is part of; None for a picture of its own.

    Raises:
        DataError: it is no picture, damaged, or nothing says what its samples mean.
        MissingDependency: PyAV is not installed.
    """
    av = import_av("decoding recorded pictures")
    try:
        frame_hwc_u8 = (reader or PictureReader(str(where))).image(data)
    except av.error.FFmpegError as problem:
        raise DataError(f"cannot decode {where} ({first_line(problem)}); {_AGAIN}") from problem
    if frame_hwc_u8 is None:
        raise DataError(f"cannot decode {where} (no intact picture); {_AGAIN}")
    return frame_hwc_u8


def cell_bytes(cell: Any, folder: Path) -> bytes | None:
    """Return the encoded picture of a table cell `{"bytes": ..., "path": ...}`; None without one.

    Args:
        cell: as Hugging Face datasets write it; with a path alone, the picture is that file.
        folder: of the dataset, which a path must not leave.
    """
    if not isinstance(cell, dict):
        return cell if isinstance(cell, bytes) else None
    data, name = cell.get("bytes"), cell.get("path")
    if isinstance(data, bytes):
        return data
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    try:
        return (folder / name).read_bytes()
    except OSError:
        return None
