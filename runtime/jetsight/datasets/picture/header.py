"""Facts in the header of an image file that FFmpeg does not apply: EXIF orientation and PNG's sBIT.

Read from the bytes, so that every version of FFmpeg gives the same picture. A header that is cut
or damaged says nothing; whether the picture can be decoded is the decoder's verdict.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"  # in front of the TIFF header in JPEG, and in some WebP files
_ORIENTATION, _SHORT = 0x0112, 3
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length
_SCAN = 0xDA


@dataclass(frozen=True)
class ImageHeader:
    """Orientation and bit depth as an image file declares them.

    Args:
        orientation: EXIF orientation, 1 (upright) to 8.
        significant_bits: bits of each sample that the camera filled; None if it does not say.
    """

    orientation: int = 1
    significant_bits: int | None = None


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG, PNG, TIFF or WebP file; of others it is empty."""
    if data.startswith(b"\xff\xd8"):
        return ImageHeader(_exif(dict(_jpeg_segments(data)).get(0xE1, b"")))
    if data.startswith(_PNG):
        chunks = dict(_png_chunks(data))
        bits = chunks.get(b"sBIT", b"")[:3]
        return ImageHeader(_exif(chunks.get(b"eXIf", b"")), max(bits) if bits else None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader(_exif(dict(_webp_chunks(data)).get(b"EXIF", b"")))
    return ImageHeader(_exif(data))


def _exif(data: bytes) -> int:
    """Find the orientation in a TIFF structure; 1 if there is none."""
    data = data.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", data, place)
            if (tag, kind) == (_ORIENTATION, _SHORT) and 1 <= value <= 8:
                return int(value)
    except struct.error:  # cut off
        return 1
    return 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over marker and content up to the scan; of APP1 only those that hold EXIF."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SCAN:
            return
        if marker in _STANDALONE or marker == 0xFF:  # any number of fill bytes
            place += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        content = data[place + 4 : place + 2 + size]
        # APP1 holds XMP as well.
        if marker != 0xE1 or content.startswith(_EXIF):
            yield marker, content
        place += 2 + size


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_PNG)
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if kind != b"IDAT":  # the pixels; EXIF may follow them
            yield kind, data[place + 8 : place + 8 + size]
        place += 12 + size


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2  # chunks are padded to even sizes
