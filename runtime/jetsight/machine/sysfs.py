"""Small files of `/proc`, `/sys` and `/etc`; reading them never raises.

A node may be missing, unreadable without root, hold `N/A`, or vanish between `open` and `read`
(a sensor of a part that is switched off returns EAGAIN). All of that is None here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_SMALL_BYTES = 4096  # sysfs nodes are at most a page


def text(path: Path) -> str | None:
    """Read a small file as one line, without the NUL at the end of device-tree strings."""
    raw = _bytes(path, _SMALL_BYTES)
    if raw is None:
        return None
    shown = raw.decode(errors="replace").replace("\0", " ")
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split()) or None


def integer(path: Path) -> int | None:
    """Read a file that holds one decimal integer and nothing else."""
    found = re.fullmatch(r"-?\d{1,19}", text(path) or "", flags=re.ASCII)  # 64 bits
    return int(found[0]) if found else None


def lines(path: Path, *, max_bytes: int = 1 << 20) -> list[str]:
    """Read the lines of the first `max_bytes` of a text file; empty if it cannot be read."""
    return (_bytes(path, max_bytes) or b"").decode(errors="replace").splitlines()


def fields(path: Path, separator: str) -> dict[str, str]:
    """Read `key<separator>value` lines; the first of several equal keys counts."""
    found: dict[str, str] = {}
    for line in lines(path):
        key, _, value = line.partition(separator)
        found.setdefault(key.strip(), value.strip())
    return found


def nodes(folder: Path, pattern: str) -> Iterator[Path]:
    """List the matches in a folder, `zone2` before `zone10`; empty if it cannot be read."""
    try:
        found = list(folder.glob(pattern))
    except (OSError, ValueError):
        return
    yield from sorted(found, key=_natural)


def _bytes(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            # None on EAGAIN, against the annotation of `read`.
            data: bytes | None = file.read(limit)
            return data
    except (OSError, ValueError):  # ValueError: a NUL in a name read from another file
        return None


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.as_posix(), flags=re.ASCII)
    # Pairs, because Python cannot compare an int with a str.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
