"""Pictures of datasets mean what those of files mean: rotation, EXIF, bits and BGR are honoured."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_factory import arrow, displayed, film, png_with, turn
from PIL import Image

from jetsight.datasets.lerobot.info import DECLARE_BITS, Info, picture_format
from jetsight.datasets.picture import PictureFormat, PictureReader
from jetsight.datasets.pictures import decode_picture
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError


def form_of(**feature: object) -> PictureFormat:
    return picture_format(Info({"top": feature}, 10.0), "top")


def row(data: bytes, form: PictureFormat | None = None) -> np.ndarray:
    """A picture in a row of a dataset that declares `form`."""
    return decode_picture(data, "rows.parquet row 0", PictureReader("rows", form, DECLARE_BITS))


def cell(image: np.ndarray, kind: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, kind, exif=exif)
        return file.getvalue()


def test_rotated_video_of_a_dataset_is_upright(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [arrow()] * 3)
    stored = list(VideoIndex.read(path).frames(0, 3))
    upright = list(VideoIndex.read(turn(path, 0, 1, -1, 0)).frames(0, 3))
    for before, after in zip(stored, upright, strict=True):
        assert np.array_equal(after, displayed(before, 0, 1, -1, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_of_pictures_in_rows_is_applied(kind: str) -> None:
    upright, stored = row(cell(arrow(), kind, 8)), row(cell(arrow(), kind))
    assert np.array_equal(upright, np.rot90(stored))
    assert not np.array_equal(upright, np.rot90(stored, 3))


def test_bits_of_pictures_in_rows_are_declared_in_info_or_in_the_file() -> None:
    grey = np.linspace(0, 4095, 32 * 48).reshape(32, 48).astype(np.uint16)
    plain = cell(grey)
    with pytest.raises(DataError, match=r'write "bits": 12 into "info" of the camera'):
        row(plain)
    declared = row(plain, form_of(info={"bits": 12}))
    from_file = row(png_with(plain, b"sBIT", b"\x0c"))
    assert declared.max() == 255
    assert np.array_equal(declared, from_file)
    assert row(plain, PictureFormat(16)).max() == 16


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (["height", "width", "channels"], "rgb"),
        (["height", "width", "rgb"], "rgb"),
        (["height", "width", "bgr"], "bgr"),
        (["b", "g", "r"], "bgr"),
        (["B", "G", "R"], "bgr"),
        (None, "rgb"),
        ({"axes": ["bgr"]}, "rgb"),
    ],
)
def test_bgr_of_a_dataset_is_turned_only_where_its_names_say_so(
    names: object, channels: str
) -> None:
    found = row(cell(arrow()), form_of(names=names))
    assert np.array_equal(found, arrow() if channels == "rgb" else arrow()[..., ::-1])


@pytest.mark.parametrize("form", ["h264", "mjpeg"])
def test_video_of_a_dataset_without_stamps_is_refused(form: str, tmp_path: Path) -> None:
    codec = "libx264" if form == "h264" else "mjpeg"
    path = film(tmp_path / "raw", [arrow()] * 3, codec, form=form)
    with pytest.raises(DataError, match=r"raw has frames without time stamps"):
        VideoIndex.read(path)
