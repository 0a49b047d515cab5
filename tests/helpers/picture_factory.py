"""Pictures of known colours, written in every way a camera, a phone or a converter writes them."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK = 16
# Luma weights of red and blue, and FFmpeg's number of the matrix.
MATRICES = {"bt709": (0.2126, 0.0722, 1), "bt601": (0.299, 0.114, 6), "bt2020": (0.2627, 0.0593, 9)}
# Subsampling of chroma (down, across) and bits per sample.
YUV = {
    "yuv420p": (2, 2, 8),
    "yuvj420p": (2, 2, 8),
    "yuv422p": (1, 2, 8),
    "yuv444p": (1, 1, 8),
    "yuv420p10le": (2, 2, 10),
    "yuv444p10le": (1, 1, 10),
    "yuv420p12le": (2, 2, 12),
}


def chart() -> np.ndarray:
    """A chart `[96, 128, 3]` of 6 x 8 blocks, with the colours of the corners of the cube."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
    colours[0] = [
        *([255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0]),
        *([0, 0, 255], [128, 128, 128], [255, 255, 0], [10, 10, 10]),
    ]
    return colours.repeat(BLOCK, 0).repeat(BLOCK, 1).astype(np.uint8)


def off_chart(image: np.ndarray, expected: np.ndarray | None = None) -> int:
    """The largest error inside of the blocks, away from the borders that subsampling blurs."""
    error = np.abs(image.astype(int) - (chart() if expected is None else expected).astype(int))
    blocks = error.reshape(6, BLOCK, 8, BLOCK, 3)
    return int(blocks[:, 4:-4, :, 4:-4].max())


def yuv_picture(form: str, matrix: str, *, full: bool) -> av.VideoFrame:
    """The chart converted by the formulas of the standards, tagged with matrix and range."""
    down, across, bits = YUV[form]
    red, blue, number = MATRICES[matrix]
    r, g, b = np.moveaxis(chart() / 255.0, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    unit, top = 1 << (bits - 8), (1 << bits) - 1
    luma = y * top if full else unit * (16 + 219 * y)
    span = top if full else 224 * unit
    chroma = (span * c[::down, ::across] + 128 * unit for c in (u, v))
    picture = av.VideoFrame(r.shape[1], r.shape[0], form)
    for plane, values in zip(picture.planes, (luma, *chroma), strict=True):
        fill(plane, np.clip(np.rint(values), 0, top).astype(np.uint8 if bits == 8 else np.uint16))
    picture.color_range, picture.colorspace = (2 if full else 1), number
    return picture


def fill(plane: av.VideoPlane, values: np.ndarray) -> None:
    """Write rows `[h, w]` into a plane, whose rows are padded."""
    rows = np.zeros((values.shape[0], plane.line_size), np.uint8)
    data = np.ascontiguousarray(values).view(np.uint8)
    rows[:, : data.shape[1]] = data
    plane.update(rows.tobytes())


def write_pictures(
    path: Path,
    pictures: list[av.VideoFrame],
    codec: str = "ffv1",
    *,
    fps: int = 10,
    form: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A film of pictures as they are, with their tags."""
    first = pictures[0]
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        context = stream.codec_context
        context.time_base = Fraction(1, fps)
        context.color_range, context.colorspace = first.color_range, first.colorspace
        for i, picture in enumerate(pictures):
            picture.pts, picture.time_base = i, context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def film(path: Path, frames: list[np.ndarray], codec: str = "libx264", **how: object) -> Path:
    """A film of RGB frames."""
    form = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    pictures = [av.VideoFrame.from_ndarray(f, "rgb24").reformat(format=form) for f in frames]
    return write_pictures(path, pictures, codec, **how)  # type: ignore[arg-type]


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the display matrix of an mp4: `x' = a x + c y`, `y' = b x + d y`."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 4
    place += 4 + (32 if data[place] else 20) + 16  # version and flags, times and IDs, layers
    one = 1 << 16
    data[place : place + 36] = struct.pack(
        ">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(bytes(data))
    return path


def displayed(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The image with each pixel where the display matrix puts it."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    out = np.zeros((down.max() + 1, across.max() + 1, 3), image.dtype)
    out[down, across] = image
    return out


TURNS = [
    (a, b, c, d)
    for a, b, c, d in ((1, 0, 0, 1), (0, 1, 1, 0))
    for a, b in ((a, b), (-a, -b))
    for c, d in ((c, d), (-c, -d))
]


def arrow(height: int = 32, width: int = 48) -> np.ndarray:
    """A picture without any symmetry: every turn and mirror image of it differs."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 2, : width // 4] = (230, 40, 40)
    image[: height // 4, width // 2 :] = (40, 230, 40)
    return image


def png_with(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG file with one more chunk behind its header."""
    after, chunk = 8 + 25, kind + content  # signature and IHDR
    crc = zlib.crc32(chunk)
    return (
        data[:after]
        + struct.pack(">I", len(content))
        + chunk
        + struct.pack(">I", crc)
        + data[after:]
    )
