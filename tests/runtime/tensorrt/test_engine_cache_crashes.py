"""Kills, a full disk, and two builds at once: the store stays whole."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runtime.engine_factory import ORIN, make_plan, make_record

from jetsight.errors import EngineError, StorageError
from jetsight.storage.locks import locked
from jetsight.tensorrt.engine_cache import EngineStore

GRAPH, OLD, NEW = "ab" * 32, make_plan(body=b"old" * 50), make_plan(body=b"new" * 50_000)
CALLS = ["open", "write", "fsync", "replace", "rename", "mkdir", "close", "unlink", "rmdir"]
ADD = f"""
import os, sys
from pathlib import Path
from jetsight.tensorrt import record
from jetsight.tensorrt.engine_cache import EngineStore
root, left = Path(sys.argv[1]), int(sys.argv[3])
plan = (Path(sys.argv[2]) / "plan").read_bytes()
facts = record.parse((Path(sys.argv[2]) / "record").read_bytes(), "record")
def dying(call):
    def step(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(77)
        return call(*args, **kwargs)
    return step
for name in {CALLS!r}:
    setattr(os, name, dying(getattr(os, name)))
EngineStore(root).add(plan, facts, "log")
os._exit(0)
"""


def _add_in_child(store: EngineStore, work: Path, die_at: int) -> int:
    from jetsight.tensorrt import record

    work.mkdir(exist_ok=True)
    (work / "plan").write_bytes(NEW)
    newer = make_record(NEW, built_utc="2026-02-02T12:00:00.000Z")
    (work / "record").write_bytes(record.dump(newer))
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-c", ADD, str(store.root), str(work), str(die_at)]
    return subprocess.run(command, env=env, check=False).returncode


def test_a_kill_at_any_step_leaves_the_old_engine_or_the_new(tmp_path) -> None:
    store, seen = EngineStore(tmp_path / "engines"), []
    for step in range(100):
        for entry in store.root.glob("*-*"):
            for file in entry.iterdir():
                file.unlink()
            entry.rmdir()
        store.add(OLD, make_record(OLD), "log")
        code = _add_in_child(store, tmp_path / "work", step)
        plan = store.find(GRAPH, ORIN).plan
        assert plan in (OLD, NEW)
        seen.append(plan == NEW)
        store.prepare()
        assert not list(store.root.glob(".*")), "a leftover was not swept"
        if code == 0:
            break
    assert seen == sorted(seen)
    assert seen[-1]
    assert seen.count(False) > 10


def test_a_full_disk_keeps_what_was_there(tmp_path) -> None:
    """RLIMIT_FSIZE is a full disk at a chosen byte."""
    store = EngineStore(tmp_path / "engines")
    store.add(OLD, make_record(OLD), "log")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1, 28, 4096, len(NEW) - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(StorageError, match="no space left"):
                store.add(NEW, make_record(NEW), "log")
            assert store.find(GRAPH, ORIN).plan == OLD
            assert not list(store.root.glob(".*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


HOLD = """
import sys
from pathlib import Path
from jetsight.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path) -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    path, waits = tmp_path / "key.lock", []
    command = [sys.executable, "-S", "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"

        def waiting(holder: str) -> None:
            waits.append(holder)
            child.kill()  # its lock goes with it

        with locked(path, waiting):
            assert waits == [str(child.pid)]
    with locked(path, lambda holder: pytest.fail("nobody holds it")):
        pass


def test_a_store_that_cannot_be_made_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StorageError, EngineError)) as caught:
        EngineStore(tmp_path / "file" / "engines").prepare()
    assert "file" in str(caught.value)
