"""Folders of numbered images as cameras: one image per tick."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.pyav import import_av, rgb, whole_only
from jetsight.engine import NDArray
from jetsight.errors import CameraError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class ImageFolderSource(ReadingsSource):
    """Images of a folder in natural order: `frame2.png` before `frame10.png`.

    Args:
        folder: folder of png, jpg, bmp or webp files; other files are ignored.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder

    def start(self, request: StreamRequest) -> SourceInfo:
        """List the folder and read the first image.

        Raises:
            CameraError: there are no images, or the first one cannot be read.
        """
        files = [p for p in self._folder.iterdir() if p.suffix.lower() in SUFFIXES]
        if not files:
            raise CameraError(
                f"{self._folder} holds no images ({', '.join(SUFFIXES)}); give a folder of "
                "images, a video file or a dataset with meta/info.json"
            )
        # Folders list their files in any order.
        files.sort(key=natural_key)
        # The first one gives the size of all; the camera thread rejects those that differ.
        first = read_image(files[0])
        period_ns, av = round(1e9 / request.camera_hz), import_av()
        # An image that cannot be read still counts as a tick, or all later ones would be early.
        self._readings = (
            Reading(_decoded(av, path)[0], index * period_ns) for index, path in enumerate(files)
        )
        return SourceInfo(self._label, first.shape[0], first.shape[1], None)


def read_image(path: Path) -> NDArray:
    """Read an image file as `uint8 [h, w, 3]`, RGB.

    Raises:
        CameraError: it is no image, or truncated.
        MissingDependency: PyAV is not installed.
    """
    image, problem = _decoded(import_av(), path)
    if image is None:
        raise CameraError(
            f"cannot read {path} ({problem}); it is truncated or no image, so copy it again or "
            "remove it"
        )
    return image


def _decoded(av: Any, path: Path) -> tuple[NDArray | None, str]:
    """Decode the image in `path`; else None, and the reason."""
    try:
        # From memory: in a path, FFmpeg would read a % as a number pattern.
        with av.open(io.BytesIO(path.read_bytes())) as container:
            # A truncated JPEG would otherwise be filled up with grey.
            whole_only(container.streams.video[0])
            picture = next(container.decode(video=0), None)
            if picture is not None and not picture.is_corrupt:
                return rgb(picture), ""
            return None, "it holds no intact picture"
    except (av.error.FFmpegError, OSError, IndexError) as error:
        return None, first_line(error)


def natural_key(path: Path) -> tuple[list[Any], str]:
    """Make a sort key that orders the numbers in a name by value."""
    parts = re.split(r"(\d+)", path.name.lower())
    # The name itself decides between `1.png` and `01.png`, whose numbers are equal.
    return [int(p) if p.isdecimal() else p for p in parts], path.name
