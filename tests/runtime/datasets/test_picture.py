"""Pictures become the RGB frame that their source means, or are refused with the line to type.

Every check has a control beside it: the same pixels read without the fact they declare.
"""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.picture_factory import (
    MATRICES,
    TURNS,
    YUV,
    arrow,
    chart,
    displayed,
    fill,
    film,
    off_chart,
    png_with,
    turn,
    write_pictures,
    yuv_picture,
)
from helpers.runtime.camera_factory import encoded
from PIL import Image, ImageOps

from jetsight.datasets.picture import (
    ImageHeader,
    PictureFormat,
    PictureReader,
    names_depth,
    read_header,
)
from jetsight.errors import DataError, UsageError

LEVELS = 5  # what rounding in YUV and swscale's integers cost; a wrong matrix or range costs 12
TAGS = list(itertools.product(MATRICES, (False, True)))


def decoded(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def read(data: bytes, declared: PictureFormat | None = None, label: str = "x.png") -> np.ndarray:
    image = PictureReader(label, declared).image(data)
    assert image is not None
    return image


@pytest.mark.parametrize("form", YUV)
def test_every_matrix_and_range_gives_the_colours_of_the_scene(form: str) -> None:
    for matrix, full in TAGS[1::2] if form == "yuvj420p" else TAGS:
        picture = yuv_picture(form, matrix, full=full)
        assert off_chart(PictureReader("x").rgb(picture)) <= LEVELS, (matrix, full)
        for other, wide in TAGS:
            if (other, wide) != (matrix, full) and not (form == "yuvj420p" and other == matrix):
                picture.colorspace, picture.color_range = MATRICES[other][2], 2 if wide else 1
                assert off_chart(PictureReader("x").rgb(picture)) >= 12, (matrix, full, other, wide)


@pytest.mark.parametrize(
    ("codec", "form", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx264", "yuv444p", "mkv"),
        ("libx264", "yuv420p10le", "mp4"),
        ("ffv1", "yuv420p12le", "mkv"),
        ("ffv1", "yuv422p", "mkv"),
    ],
)
def test_codecs_and_containers_keep_matrix_and_range(
    codec: str, form: str, suffix: str, tmp_path: Path
) -> None:
    options = {"qp": "0"} if codec == "libx264" else {}
    for i, (matrix, full) in enumerate(TAGS):
        picture = yuv_picture(form, matrix, full=full)
        path = write_pictures(tmp_path / f"{i}.{suffix}", [picture], codec, options=options)
        found = decoded(path)
        assert found.format.name.replace("yuvj", "yuv") == form
        assert off_chart(PictureReader("x").rgb(found)) <= LEVELS, (matrix, full)


def test_motion_jpeg_is_full_range(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", [chart()], "mjpeg", options={"qmin": "1", "qmax": "1"})
    picture = decoded(path)
    assert picture.format.name == "yuvj420p"
    assert off_chart(PictureReader("x").rgb(picture)) <= 12  # JPEG's own loss
    limited = picture.reformat(format="yuv420p")
    limited.color_range = 1
    for plane, source in zip(limited.planes, picture.planes, strict=True):
        plane.update(bytes(source))
    assert off_chart(PictureReader("x").rgb(limited)) > 12


@pytest.mark.parametrize("form", ["gray", "gray10le", "gray12le"])
def test_grey_of_any_depth_is_three_equal_channels(form: str) -> None:
    bits = {"gray": 8, "gray10le": 10, "gray12le": 12}[form]
    values = np.tile(np.linspace(0, (1 << bits) - 1, 64).round(), (16, 1))
    picture = av.VideoFrame(64, 16, form)
    fill(picture.planes[0], values.astype(np.uint8 if bits == 8 else np.uint16))
    picture.color_range = 2
    image = PictureReader("x").rgb(picture)
    assert np.array_equal(image, image[..., :1].repeat(3, axis=2))
    assert np.abs(image[..., 0] - values * 255 / ((1 << bits) - 1)).max() <= 1.5


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrix_of_a_video_is_applied(
    matrix: tuple[int, int, int, int], tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mp4", [arrow()] * 2)
    stored = PictureReader("x").rgb(decoded(path))
    upright = PictureReader("x").rgb(decoded(turn(path, *matrix)))
    assert np.array_equal(upright, displayed(stored, *matrix))
    assert matrix == (1, 0, 0, 1) or not np.array_equal(upright, stored)


def test_slanted_display_matrix_is_refused(tmp_path: Path) -> None:
    path = turn(film(tmp_path / "a.mp4", [arrow()]), 1, 1, -1, 1)
    with pytest.raises(DataError, match=r"a\.mp4: its display matrix turns .* ffmpeg -i IN OUT"):
        PictureReader(str(path)).rgb(decoded(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    with io.BytesIO() as file:
        Image.fromarray(arrow()).save(file, kind, exif=exif, **options)
        data = file.getvalue()
        upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    assert read_header(data).orientation == orientation
    found = read(data)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= 3
    assert orientation == 1 or found.shape[0] == 48 or np.abs(found - arrow()).max() > 50


def test_exif_of_the_other_byte_order_and_behind_other_segments() -> None:
    with io.BytesIO() as file:
        Image.fromarray(arrow()).save(file, "JPEG")
        data = file.getvalue()
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
        for content in (b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + tiff)
    )
    assert read(data[:2] + segments + data[2:]).shape == (48, 32, 3)
    assert read(data).shape == (32, 48, 3)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.7])
def test_header_that_is_cut_says_nothing(share: float) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "TIFF", "WEBP", "JPEG"):
        with io.BytesIO() as file:
            Image.fromarray(arrow()).save(file, kind, exif=exif)
            data = file.getvalue()
        assert read_header(data[: int(share * len(data))]).orientation in (1, 6)
    assert read_header(b"II*\0\xff\xff\xff\xff") == ImageHeader()
    assert read_header(b"\xff\xd8\xff") == ImageHeader()


def grey16(bits: int) -> tuple[bytes, np.ndarray]:
    """A 16-bit PNG of a camera of `bits` bits, and the frame it means."""
    share = np.tile(np.linspace(0, 1, 64), (16, 1))
    with io.BytesIO() as file:
        Image.fromarray((share * ((1 << bits) - 1)).round().astype(np.uint16)).save(file, "PNG")
        return file.getvalue(), (share * 255)[..., None].repeat(3, axis=2)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_bits_of_16_bit_images_are_declared_and_never_guessed(bits: int) -> None:
    data, expected = grey16(bits)
    line = rf"x\.png: 16-bit samples up to {(1 << bits) - 1} .*give --bits {bits}$"
    with pytest.raises(DataError, match=line):
        read(data)
    assert np.abs(read(data, PictureFormat(bits)) - expected).max() <= 1
    assert bits == 16 or np.abs(read(data, PictureFormat(16)) - expected).max() > 180
    assert np.abs(read(png_with(data, b"sBIT", bytes([bits]))) - expected).max() <= 1


def test_samples_scaled_to_16_bits_with_sbit_are_not_scaled_again() -> None:
    data, expected = grey16(16)
    assert np.abs(read(png_with(data, b"sBIT", b"\x0c")) - expected).max() <= 1


def test_a_sample_above_the_declared_bits_is_refused() -> None:
    data, _ = grey16(14)
    with pytest.raises(DataError, match=r"a sample is 16383, above the 12 bits .*give --bits 14"):
        read(data, PictureFormat(12))


def test_bits_decided_by_the_first_picture_hold_for_all() -> None:
    reader = PictureReader("x")
    dark, expected = grey16(12)
    first = reader.image(png_with(dark, b"sBIT", b"\x0c"))
    assert np.abs(first - expected).max() <= 1
    with pytest.raises(DataError, match="above the 12 bits of the source"):
        reader.image(png_with(grey16(16)[0], b"sBIT", b"\x0c"))


@pytest.mark.parametrize(("form", "alpha"), [("rgb48le", False), ("rgba64le", True)])
def test_16_bit_colour_uses_its_top_bit_or_is_declared(
    form: str, alpha: bool, tmp_path: Path
) -> None:
    def png(image: np.ndarray, scale: int) -> bytes:
        samples = image.astype(np.uint16) * scale
        if alpha:
            samples = np.dstack([samples, np.full(image.shape[:2], 0xFFFF, np.uint16)])
        picture = av.VideoFrame(image.shape[1], image.shape[0], form)
        fill(picture.planes[0], samples.reshape(len(image), -1))
        path = tmp_path / "x.png"
        write_pictures(
            path, [picture.reformat(format=form.replace("le", "be"))], "png", form="image2"
        )
        return path.read_bytes()

    image = arrow()
    assert np.array_equal(read(png(image, 257)), image)
    with pytest.raises(DataError, match=r"up to 3680 may be of a camera of 12 bits.* --bits 12"):
        read(png(image, 16))
    found = read(png(image, 16), PictureFormat(12))
    assert np.abs(found.astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("img_depth16", True),
        ("observation.images.top_depth", True),
        ("observation.depths.top", True),
        ("Depth", True),
        ("wrist-disparity", True),
        ("in-depth-look", True),
        ("depthless", False),
        ("observation.images.top", False),
    ],
)
def test_depth_is_known_by_its_name(name: str, depth: bool) -> None:
    assert names_depth(name) is depth


def test_depth_is_never_a_colour_camera() -> None:
    data, _ = grey16(12)
    for declared in (None, PictureFormat(12)):
        with pytest.raises(DataError, match=r"cam/depth holds depth .* give the colour images"):
            read(data, declared, label="cam/depth")
    assert read(data, PictureFormat(12), label="depth/cam").shape == (16, 64, 3)


def alpha_image(kind: str, alpha: int) -> bytes:
    image = Image.fromarray(arrow()).convert(kind)
    with io.BytesIO() as file:
        if kind == "P":
            image.save(file, "PNG", transparency=bytes([alpha]) * 256)
        else:
            image.putalpha(alpha)
            image.save(file, "PNG")
        return file.getvalue()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_opaque_alpha_is_dropped_and_any_other_refused(kind: str) -> None:
    plain = np.asarray(Image.open(io.BytesIO(alpha_image(kind, 255))).convert("RGBA"))[..., :3]
    assert np.array_equal(read(alpha_image(kind, 255)), plain)
    for alpha in (0, 254):
        with pytest.raises(DataError, match=r"100% of the pixels are transparent.* magick"):
            read(alpha_image(kind, alpha))


@pytest.mark.parametrize("kind", ["P", "L", "1", "CMYK"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "BMP"])
def test_palettes_grey_and_cmyk_are_rgb(kind: str, file_format: str) -> None:
    if (kind, file_format) in {("CMYK", "PNG"), ("CMYK", "BMP"), ("P", "JPEG"), ("1", "JPEG")}:
        pytest.skip("there is no such file")
    image = Image.fromarray(arrow()).convert(kind)
    with io.BytesIO() as file:
        image.save(file, file_format, **({"quality": 98} if file_format == "JPEG" else {}))
        found = read(file.getvalue())
    assert np.abs(found.astype(int) - np.asarray(image.convert("RGB"))).max() <= 8


def test_bgr_is_turned_only_where_it_is_declared() -> None:
    data = encoded(arrow(), "png")
    assert np.array_equal(read(data), arrow())
    assert np.array_equal(read(data, PictureFormat(channels="bgr")), arrow()[..., ::-1])


def test_declarations_that_no_camera_has_are_refused() -> None:
    for bits in (0, 7, 17):
        with pytest.raises(UsageError, match=f"bits is {bits}, expected 8 to 16"):
            PictureFormat(bits)
    with pytest.raises(UsageError, match=r"channels is 'gbr', expected one of: rgb, bgr"):
        PictureFormat(channels="gbr")
