"""Folders of images as cameras: numbered ones, one per tick, or named by their time stamps."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jetsight.cameras.readings import ReadingsSource
from jetsight.cameras.source import Reading, SourceFormat, SourceInfo, StreamRequest
from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pyav import import_av
from jetsight.engine import NDArray
from jetsight.errors import CameraError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Unix time in s with a fraction, or in s, ms, us or ns, behind a name without digits.
_STAMP = re.compile(r"(\D*)(\d{10}|\d{13}|\d{16}|\d{19})(?:[._](\d{1,9}))?")
_YEARS_S = (1_000_000_000, 4_102_444_800)  # 2001 to 2100
_CONVERT = "write it with 8 bits per sample, or with the PNG chunk sBIT that declares {bits} bits"


class ImageFolderSource(ReadingsSource):
    """Images of a folder in natural order: `frame2.png` before `frame10.png`.

    Names that are time stamps, like `1700000000.100.png`, give the times of the frames. Otherwise
    images are evenly spaced, at the declared rate or at the model's.

    Args:
        folder: folder of png, jpg, bmp, webp or tiff files; others, and hidden ones, are ignored.
        declared: rate of the images, and the form of their pictures.
    """

    def __init__(self, folder: Path, declared: SourceFormat | None = None) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self._declared = declared or SourceFormat()

    def start(self, request: StreamRequest) -> SourceInfo:
        """List the folder and read the first image.

        Raises:
            CameraError: there are no images, the first one cannot be read, or names that look like
                time stamps do not give one time each.
            DataError: nothing says what the samples of the first image mean.
        """
        files = [
            path
            for path in self._folder.iterdir()
            # macOS writes a hidden `._name.png`, which is no image, beside every file.
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if not files:
            raise CameraError(
                f"{self._folder} holds no images ({', '.join(SUFFIXES)}); give a folder of "
                "images, a video file or a dataset with meta/info.json"
            )
        # Folders list their files in any order.
        files.sort(key=natural_key)
        times_ns, fps, note = self._times(files, request.camera_hz)
        reader = PictureReader(str(self._folder), self._declared.picture)
        # The first one gives the size of all; the camera thread rejects those that differ.
        first = read_image(files[0], reader)
        self._readings = _read(files, times_ns, reader)
        return SourceInfo(
            self._label, first.shape[0], first.shape[1], fps, notes=(note,) if note else ()
        )

    def _times(
        self, files: Sequence[Path], model_hz: float
    ) -> tuple[Sequence[int], float | None, str]:
        """Find the time of each image, their rate if they have one, and what was assumed."""
        fps = self._declared.fps
        stamps_ns = None if fps is not None else stamps_of([path.stem for path in files])
        if stamps_ns is None or len(files) < 2:
            period_ns = round(1e9 / (fps or model_hz))
            note = "" if fps else f"images have no rate: taken as the model's {model_hz:g} Hz"
            return [index * period_ns for index in range(len(files))], fps, note
        gaps_ns = [after - before for before, after in itertools.pairwise(stamps_ns)]
        if min(gaps_ns) <= 0:
            raise CameraError(
                f"{self._folder}: the names look like time stamps, but "
                f"{files[gaps_ns.index(min(gaps_ns)) + 1].name} is not later than the image before "
                "it; write all digits of the fraction, or give --fps N for evenly spaced images"
            )
        measured = 1e9 / statistics.median(gaps_ns)
        times_ns = [stamp - stamps_ns[0] for stamp in stamps_ns]
        return times_ns, measured, f"times taken from the names ({measured:.3g} Hz in the middle)"


def stamps_of(names: Sequence[str]) -> list[int] | None:
    """Read names as Unix times in ns; None if they are not all of one such form.

    A fraction is decimal: `1700000000.1` is a tenth of a second later than `1700000000`.
    """
    matches = [_STAMP.fullmatch(name) for name in names]
    found = [match.groups("") for match in matches if match]
    forms = {(prefix, len(whole)) for prefix, whole, _ in found}
    if len(found) < len(names) or len(forms) != 1:
        return None
    if any(part for _, whole, part in found if len(whole) > 10):
        return None
    digits = forms.pop()[1]
    low, high = (limit * 10 ** (digits - 10) for limit in _YEARS_S)
    if not all(low <= int(whole) < high for _, whole, _ in found):
        return None
    return [int(whole + part.ljust(9, "0")[: 19 - digits]) for _, whole, part in found]


def read_image(path: Path, reader: PictureReader | None = None) -> NDArray:
    """Read an image file as `uint8 [h, w, 3]`, RGB and upright.

    Args:
        path: the file.
        reader: of the sequence it is part of; None for an image of its own.

    Raises:
        CameraError: it is no image, or truncated.
        DataError: nothing says what its samples mean.
        MissingDependency: PyAV is not installed.
    """
    reader = reader or PictureReader(str(path), declare=_CONVERT)
    image, problem = _decoded(import_av(), path, reader)
    if image is None:
        raise CameraError(
            f"cannot read {path} ({problem}); it is truncated or no image, so copy it again or "
            "remove it"
        )
    return image


def _read(
    files: Sequence[Path], times_ns: Sequence[int], reader: PictureReader
) -> Iterator[Reading]:
    av = import_av()
    for path, media_ns in zip(files, times_ns, strict=True):
        # An image that cannot be read still counts as a tick, or all later ones would be early.
        yield Reading(_decoded(av, path, reader)[0], media_ns)


def _decoded(av: Any, path: Path, reader: PictureReader) -> tuple[NDArray | None, str]:
    """Decode the image in `path`; else None, and the reason."""
    try:
        return reader.image(path.read_bytes()), "it holds no intact picture"
    except (av.error.FFmpegError, OSError) as error:
        return None, first_line(error)


def natural_key(path: Path) -> tuple[list[Any], str]:
    """Make a sort key that orders the numbers in a name by value."""
    parts = re.split(r"(\d+)", path.name.lower())
    # The name itself decides between `1.png` and `01.png`, whose numbers are equal.
    return [int(p) if p.isdecimal() else p for p in parts], path.name
