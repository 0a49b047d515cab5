"""Tar archives of plain files: strict reading in place, reproducible writing.

The standard library's reader is lenient: it skips damaged headers, stops at the first odd block,
and follows a dozen extensions. Here each header must match its checksum, padding must be zero, the
archive must end in zeros, and only regular files and folders with relative, distinct names may
exist; anything else is refused.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from jetsight.errors import BundleError

_BLOCK = 512
_MAX_MEMBERS = 1024
_REGULAR, _FOLDER = (b"0", b"\0"), b"5"  # NUL: archives older than POSIX
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
            outside the files' contents is invalid.
    """
    end = stream.seek(0, io.SEEK_END)
    members: list[Member] = []
    names: set[str] = set()  # without case: file systems of other machines may not distinguish it
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
        if len(names) >= _MAX_MEMBERS or member.name.casefold() in names:
            raise BundleError(f"{what}: {member.name!r} appears twice, or too many entries")
        names.add(member.name.casefold())
        position = _check_padding(stream, member, end, what)
        if kind != _FOLDER:
            members.append(member)


def write(stream: BinaryIO, files: Mapping[str, bytes]) -> None:
    """Write `files` as a tar without times, users or modes: equal files give equal bytes."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _parse_header(header: bytes, position: int, what: str) -> tuple[Member, bytes]:
    plain = header[:148] + b" " * 8 + header[156:]  # the checksum counts its own field as blanks
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
    # Octal alone: GNU writes sizes of 8 GiB and more in base 256, which no graph can have.
    if not size_field or len(size_field) > 11 or size_field.strip(b"01234567"):
        raise BundleError(f"{what}: {name!r} has an unreadable size")
    size = int(size_field, 8)
    if kind == _FOLDER and size:
        raise BundleError(f"{what}: the folder {name!r} has content")
    return Member(name, position + _BLOCK, size), kind


def _member_name(header: bytes, what: str) -> str:
    """Return the name with its ustar prefix, without the leading `./` of `tar -C DIR .`."""
    raw, prefix = (field.split(b"\0", 1)[0] for field in (header[0:100], header[345:500]))
    # GNU's older format, with another magic, has times in these bytes.
    if header[257:263] == b"ustar\0" and prefix:
        raw = prefix + b"/" + raw
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{what}: a name is not UTF-8") from None
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if not name.isprintable() or "\\" in name or any(part in ("", "..") for part in parts):
        raise BundleError(f"{what}: refused the entry {ascii(name)[:80]}, which leaves the bundle")
    return "/".join(parts)


def _check_padding(stream: BinaryIO, member: Member, end: int, what: str) -> int:
    """Return the position of the next header; the gap after the content must be zeros."""
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
    while piece := stream.read(1 << 20):
        if any(piece):
            raise BundleError(f"{what}: bytes appended after the end of the archive")
