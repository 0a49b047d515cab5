"""Store of built engines: a folder that only this user can write, and only this user fills.

    $XDG_CACHE_HOME/jetsight/engines/   0700
        <key>-<digest>/engine.plan, record.json, build.log
        locks/<key>.lock                one build of a key at a time, whichever process
        logs/<key>/build.log            of builds that failed
        timing/<machine>.cache

An entry appears complete or not at all (`storage.atomic`). It is handed out only after size,
SHA-256, plan header and machine were checked: deserializing an engine can run code that is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import GRAPHS, graph_path
from jetsight.errors import EngineError
from jetsight.storage import atomic
from jetsight.storage.locks import locked
from jetsight.storage.ownership import default_root, read_file, refuse_shared
from jetsight.tensorrt import plan_header
from jetsight.tensorrt import record as build_record
from jetsight.tensorrt.bindings import Version
from jetsight.tensorrt.fingerprint import HostSpec
from jetsight.tensorrt.record import BuildRecord

PLAN, RECORD, LOG = "engine.plan", "record.json", "build.log"
_MAX_RECORD_BYTES = 1 << 20
_FOLDERS = ("locks", "logs", "timing")
_LOGGER = logging.getLogger("jetsight")
_REBUILD = "build it here: jetsight build BUNDLE"
_said: set[str] = set()


@dataclass(frozen=True)
class StoredEngine:
    """An engine that matched its record, and the record."""

    plan: bytes
    record: BuildRecord


class _Gone(EngineError):
    """An entry that was there a moment ago."""


class EngineStore:
    """The engines of this user on this machine.

    Args:
        root: folder to keep them in; `$XDG_CACHE_HOME/jetsight/engines` if None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    def find(self, graph_sha256: str, host: HostSpec) -> StoredEngine:
        """Find the newest proven engine of a graph for a machine, with any build options.

        One that a build replaces in this moment is looked for once more.

        A difference in power mode alone is accepted, and logged once.

        Args:
            graph_sha256: digest of the ONNX bytes.
            host: the machine it must run on.

        Raises:
            EngineError: there is none, it is for another machine or TensorRT, or it is damaged;
                with the differences and the rebuild command.
        """
        try:
            return self._find(graph_sha256, host)
        except _Gone:
            return self._find(graph_sha256, host)

    def _find(self, graph_sha256: str, host: HostSpec) -> StoredEngine:
        known = [
            entry for entry in self._entries() if entry[1].fingerprint.graph_sha256 == graph_sha256
        ]
        if not known:
            raise EngineError(f"no engine was built for this graph on this machine; {_REBUILD}")
        fitting = [entry for entry in known if not _host(entry).differences(host)]
        if not fitting:
            folder, record = known[-1]
            lines = "; ".join(record.fingerprint.host.differences(host))
            raise EngineError(f"{folder / PLAN}: built for | found: {lines}; {_REBUILD}")
        proven = [entry for entry in fitting if entry[1].proven]
        if not proven:
            folder = fitting[-1][0]
            raise EngineError(
                f"{folder / PLAN}: built without a GPU and never compared with PyTorch; {_REBUILD}"
            )
        return self._first_whole(
            sorted(proven, key=lambda entry: _preference(entry, host), reverse=True), host
        )

    def _first_whole(self, entries: list[tuple[Path, BuildRecord]], host: HostSpec) -> StoredEngine:
        """Take the first that passes every check; say what is wrong with the first if none does."""
        refused: list[EngineError] = []
        for folder, record in entries:
            try:
                found = self._read(folder, record, host)
            except EngineError as error:
                refused.append(error)
                continue
            if refused:  # built with other options, so rebuilding may never replace the bad one
                _LOGGER.warning("an older engine of the same graph is used: %s", refused[0])
            _mention_power_mode(record, host)
            return found
        raise refused[0]

    def get(self, key: str) -> BuildRecord | None:
        """Record of the newest whole engine under a key; its bytes are checked too."""
        for folder, record in reversed(self._entries()):
            if record.fingerprint.key == key:
                with contextlib.suppress(EngineError):
                    self._read(folder, record, record.fingerprint.host)
                    return record
        return None

    def records(self) -> list[BuildRecord]:
        """Every readable record, oldest first."""
        return [record for _, record in self._entries()]

    def add(self, plan: bytes, record: BuildRecord, log: str) -> Path:
        """Keep an engine, in one step, and drop older ones of its key.

        Raises:
            StorageError: the disk is full or not writable; what was there before is still there.
        """
        self.prepare()
        key = record.fingerprint.key
        target = self.root / f"{key}-{record.plan_sha256[:8]}"
        if target.exists():  # the same bytes again, e.g. by --force: the newer record counts
            if not _holds(target / PLAN, record):  # and what was damaged is whole again
                atomic.write_file(target / PLAN, plan)
            atomic.write_file(target / RECORD, build_record.dump(record))
        else:
            with atomic.new_directory(target) as folder:
                folder.chmod(0o700)
                (folder / PLAN).write_bytes(plan)
                (folder / RECORD).write_bytes(build_record.dump(record))
                (folder / LOG).write_text(log, errors="replace")
        for older in self.root.glob(f"{key}-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
        return target

    @contextlib.contextmanager
    def building(self, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Let one process at a time build a key; `waiting` gets the id of the one before."""
        self.prepare()
        with locked(self.root / "locks" / f"{key}.lock", waiting):
            yield

    def failure_log(self, key: str) -> Path:
        """Path of the log of a build that fails."""
        folder = self.root / "logs" / key
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / LOG

    def forget_failure(self, key: str) -> None:
        """Remove the log of an older failure."""
        shutil.rmtree(self.root / "logs" / key, ignore_errors=True)

    def timing_file(self, host_key: str) -> Path:
        """File of the kernel times of a machine."""
        return self.root / "timing" / f"{host_key}.cache"

    def prepare(self) -> None:
        """Make the folder, refuse it unless it is private, and sweep what killed builds left.

        Raises:
            StorageError: it cannot be made.
            EngineError: others can write to it.
        """
        try:
            for folder in (*reversed(self.root.parents), self.root):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
            refuse_shared(self.root, readable=False)
            for name in _FOLDERS:
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
            self.sweep()
        except OSError as error:
            raise atomic.storage_error(error, self.root) from error

    def sweep(self) -> None:
        """Remove what killed builds left."""
        if self.root.is_dir():
            atomic.sweep(self.root)

    def _entries(self) -> list[tuple[Path, BuildRecord]]:
        """Folders with a readable record, oldest first; the others are passed over."""
        try:
            if not self.root.is_dir():
                return []
            refuse_shared(self.root, readable=False)
            folders = list(self.root.iterdir())
        except OSError as error:  # e.g. the home of another user
            raise EngineError(
                f"{self.root}: {error.strerror}; set XDG_CACHE_HOME to a folder of your own"
            ) from error
        found = []
        for folder in folders:
            if folder.name.startswith(".") or folder.name in _FOLDERS:
                continue
            with contextlib.suppress(EngineError, OSError):
                data = read_file(folder / RECORD, _MAX_RECORD_BYTES)
                found.append((folder, build_record.parse(data, str(folder / RECORD))))
        return sorted(found, key=lambda entry: (entry[1].built_utc, entry[0].name))

    def _read(self, folder: Path, record: BuildRecord, host: HostSpec) -> StoredEngine:
        """Read the engine of an entry, after every check that needs no TensorRT."""
        path = folder / PLAN
        try:
            refuse_shared(folder)
            plan = read_file(path, record.plan_bytes)
        except OSError as error:
            kind = EngineError if folder.exists() else _Gone
            raise kind(f"{path}: {error.strerror}; {_REBUILD}") from error
        if len(plan) != record.plan_bytes:
            raise EngineError(
                f"{path}: {len(plan)} bytes, its record says {record.plan_bytes}; it was cut or "
                f"extended, {_REBUILD}"
            )
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            raise EngineError(
                f"{path}: does not match the SHA-256 in its record, it was damaged or changed; "
                f"{_REBUILD}"
            )
        plan_header.check(plan, host.library, _numbers(host.version), str(path))
        return StoredEngine(plan, record)


def _holds(path: Path, record: BuildRecord) -> bool:
    """Return whether the engine in that file is the one of the record."""
    with contextlib.suppress(OSError, EngineError):
        plan = read_file(path, record.plan_bytes)
        return hashlib.sha256(plan).hexdigest() == record.plan_sha256
    return False


def _host(entry: tuple[Path, BuildRecord]) -> HostSpec:
    return entry[1].fingerprint.host


def _preference(entry: tuple[Path, BuildRecord], host: HostSpec) -> tuple[bool, str]:
    """Tuned in this power mode first, then the newest."""
    record = entry[1]
    return record.fingerprint.host.power_mode == host.power_mode, record.built_utc


def _mention_power_mode(record: BuildRecord, host: HostSpec) -> None:
    built = record.fingerprint.host.power_mode
    text = (
        f"engine {record.fingerprint.key} was tuned in power mode {built}, this machine is in "
        f"{host.power_mode}; for the best latency: jetsight build BUNDLE"
    )
    if built != host.power_mode and text not in _said:
        _said.add(text)
        _LOGGER.warning(text)


def _numbers(version: str) -> Version:
    numbers = (*(int(n) for n in version.split(".") if n.isdecimal()), 0, 0, 0, 0)
    return numbers[0], numbers[1], numbers[2], numbers[3]


def fastest_family(bundle: Bundle, store: EngineStore, host: HostSpec) -> str | None:
    """Name of the family whose proven engines take least time together; None if none is built.

    Of several engines of a graph the newest counts, which is the one a session loads. A family that
    was built but not timed follows those that were.
    """
    built: dict[str, float] = {}
    for record in store.records():
        if record.proven and not record.fingerprint.host.differences(host):
            p50 = math.inf if record.latency is None else record.latency.p50_ms
            built[record.fingerprint.graph_sha256] = p50  # oldest come first
    totals: dict[str, float] = {}
    for family in bundle.manifest.families:
        digests = [bundle.manifest.files[graph_path(family.name, g)].sha256 for g in GRAPHS]
        if all(digest in built for digest in digests):
            totals[family.name] = sum(built[digest] for digest in digests)
    return min(totals, key=totals.__getitem__) if totals else None
