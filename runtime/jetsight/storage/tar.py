"""A tar of plain files, read in place with every byte accounted for, and written reproducibly.

The standard library's reader is built to be lenient: it skips damaged headers, stops at the first
odd block, and follows a dozen extensions. A bundle needs none of that. Here each header matches
its checksum, padding is zero, the archive ends in zeros, and only regular files and folders with
relative, distinct names exist; anything else is refused, under any name.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from jetsight.errors import BundleError

_BLOCK = 512
_MAX_MEMBERS = 1024
_REGULAR, _FOLDER = (b"0", b"\0"), b"5"
_EXTENSIONS = (b"x", b"g", b"L", b"K")


@dataclass(frozen=True)
class Member:
    """Position of one regular file in the archive."""

    name: str
    offset: int
    size: int


def index(stream: BinaryIO, what: str) -> list[Member]:
    """Read every header of an uncompressed tar and return its regular files.

    Args:
        stream: the archive, seekable.
        what: path of the archive, for messages.

    Raises:
        BundleError: the archive holds anything but plain files and folders, or a byte of it
            outside the files' contents is not what it must be.
    """
    end = stream.seek(0, io.SEEK_END)
    members: list[Member] = []
    seen: set[str] = set()
    position = 0
    while True:
        stream.seek(position)
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            raise BundleError(f"{what}: truncated, expected a tar header at byte {position}")
        if header.count(0) == _BLOCK:
            _check_end(stream, position, end, what)
            return members
        member, kind = _parse_header(header, position, what)
        if len(seen) >= _MAX_MEMBERS or member.name.casefold() in seen:
            raise BundleError(f"{what}: {member.name!r} appears twice, or too many entries")
        seen.add(member.name.casefold())
        position = _check_padding(stream, member, end, what)
        if kind != _FOLDER:
            members.append(member)


def write(stream: BinaryIO, files: Mapping[str, bytes]) -> None:
    """Write `files` as a tar whose bytes depend on nothing else: no times, users or modes."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _parse_header(header: bytes, position: int, what: str) -> tuple[Member, bytes]:
    plain = header[:148] + b" " * 8 + header[156:]
    if header[148:156] != b"%06o\0 " % sum(plain):
        raise BundleError(f"{what}: not a tar, or damaged: bad header checksum at byte {position}")
    kind = header[156:157]
    if kind in _EXTENSIONS:
        raise BundleError(
            f"{what}: uses tar extensions; pack it with: tar --format=ustar -cf NAME.tar FOLDER"
        )
    name = _member_name(header, what)
    if kind not in _REGULAR and kind != _FOLDER:
        raise BundleError(f"{what}: {name!r} is a link or device, expected only plain files")
    size_field = header[124:136].rstrip(b"\0 ")
    if not size_field or len(size_field) > 11 or size_field.strip(b"01234567"):
        raise BundleError(f"{what}: {name!r} has an unreadable size")
    size = int(size_field, 8)
    if kind == _FOLDER and size:
        raise BundleError(f"{what}: the folder {name!r} has content")
    return Member(name, position + _BLOCK, size), kind


def _member_name(header: bytes, what: str) -> str:
    """Name with its ustar prefix, without the leading `./` that `tar -C DIR .` makes."""
    raw = _text(header[0:100])
    if header[257:263] == b"ustar\0" and header[345]:
        raw = _text(header[345:500]) + b"/" + raw
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{what}: a name is not UTF-8") from None
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if not name.isprintable() or "\\" in name or any(part in ("", "..") for part in parts):
        raise BundleError(f"{what}: refused the entry {ascii(name)[:80]}, which leaves the bundle")
    return "/".join(parts)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _check_padding(stream: BinaryIO, member: Member, end: int, what: str) -> int:
    """Return where the next header starts; the gap after the content must be zeros."""
    stop = member.offset + member.size
    following = -(-stop // _BLOCK) * _BLOCK
    if following > end:
        raise BundleError(f"{what}: truncated inside {member.name!r}")
    stream.seek(stop)
    if any(stream.read(following - stop)):
        raise BundleError(f"{what}: bytes hidden after {member.name!r}")
    return following


def _check_end(stream: BinaryIO, position: int, end: int, what: str) -> None:
    if end - position < 2 * _BLOCK or end % _BLOCK:
        raise BundleError(f"{what}: truncated, expected two zero blocks at its end")
    stream.seek(position)
    if any(any(piece) for piece in _pieces(stream)):
        raise BundleError(f"{what}: bytes appended after the end of the archive")


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(1 << 20):
        yield piece
