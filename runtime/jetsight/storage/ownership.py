"""Checks that folders and files could only be written by this user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jetsight.errors import EngineError


def refuse_shared(folder: Path, *, readable: bool = True) -> None:
    """Raise `EngineError` unless `folder` is this user's and no other user can write to it.

    Args:
        folder: path of the folder.
        readable: others may read it.
    """
    status = os.lstat(folder)  # not `stat`: a link could be redirected after the check
    if not stat.S_ISDIR(status.st_mode):
        raise EngineError(f"{folder} is no folder, expected one that holds engines; remove it")
    if status.st_uid != os.geteuid():
        raise EngineError(
            f"{folder} belongs to user {status.st_uid}, and engines are code: they are only loaded "
            "from a folder of your own; set XDG_CACHE_HOME to one"
        )
    if status.st_mode & (0o022 if readable else 0o077):
        raise EngineError(
            f"{folder} has mode {stat.S_IMODE(status.st_mode):04o}, and engines are code: expected "
            f"0700; if no other user could have written there, run: chmod 700 {folder}"
        )


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of this user, up to one byte more than `most_bytes`."""
    # Non-blocking, because opening a pipe in its place would wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as stream:
        # Of the open file, not of the path: a parent that others can write may have been replaced.
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise EngineError(f"{path} is not a regular file; remove it")
        if status.st_uid != os.geteuid():
            raise EngineError(
                f"{path} belongs to user {status.st_uid}, and engines are code: only your own are "
                "loaded; remove it, and build it here: jetsight build BUNDLE"
            )
        return stream.read(most_bytes + 1)  # one more shows that the file is too long


def default_root() -> Path:
    """Return `$XDG_CACHE_HOME/jetsight/engines`, in `~/.cache` if the variable is not set.

    Raises:
        EngineError: neither is known.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        # The XDG specification: a path that is not absolute must be ignored.
        top = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:  # a container's user without an entry in the passwd file
        raise EngineError(
            f"user {os.geteuid()} has no home folder to keep engines in; set XDG_CACHE_HOME to one"
        ) from None
    return top / "jetsight" / "engines"
