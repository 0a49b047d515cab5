"""Store of built engines: a folder that only this user can read and write.

    $XDG_CACHE_HOME/jetsight/engines/   0700
        <key>-<digest>/engine.plan, record.json, build.log
        locks/<key>.lock                one build of a key at a time, of all processes
        logs/<key>/build.log            of builds that failed
        timing/<machine>.cache

An entry appears complete or not at all (`storage.atomic`). It is returned only after size, SHA-256,
plan header and machine were checked: deserializing an engine can run code that is in it.
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
from jetsight.tensorrt.bindings import parse_version
from jetsight.tensorrt.fingerprint import HostSpec
from jetsight.tensorrt.record import BuildRecord

PLAN, RECORD, LOG = "engine.plan", "record.json", "build.log"
_MAX_RECORD_BYTES = 1 << 20
_FOLDERS = ("locks", "logs", "timing")
_LOGGER = logging.getLogger("jetsight")
_REBUILD = "build it here: jetsight build BUNDLE"
_logged: set[str] = set()


@dataclass(frozen=True)
class StoredEngine:
    """An engine that matched its record, and the record."""

    plan: bytes
    record: BuildRecord


class _Gone(EngineError):
    """The entry was removed since the store was listed."""


class EngineStore:
    """The engines of this user on this machine.

    Args:
        root: folder to keep them in; `$XDG_CACHE_HOME/jetsight/engines` if None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    def find(self, graph_sha256: str, host: HostSpec) -> StoredEngine:
        """Find the newest proven engine of a graph for a machine, with any build options.

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
        except _Gone:  # a build of another process has just replaced it
            return self._find(graph_sha256, host)

    def _find(self, graph_sha256: str, host: HostSpec) -> StoredEngine:
        known = [e for e in self._entries() if e[1].fingerprint.graph_sha256 == graph_sha256]
        if not known:
            raise EngineError(f"no engine was built for this graph on this machine; {_REBUILD}")
        fitting = [e for e in known if not e[1].fingerprint.host.differences(host)]
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

        def preference(entry: tuple[Path, BuildRecord]) -> tuple[bool, str]:
            """Prefer engines tuned in this power mode, then the newest."""
            record = entry[1]
            return record.fingerprint.host.power_mode == host.power_mode, record.built_utc

        return self._first_valid(sorted(proven, key=preference, reverse=True), host)

    def _first_valid(self, entries: list[tuple[Path, BuildRecord]], host: HostSpec) -> StoredEngine:
        """Read the first engine that passes every check; raise the first error if none does."""
        refused: list[EngineError] = []
        for folder, record in entries:
            try:
                stored = self._read(folder, record, host)
            except EngineError as error:
                refused.append(error)
                continue
            if refused:  # built with other options, so a rebuild may never replace the damaged one
                _LOGGER.warning("an older engine of the same graph is used: %s", refused[0])
            _log_power_mode(record, host)
            return stored
        raise refused[0]

    def get(self, key: str) -> BuildRecord | None:
        """Read the record of the newest valid engine of a key; its bytes are checked too."""
        for folder, record in reversed(self._entries()):
            if record.fingerprint.key == key:
                # A damaged engine counts as absent, so that a build replaces it.
                with contextlib.suppress(EngineError):
                    self._read(folder, record, record.fingerprint.host)
                    return record
        return None

    def records(self) -> list[BuildRecord]:
        """List every readable record, oldest first."""
        return [record for _, record in self._entries()]

    def add(self, plan: bytes, record: BuildRecord, log: str) -> Path:
        """Store an engine atomically, and remove older ones of its key.

        Raises:
            StorageError: the disk is full or not writable; older engines are unchanged.
        """
        self.prepare()
        key = record.fingerprint.key
        target = self.root / f"{key}-{record.plan_sha256[:8]}"
        if target.exists():  # the same bytes again, e.g. by --force: the newer record counts
            if not _holds(target / PLAN, record):  # repairs a damaged file
                atomic.write_file(target / PLAN, plan)
            atomic.write_file(target / RECORD, build_record.dump(record))
        else:
            with atomic.new_directory(target) as folder:
                # The umask may let a group write, and such an engine is refused.
                folder.chmod(0o700)
                (folder / PLAN).write_bytes(plan)
                (folder / RECORD).write_bytes(build_record.dump(record))
                (folder / LOG).write_text(log, errors="replace")
        # Older ones go last: at any time a reader finds one engine of the key.
        for older in self.root.glob(f"{key}-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
        return target

    @contextlib.contextmanager
    def building(self, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Let one process at a time build a key; `waiting` is called with the other's id."""
        self.prepare()
        # The lock is not inside the entry, which a build replaces.
        with locked(self.root / "locks" / f"{key}.lock", waiting):
            yield

    def failure_log(self, key: str) -> Path:
        """Return the path of the log of a build that fails."""
        folder = self.root / "logs" / key
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / LOG

    def forget_failure(self, key: str) -> None:
        """Remove the log of an earlier failure."""
        shutil.rmtree(self.root / "logs" / key, ignore_errors=True)

    def timing_file(self, host_key: str) -> Path:
        """Return the path of the kernel times of a machine."""
        return self.root / "timing" / f"{host_key}.cache"

    def prepare(self) -> None:
        """Create the folder, refuse it unless it is private, and sweep temps of killed builds.

        Raises:
            StorageError: it cannot be created.
            EngineError: others can write to it.
        """
        try:
            # Not `mkdir(parents=True)`, which gives the parents the umask's mode instead of 0700.
            for folder in (*reversed(self.root.parents), self.root):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
            refuse_shared(self.root, readable=False)
            # Only now, as nothing may be written or swept in a folder of other users.
            for name in _FOLDERS:
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
            self.sweep()
        except OSError as error:
            raise atomic.storage_error(error, self.root) from error

    def sweep(self) -> None:
        """Remove temps of killed builds."""
        if self.root.is_dir():
            atomic.sweep(self.root)

    def _entries(self) -> list[tuple[Path, BuildRecord]]:
        """List folders with a readable record, oldest first; others are skipped."""
        try:
            if not self.root.is_dir():
                return []
            refuse_shared(self.root, readable=False)
            folders = list(self.root.iterdir())
        except OSError as error:  # e.g. the home of another user
            raise EngineError(
                f"{self.root}: {error.strerror}; set XDG_CACHE_HOME to a folder of your own"
            ) from error
        entries = []
        for folder in folders:
            # A leading dot marks the temp of a build that runs or was killed.
            if folder.name.startswith(".") or folder.name in _FOLDERS:
                continue
            # One damaged record must not hide the other engines.
            with contextlib.suppress(EngineError, OSError):
                data = read_file(folder / RECORD, _MAX_RECORD_BYTES)
                entries.append((folder, build_record.parse(data, str(folder / RECORD))))
        # UTC in one fixed format sorts as text; names make equal times deterministic.
        return sorted(entries, key=lambda entry: (entry[1].built_utc, entry[0].name))

    def _read(self, folder: Path, record: BuildRecord, host: HostSpec) -> StoredEngine:
        """Read the engine of an entry, after every check that needs no TensorRT."""
        path = folder / PLAN
        try:
            refuse_shared(folder)
            plan = read_file(path, record.plan_bytes)
        except OSError as error:
            # Without its folder it was replaced meanwhile; in a folder that is there it is damage.
            kind = EngineError if folder.exists() else _Gone
            raise kind(f"{path}: {error.strerror}; {_REBUILD}") from error
        if len(plan) != record.plan_bytes:
            raise EngineError(
                f"{path}: {len(plan)} bytes, its record says {record.plan_bytes}; it was truncated "
                f"or extended, {_REBUILD}"
            )
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            raise EngineError(
                f"{path}: does not match the SHA-256 in its record, it was damaged or changed; "
                f"{_REBUILD}"
            )
        plan_header.check(plan, host.library, parse_version(host.version), str(path))
        return StoredEngine(plan, record)


def _holds(path: Path, record: BuildRecord) -> bool:
    """Return whether the file holds the engine of the record."""
    with contextlib.suppress(OSError, EngineError):
        plan = read_file(path, record.plan_bytes)
        return hashlib.sha256(plan).hexdigest() == record.plan_sha256
    return False


def _log_power_mode(record: BuildRecord, host: HostSpec) -> None:
    built = record.fingerprint.host.power_mode
    text = (
        f"engine {record.fingerprint.key} was tuned in power mode {built}, this machine is in "
        f"{host.power_mode}; for the best latency: jetsight build BUNDLE"
    )
    if built != host.power_mode and text not in _logged:
        _logged.add(text)
        _LOGGER.warning(text)


def fastest_family(bundle: Bundle, store: EngineStore, host: HostSpec) -> str | None:
    """Return the family whose proven engines take least time in total; None if none is built.

    Of several engines of a graph the newest counts, which is the one a session loads. Families
    without measured latency are last.
    """
    built: dict[str, float] = {}
    for record in store.records():
        if record.proven and not record.fingerprint.host.differences(host):
            p50 = math.inf if record.latency is None else record.latency.p50_ms
            built[record.fingerprint.graph_sha256] = p50  # the newest is the last in `records`
    totals: dict[str, float] = {}
    for family in bundle.manifest.families:
        digests = [bundle.manifest.files[graph_path(family.name, g)].sha256 for g in GRAPHS]
        if all(digest in built for digest in digests):
            totals[family.name] = sum(built[digest] for digest in digests)
    return min(totals, key=totals.__getitem__) if totals else None
