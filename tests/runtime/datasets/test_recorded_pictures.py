"""Pictures of datasets mean what those of files mean: rotation, EXIF, bits and BGR are honoured."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_factory import arrow, displayed, film, png_with, turn
from PIL import Image

from jetsight.datasets.lerobot_meta import picture_format
from jetsight.datasets.lerobot_video import Clip, embedded
from jetsight.datasets.picture import PictureFormat
from jetsight.errors import DataError

ROWS = Path("rows.parquet")


def cell(image: np.ndarray, kind: str = "PNG", orientation: int = 1) -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, kind, exif=exif)
        return {"bytes": file.getvalue(), "path": "frame.png"}


def test_rotated_video_of_a_dataset_is_upright(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [arrow()] * 3)
    stored = list(Clip(path, 0.0, 3, 10.0, 32, 48).frames())
    turn(path, 0, 1, -1, 0)
    upright = list(Clip(path, 0.0, 3, 10.0, 48, 32).frames())
    for before, after in zip(stored, upright, strict=True):
        assert np.array_equal(after, displayed(before, 0, 1, -1, 0))
    with pytest.raises(DataError, match=r"upright frames of 32x48 px, meta/info.json says 48x32"):
        list(Clip(path, 0.0, 3, 10.0, 32, 48).frames())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_of_pictures_in_rows_is_applied(kind: str) -> None:
    (upright,) = embedded([cell(arrow(), kind, 8)], ROWS, 48, 32)
    (stored,) = embedded([cell(arrow(), kind)], ROWS, 32, 48)
    assert np.array_equal(upright, np.rot90(stored))
    assert not np.array_equal(upright, np.rot90(stored, 3))


def test_bits_of_pictures_in_rows_are_declared_in_info_or_in_the_file() -> None:
    grey = np.linspace(0, 4095, 32 * 48).reshape(32, 48).astype(np.uint16)
    plain = cell(grey)
    with pytest.raises(DataError, match=r'write "bits": 12 into "info" of the camera'):
        list(embedded([plain], ROWS, 32, 48))
    form = picture_format({"info": {"bits": 12}})
    (declared,) = embedded([plain], ROWS, 32, 48, form=form)
    marked = {"bytes": png_with(plain["bytes"], b"sBIT", b"\x0c")}
    (from_file,) = embedded([marked], ROWS, 32, 48)
    assert declared.max() == 255
    assert np.array_equal(declared, from_file)
    (dark,) = embedded([plain], ROWS, 32, 48, form=PictureFormat(16))
    assert dark.max() == 16


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
    form = picture_format({"names": names})
    assert form.channels == channels
    (found,) = embedded([cell(arrow())], ROWS, 32, 48, form=form)
    assert np.array_equal(found, arrow() if channels == "rgb" else arrow()[..., ::-1])
