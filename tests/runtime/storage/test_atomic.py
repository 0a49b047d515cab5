"""A reader sees the old file or the new one: kills, full disks and the order of system calls."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from jetsight.errors import StorageError
from jetsight.storage import atomic

OLD, NEW = b"old" * 1000, b"new" * 100_000
# What reaches the disk, in the order a child process calls it; each call is a crash point.
CALLS = ["open", "write", "fsync", "replace", "rename", "mkdir", "close"]

WRITE_FILE = "atomic.write_file(target, {new!r} * 100_000)"
WRITE_FOLDER = """
with atomic.new_directory(target) as folder:
    for name in ("a", "b"):
        with open(folder / name, "wb", buffering=0) as stream:
            stream.write({new!r} * 100_000)
"""


def _leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def _run_child(body: str, target: Path, die_at: int) -> int:
    """Run `body` in a child that ends itself just before its `die_at`-th call that matters."""
    code = f"""
import os, sys
from jetsight.storage import atomic
target, left = sys.argv[1], int(sys.argv[2])
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
{textwrap.dedent(body).format(new=b"new")}
os._exit(0)
"""
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, str(target), str(die_at)], env=env, check=False
    ).returncode


def _sweep_of_kills(body: str, target: Path, check: Callable[[], str]) -> list[str]:
    """Kill at step 0, 1, ... until the child survives; returns what a reader saw each time."""
    seen = []
    for step in range(100):
        code = _run_child(body, target, step)
        seen.append(check())
        if code == 0:
            return seen
        assert code == 77
    raise AssertionError("the child never survived")


def test_killed_file_write_leaves_old_or_new(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"

    def check() -> str:
        content = target.read_bytes()
        assert content in (OLD, NEW)
        state = "old" if content == OLD else "new"
        target.write_bytes(OLD)
        return state

    target.write_bytes(OLD)
    seen = _sweep_of_kills(WRITE_FILE, target, check)
    assert seen == sorted(seen, reverse=True), "once new, later kills must also show new"
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert len(seen) >= 6, "the crash points were not reached"


def test_killed_folder_write_leaves_nothing_or_all(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def check() -> str:
        if not target.exists():
            return "absent"
        assert sorted(os.listdir(target)) == ["a", "b"]
        assert all((target / name).read_bytes() == NEW for name in "ab")
        (target / "a").unlink()
        (target / "b").unlink()
        target.rmdir()
        return "whole"

    seen = _sweep_of_kills(WRITE_FOLDER, target, check)
    assert seen == sorted(seen)
    assert seen[0] == "absent"
    assert seen[-1] == "whole"
    assert len(seen) >= 10


def test_leftover_of_a_killed_writer_is_swept_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    assert _run_child(WRITE_FILE, target, 2) == 77
    assert len(_leftovers(tmp_path)) == 1
    atomic.write_file(target, b"x")
    assert os.listdir(tmp_path) == ["model.bin"]


def test_sweep_spares_a_writer_at_work_and_other_files(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("mine")
    with atomic.new_directory(tmp_path / "bundle") as folder:
        (folder / "a").write_text("a")
        assert atomic.sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == [".bashrc", "bundle"]


def test_sweep_finds_leftovers_of_every_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert _run_child(WRITE_FOLDER, tmp_path / name, 4) == 77
    assert len(atomic.sweep(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record (call, what it was about): file, temp folder, parent folder."""
    calls: list[tuple[str, str]] = []
    real_fsync, real_replace, real_rename = os.fsync, os.replace, os.rename

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def renaming(name: str, real: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def call(source: str, target: str) -> None:
            calls.append((name, os.fspath(target)))
            real(source, target)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renaming("rename", real_replace))
    monkeypatch.setattr(os, "rename", renaming("rename", real_rename))
    return calls


def test_file_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _recorded(monkeypatch)
    atomic.write_file(tmp_path / "f", NEW)
    assert [call for call, _ in calls] == ["fsync", "rename", "fsync"]
    assert calls[0][1].endswith("-tmp")
    assert calls[1][1] == str(tmp_path / "f")
    assert calls[2][1] == str(tmp_path)


def test_folder_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _recorded(monkeypatch)
    with atomic.new_directory(tmp_path / "d") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_bytes(NEW)
        temp = str(folder)
    assert calls == [
        ("fsync", f"{temp}/sub/f"),
        ("fsync", f"{temp}/sub"),
        ("fsync", temp),
        ("rename", str(tmp_path / "d")),
        ("fsync", str(tmp_path)),
    ]


def test_size_limit_leaves_the_old_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a full disk at a chosen byte (EFBIG; Python ignores SIGXFSZ)."""
    target = tmp_path / "f"
    target.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1, 4095, 4096, 65_537, len(NEW) - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(StorageError, match=r"no space left while writing .*/f "):
                atomic.write_file(target, NEW)
            assert target.read_bytes() == OLD
            assert os.listdir(tmp_path) == ["f"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(NEW), hard))
        atomic.write_file(target, NEW)  # the control: exactly enough room
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == NEW


def test_full_device_is_reported_as_full() -> None:
    with pytest.raises(StorageError, match="no space left while writing /dev/full"):
        atomic.write_file("/dev/full", b"x")
    atomic.write_file("/dev/null", b"x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_every_refusal_of_the_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with (
        pytest.raises(StorageError, match=os.strerror(code)) as caught,
        atomic.new_directory(tmp_path / "d") as folder,
    ):
        (folder / "f").write_bytes(b"x")
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "d") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_error_of_the_callers_own_sources_passes_through(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError, match="source"),
        atomic.new_directory(tmp_path / "d"),
    ):
        raise PermissionError(errno.EACCES, "source")
    assert os.listdir(tmp_path) == []


def _interrupted(block: contextlib.AbstractContextManager[object]) -> None:
    with block as made:
        if isinstance(made, Path):
            (made / "f").write_text("x")
        raise KeyboardInterrupt


def test_interrupted_block_leaves_nothing(tmp_path: Path) -> None:
    for block in (atomic.new_directory(tmp_path / "d"), atomic.new_file(tmp_path / "f")):
        with pytest.raises(KeyboardInterrupt):
            _interrupted(block)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder with a file", "file"])
def test_used_target_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "d"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "f").write_text("mine")
    with pytest.raises(StorageError, match="already exists"), atomic.new_directory(target):
        pytest.fail("the block must not start")
    assert (target if kind == "file" else target / "f").read_text() == "mine"


def _lose_the_race(target: Path) -> None:
    with atomic.new_directory(target):
        target.mkdir()
        (target / "theirs").write_text("x")


def test_target_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Directory not empty"):
        _lose_the_race(tmp_path / "d")
    assert os.listdir(tmp_path) == ["d"]
    assert (tmp_path / "d" / "theirs").exists()


def test_empty_folder_parents_and_links_are_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic.new_directory(tmp_path / "link") as folder:
        (folder / "f").write_text("x")
    assert (tmp_path / "real" / "f").exists()
    atomic.write_file(tmp_path / "new" / "deep" / "f", b"x")
    assert (tmp_path / "new" / "deep" / "f").read_bytes() == b"x"


def test_file_over_folder_and_unwritable_parent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        atomic.write_file(tmp_path, b"x")
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match="f is not a folder"):
        atomic.write_file(tmp_path / "f" / "g", b"x")
    with pytest.raises(StorageError, match="File name too long"):
        atomic.write_file(tmp_path / ("n" * 300), b"x")


def test_longest_legal_name_still_fits(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)
    atomic.write_file(target, b"x")
    assert target.read_bytes() == b"x"
