"""Atomic writes: a reader sees the old file or folder or the new one, never a part.

The order is temp -> write -> fsync(file) -> rename -> fsync(folder); a kill at any step leaves the
final name untouched and at most a hidden temp behind, which the next writer of that name sweeps.
A writer holds a kernel lock on its temp, so a sweep never takes one that is still being written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jetsight.errors import StorageError

_SUFFIX = ".jetsight-tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Linux file systems allow names of 255 bytes; the temp adds a dot, a nonce and a suffix.
_MAX_NAME_BYTES = 255 - len(_SUFFIX) - 16


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, replacing a file of that name in one step.

    Raises:
        StorageError: the disk is full, the place is not writable, or `path` is a folder.
    """
    with new_file(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary stream that is renamed to `path` when the block succeeds.

    An exception in the block removes the new data and leaves an older `path` unchanged.
    A pipe or device (`/dev/stdout`) cannot be replaced and is written directly.

    Raises:
        StorageError: the disk is full, the place is not writable, or `path` is a folder.
    """
    target = _resolve(path)
    if _is_special(path):
        with _reported(target), open(path, "wb") as stream:
            yield stream
        return
    if os.path.isdir(target):  # never raises: the `open` below reports an unreadable parent
        raise StorageError(f"{target} is a folder, expected a file name; choose another path")
    temp, descriptor = _prepare(target, folder=False)
    stream = os.fdopen(descriptor, "wb")
    try:
        with _reported(target, only=_FULL):
            yield stream
        with _reported(target):
            # Before the rename: else a power cut could leave the new name without its data.
            stream.flush()
            os.fsync(descriptor)
            os.replace(temp, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    finally:
        # Closed after the rename, because closing releases the lock that keeps sweeps away.
        with contextlib.suppress(OSError):  # a full disk was reported above; close tries again
            stream.close()
    with _reported(target):
        # Without this a power cut could undo the rename.
        _fsync_folder(target.parent)


@contextlib.contextmanager
def new_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder to fill, which is renamed to `target` when the block succeeds.

    Its content is flushed to disk before the rename. An exception in the block (also
    KeyboardInterrupt) removes the folder; `target` then is absent or empty, as before.

    Example:
        >>> with new_directory("runs/nano") as folder:
        ...     (folder / "model.json").write_text("{}")

    Raises:
        StorageError: `target` exists and is not an empty folder, the disk is full, or the place
            is not writable.
    """
    final = _resolve(target)
    refuse_used(final)
    temp, descriptor = _prepare(final, folder=True)
    try:
        with _reported(final, only=_FULL):
            yield temp
        with _reported(final):
            _fsync_tree(temp)
            # Of folders `rename` replaces only an empty one, so nothing is ever overwritten.
            os.rename(temp, final)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
    with _reported(final):
        _fsync_folder(final.parent)


def refuse_used(target: str | os.PathLike[str]) -> None:
    """Raise `StorageError` unless `target` is absent or an empty folder; call before long work."""
    final = _resolve(target)
    with _reported(final):
        if final.is_dir():
            with os.scandir(final) as entries:
                used = any(True for _ in entries)
        else:
            used = final.exists()
    if used:
        raise StorageError(
            f"{final} already exists and is never overwritten; choose another name or remove it"
        )


def sweep(parent: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """Remove temps that killed writers left in `parent`, and return their paths.

    Args:
        parent: folder to search, without its subfolders.
        name: final name whose temps are removed; those of all names if None.
    """
    prefix = "." if name is None else _temp_prefix(name)
    with os.scandir(parent) as entries:
        found = [e.path for e in entries if e.name.startswith(prefix) and e.name.endswith(_SUFFIX)]
    return [Path(path) for path in found if _remove_abandoned(path)]


def _resolve(path: str | os.PathLike[str]) -> Path:
    # Links are followed, so that the rename replaces the file, not a link to it.
    return Path(os.path.realpath(path))


def _is_special(path: str | os.PathLike[str]) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _prepare(final: Path, *, folder: bool) -> tuple[Path, int]:
    """Make the parents, sweep old temps of that name, and return a new locked one."""
    with _reported(final):
        _make_parents(final.parent)
        sweep(final.parent, final.name)
        return _locked_temp(final, folder=folder)


def _temp_prefix(name: str) -> str:
    # The limit counts bytes; the cut may split a character, whose rest is dropped.
    short = name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return f".{short}."


def _locked_temp(final: Path, *, folder: bool) -> tuple[Path, int]:
    """Create and lock a hidden sibling of `final`; return its path and open descriptor."""
    while True:
        temp = final.parent / f"{_temp_prefix(final.name)}{secrets.token_hex(6)}{_SUFFIX}"
        if folder:
            os.mkdir(temp)
            flags = os.O_RDONLY | os.O_DIRECTORY
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            # The umask decides, as for `open`.
            descriptor = os.open(temp, flags | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # a sweep removed the folder before it was locked
        with contextlib.suppress(OSError):  # some network mounts have no locks: sweeps skip it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A sweep may also have locked and removed it between creation and our lock.
        if temp.exists():
            return temp, descriptor
        os.close(descriptor)


def _remove_abandoned(path: str) -> bool:
    try:
        # The name may be of a planted link or pipe: neither is followed or waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # already swept, or of another user
    try:
        # The kernel releases the lock of a killed writer, so only abandoned temps can be locked.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _make_parents(folder: Path) -> None:
    """Create missing parents of a target, and flush the folder entry of each."""
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
    _make_parents(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_tree(top: Path) -> None:
    for root, _, names in os.walk(top, topdown=False):  # a folder's entry after what it names
        for name in names:
            path = os.path.join(root, name)
            if not os.path.islink(path):  # its target may be outside of the tree
                _fsync_path(path, os.O_RDONLY)
        _fsync_folder(root)


def _fsync_folder(folder: str | os.PathLike[str]) -> None:
    try:
        _fsync_path(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some FUSE mounts cannot flush a folder
            raise


def _fsync_path(path: str | os.PathLike[str], flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reported(target: Path, only: frozenset[int] | None = None) -> Iterator[None]:
    """Translate errors of the file system into one `StorageError` naming `target`.

    Around a caller's block `only` limits this to a full disk: other errors may concern its sources.
    """
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise storage_error(error, target) from error


def is_full(error: OSError) -> bool:
    """Return whether the disk, the quota or the file size limit stopped a write."""
    return error.errno in _FULL


def storage_error(error: OSError, target: str | os.PathLike[str]) -> StorageError:
    """Describe in one line a failed write of `target`, with the next step."""
    where, why = os.fspath(target), error.strerror or str(error)
    if error.errno in _FULL:
        return StorageError(
            f"no space left while writing {where} ({why}); nothing incomplete was left under that "
            "name: free space or choose another disk"
        )
    if error.errno in _DENIED:
        return StorageError(f"cannot write {where} ({why}); choose a place this user may write to")
    return StorageError(f"cannot write {where} ({why}); choose another name or place")
