"""Checks that only this user can have written: of folders, and of each file that was opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jetsight.errors import EngineError


def refuse_shared(folder: Path, *, readable: bool = True) -> None:
    """Raise `EngineError` unless `folder` is this user's and no other user can write to it.

    Args:
        folder: what to look at.
        readable: whether others may read it.
    """
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise EngineError(f"{folder} is no folder, expected one that holds engines; remove it")
    if found.st_uid != os.geteuid():
        raise EngineError(
            f"{folder} belongs to user {found.st_uid}, and engines are code: they are only loaded "
            "from a folder of your own; set XDG_CACHE_HOME to one"
        )
    if found.st_mode & (0o022 if readable else 0o077):
        raise EngineError(
            f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}, and engines are code: expected "
            f"0700; if nobody else could have written there, run: chmod 700 {folder}"
        )


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of this user, up to one byte more than it should have.

    The owner is asked of what was opened: a folder above that others can write may have been
    swapped since it was looked at.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise EngineError(f"{path} is not a regular file; remove it")
        if found.st_uid != os.geteuid():
            raise EngineError(
                f"{path} belongs to user {found.st_uid}, and engines are code: only your own are "
                "loaded; remove it, and build it here: jetsight build BUNDLE"
            )
        return stream.read(most_bytes + 1)


def default_root() -> Path:
    """`$XDG_CACHE_HOME/jetsight/engines`; `~/.cache` where that is not set.

    Raises:
        EngineError: neither is known.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    # The XDG standard: a path that is not absolute is to be ignored.
    try:
        top = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:  # a container's user that no passwd file knows
        raise EngineError(
            f"user {os.geteuid()} has no home folder to keep engines in; set XDG_CACHE_HOME to one"
        ) from None
    return top / "jetsight" / "engines"
