"""Pictures that rows of a dataset hold as encoded bytes: PNG, JPEG and others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pyav import import_av, rgb, whole_only
from jetsight.errors import DataError, first_line

_AGAIN = "record it or copy the dataset again"


def decode_picture(data: bytes, where: object) -> NDArray[np.uint8]:
    """Decode one picture to RGB `[h, w, 3]`.

    Args:
        data: a whole PNG, JPEG or other image file.
        where: its place, for messages.

    Raises:
        DataError: it is no picture, or damaged.
        MissingDependency: PyAV is not installed.
    """
    av = import_av("decoding recorded pictures")
    try:
        with av.open(io.BytesIO(data)) as container:
            for stream in container.streams.video:
                whole_only(stream)
            return rgb(next(container.decode(video=0)))
    except (av.error.FFmpegError, StopIteration, IndexError) as problem:
        why = first_line(problem) if isinstance(problem, av.error.FFmpegError) else "no picture"
        raise DataError(f"cannot decode {where} ({why}); {_AGAIN}") from problem


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
