"""Decoding of the pictures of one episode: from an mp4 with many episodes, or embedded in rows.

Training, calibration and the running robot all decode here, so they get the same pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.picture import PictureFormat, PictureReader
from jetsight.datasets.pyav import import_av
from jetsight.errors import DataError, first_line

_AGAIN = "record it or copy the dataset again"
_DECLARE = 'write "bits": {bits} into "info" of the camera\'s feature in meta/info.json'


@dataclass(frozen=True)
class Clip:
    """`length` consecutive frames of the video `path`, the first one at `start_s`."""

    path: Path
    start_s: float
    length: int
    fps: float
    height: int
    width: int
    form: PictureFormat = field(default_factory=PictureFormat)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Iterate over exactly `length` RGB frames [h,w,3], each a new array.

        Raises:
            DataError: the video is missing, truncated, damaged, or of another size or rate.
            MissingDependency: PyAV is not installed.
        """
        av = import_av("decoding recorded video")
        count, reader = 0, PictureReader(str(self.path), self.form, _DECLARE)
        with _reported(av, self.path), av.open(str(self.path)) as container:
            for picture in self._from_start(container):
                self._check(picture, count)
                frame_hwc_u8 = reader.rgb(picture)
                self._check_size(frame_hwc_u8)
                yield frame_hwc_u8
                count += 1
                if count == self.length:
                    return
        raise DataError(
            f"{self.path} ends after {count} of the {self.length} frames expected from "
            f"{self.start_s:g} s; the video is truncated: {_AGAIN}"
        )

    def _from_start(self, container: Any) -> Iterator[Any]:
        """Decode pictures from `start_s` on."""
        if not container.streams.video:
            raise DataError(f"{self.path} has no video stream; {_AGAIN}")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # small pictures: threads cost more than they save
        half_s = 0.5 / self.fps
        if self.start_s > 0:
            # A quarter period late, so that rounding cannot end one key frame too early.
            ticks = int((self.start_s + half_s / 2) / float(stream.time_base))
            container.seek(ticks, stream=stream, backward=True)
        for picture in container.decode(stream):
            # Seeking ends at a key frame, which may be of the episode before.
            if picture.time is not None and picture.time >= self.start_s - half_s:
                yield picture

    def _check_size(self, frame_hwc_u8: NDArray[np.uint8]) -> None:
        height, width = frame_hwc_u8.shape[:2]
        if (height, width) != (self.height, self.width):
            raise DataError(
                f"{self.path} has upright frames of {width}x{height} px, meta/info.json "
                f"says {self.width}x{self.height}; {_AGAIN}"
            )

    def _check(self, picture: Any, count: int) -> None:
        # Each frame by its own time: a dropped one would shift all later frames against their
        # actions.
        due_s = self.start_s + count / self.fps
        if picture.is_corrupt or abs(picture.time - due_s) > 0.5 / self.fps:
            raise DataError(
                f"{self.path} has no intact frame at {due_s:g} s (frame {count} of an episode); "
                f"the video is damaged or not {self.fps:g} frames per second: {_AGAIN}"
            )


def embedded(
    cells: Iterable[Any], path: Path, height: int, width: int, *, form: PictureFormat | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Decode pictures in parquet `cells`, `{"bytes": ..., "path": ...}`, to RGB frames [h,w,3].

    Args:
        cells: one per frame.
        path: parquet file, for messages.
        height: height that upright frames must have.
        width: width that upright frames must have.
        form: what the dataset declares of its pictures.

    Raises:
        DataError: a cell holds no picture, or one of another size.
        MissingDependency: PyAV is not installed.
    """
    av, reader = import_av("decoding recorded video"), PictureReader(str(path), form, _DECLARE)
    for row, cell in enumerate(cells):
        data = cell.get("bytes") if isinstance(cell, dict) else None
        if not isinstance(data, bytes):
            raise DataError(f"{path} has no embedded picture in row {row}; {_AGAIN}")
        with _reported(av, path):
            frame_hwc_u8 = reader.image(data)
        if frame_hwc_u8 is None:
            raise DataError(f"cannot decode {path} (no picture in row {row}); {_AGAIN}")
        if frame_hwc_u8.shape != (height, width, 3):
            raise DataError(
                f"{path} has a picture of shape {frame_hwc_u8.shape} in row {row}, expected "
                f"({height}, {width}, 3); {_AGAIN}"
            )
        yield frame_hwc_u8


@contextlib.contextmanager
def _reported(av: Any, path: Path) -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as problem:
        raise DataError(f"cannot decode {path} ({first_line(problem)}); {_AGAIN}") from problem
