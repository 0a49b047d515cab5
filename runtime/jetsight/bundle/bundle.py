"""Bundles: the only artefact that is copied from the workstation to the robot.

A bundle is a folder `NAME.jetsight/` or the same tree in one uncompressed `.tar`, with
`manifest.json`, `golden.npz` and `graphs/<family>/<graph>.onnx`. It is opened only if it holds
exactly the files of its manifest, each with the listed size and SHA-256. Bytes are hashed again on
every read, so that a backend loads what was verified even if the disk has changed since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy.typing as npt

from jetsight.bundle import golden, manifest
from jetsight.bundle.manifest import FileEntry, Manifest
from jetsight.errors import BundleError, UsageError
from jetsight.storage import atomic
from jetsight.storage import tar as tarfmt

_MAX_MANIFEST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_MAX_ENTRIES = 1024


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A verified bundle; make one with `Bundle.open`.

    Example:
        >>> bundle = Bundle.open("pusht-nano.jetsight")
        >>> bundle.manifest.model.latent_size
        192
        >>> onnx_bytes = bundle.graph("cpu-int8", "encode")
    """

    path: Path
    manifest: Manifest
    _store: _Store = dataclasses.field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle folder or `.tar` and check every byte of it before anything is parsed.

        Raises:
            BundleError: the path is no bundle, or was truncated, tampered with, or extended.
        """
        where = Path(path)
        try:
            store = _open_store(where)
            facts = _read_manifest(store, where)
            _check_listing(store, facts, where)
            for name, entry in facts.files.items():
                for _ in _verified(store, name, entry, where):  # in pieces: a graph may have 2 GB
                    pass
        except OSError as error:
            raise _unreadable(where, error) from error
        return cls(where, facts, store)

    def graph(self, family: str, name: str) -> bytes:
        """Read the ONNX bytes of graph `name` of `family`, hashed as they are read.

        Raises:
            UsageError: the bundle has no such family or graph.
            BundleError: the file changed since the bundle was opened.
        """
        families = [known.name for known in self.manifest.families]
        if family not in families:
            raise UsageError(f"{self.path} has no family {family!r}; it has: {', '.join(families)}")
        path = manifest.graph_path(family, name)
        if path not in self.manifest.files:
            raise UsageError(f"{self.path} has no graph {name!r} in family {family!r}")
        return self._read(path)

    def golden(self) -> dict[str, npt.NDArray[Any]]:
        """Read reference inputs and outputs in float32, keyed like those of the graphs.

        Arrays are read-only: `frame_hwc_u8 [n,h,w,3]`, `z [n,D]`, `z_hist [n,K,D]`,
        `a_hist [n,K-1,A]`, `actions [n,H,A]`, `z_future [n,H,D]`, and perhaps iterations of the
        planners, see `jetsight.bundle.golden`.

        Raises:
            BundleError: the file does not fit the manifest, or changed since opening.
        """
        what = f"{self.path}/{manifest.GOLDEN}"
        return golden.load(self._read(manifest.GOLDEN), self.manifest, what)

    def _read(self, name: str) -> bytes:
        try:
            entry = self.manifest.files[name]
            return b"".join(_verified(self._store, name, entry, self.path))
        except OSError as error:
            raise _unreadable(self.path, error) from error


def write_bundle(
    target: str | os.PathLike[str],
    facts: Manifest,
    files: Mapping[str, bytes],
    *,
    tar: bool = False,
) -> Bundle:
    """Write a bundle atomically and return it opened.

    The written bytes are read back and checked before the rename to `target`.

    Args:
        target: folder `NAME.jetsight`, or a file `NAME.jetsight.tar` with `tar=True`.
        facts: the manifest; its `files` are computed here.
        files: content by bundle path, everything but the manifest.
        tar: write one archive instead of a folder.

    Raises:
        BundleError: facts and files do not make a readable bundle.
        StorageError: `target` exists, or the disk is full or not writable.
    """
    entries = {name: FileEntry(len(data), _sha256(data)) for name, data in sorted(files.items())}
    facts = dataclasses.replace(facts, files=entries)
    facts.check_files()
    # The reader's own check, before anything is written.
    golden.load(files[manifest.GOLDEN], facts, f"{target}/{manifest.GOLDEN}")
    tree = {manifest.FILE_NAME: manifest.dump(facts), **{name: files[name] for name in entries}}
    if tar:
        _write_tar(Path(target), tree)
    else:
        _write_folder(Path(target), tree)
    return Bundle.open(target)  # again, as the check saw it under its temporary name


def _write_folder(target: Path, tree: Mapping[str, bytes]) -> None:
    with atomic.new_directory(target) as folder:
        for name, data in tree.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        Bundle.open(folder)  # before the rename: no unreadable bundle gets the name


def _write_tar(target: Path, tree: Mapping[str, bytes]) -> None:
    atomic.refuse_used(target)
    top = target.name.removesuffix(".tar")
    with atomic.new_file(target) as stream:
        tarfmt.write(stream, {f"{top}/{name}": data for name, data in tree.items()})
        stream.flush()  # else the check would miss the end of the file
        # `new_file` does not reveal the temp's name.
        Bundle.open(f"/proc/self/fd/{stream.fileno()}")


class _Store(Protocol):
    """Files of a bundle; names use forward slashes."""

    def names(self) -> list[str]: ...

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a stream at the file's first byte; also return the size in bytes."""
        ...


class _Folder:
    """A bundle folder; every entry is a regular file or a folder, never a link."""

    def __init__(self, top: Path) -> None:
        self._top = top

    def names(self) -> list[str]:
        found: list[str] = []
        # By default os.walk skips folders that it cannot read.
        for root, folders, files in os.walk(self._top, onerror=_raise):
            for name in folders + files:
                path = os.path.join(root, name)
                inside = os.path.relpath(path, self._top).replace(os.sep, "/")
                mode = os.lstat(path).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise BundleError(f"{self._top}: {ascii(inside)[:80]} is a link or a device")
            found += [os.path.relpath(os.path.join(root, name), self._top) for name in files]
            if len(found) > _MAX_ENTRIES:  # per folder: the tree may be endless
                raise BundleError(f"{self._top}: more than {_MAX_ENTRIES} files")
        return [name.replace(os.sep, "/") for name in found]

    def open(self, name: str) -> tuple[BinaryIO, int]:
        # The entry may have been replaced since `names`: a link is not followed, a pipe not waited
        # for, and the type is that of the open file.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        stream = os.fdopen(os.open(self._top / name, flags), "rb")
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            stream.close()
            raise BundleError(f"{self._top}: {name} is not a regular file")
        return stream, status.st_size


class _Tar:
    """A bundle in one tar, read in place; all files are under one common folder or none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as stream:
            members = tarfmt.index(stream, str(path))
        tops = {m.name.partition("/")[0] for m in members}
        nested = len(tops) == 1 and all("/" in m.name for m in members)
        self._members = {m.name.partition("/")[2] if nested else m.name: m for m in members}

    def names(self) -> list[str]:
        return list(self._members)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        member = self._members[name]
        stream = self._path.open("rb")
        stream.seek(member.offset)
        return stream, member.size


def _open_store(path: Path) -> _Store:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return _Folder(path)
    if stat.S_ISREG(mode):
        return _Tar(path)
    raise BundleError(f"{path} is neither a bundle folder nor a .tar file")


def _read_manifest(store: _Store, where: Path) -> Manifest:
    if manifest.FILE_NAME not in store.names():
        raise BundleError(f"{where}: no {manifest.FILE_NAME}; this is no jetsight bundle")
    stream, size = store.open(manifest.FILE_NAME)
    with stream:
        data = stream.read(min(size, _MAX_MANIFEST_BYTES + 1))  # one more shows that it is too long
    return manifest.parse(data, f"{where}/{manifest.FILE_NAME}")


def _check_listing(store: _Store, facts: Manifest, where: Path) -> None:
    present, listed = set(store.names()), {manifest.FILE_NAME, *facts.files}
    if missing := sorted(listed - present):
        raise BundleError(f"{where}: {missing[0]} is missing; copy the bundle again")
    if extra := sorted(present - listed):
        raise BundleError(f"{where}: {ascii(extra[0])[:80]} is not in the manifest; remove it")


def _verified(store: _Store, name: str, entry: FileEntry, where: Path) -> Iterator[bytes]:
    """Yield the file in pieces; raise after the last one unless size and digest are as listed."""
    stream, size = store.open(name)
    with stream:
        if size != entry.bytes:
            raise BundleError(
                f"{where}: {name} has {size} bytes, expected {entry.bytes}; copy the bundle again"
            )
        digest, left = hashlib.sha256(), size
        while left and (piece := stream.read(min(_CHUNK_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
            yield piece
    if left or digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{where}: {name} does not match its SHA-256 in the manifest; it was damaged or "
            "changed, copy the bundle again"
        )


def _unreadable(where: Path, error: OSError) -> BundleError:
    return BundleError(f"cannot read the bundle {where} ({error.strerror or error})")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _raise(error: OSError) -> None:
    raise error
