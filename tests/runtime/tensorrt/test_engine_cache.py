"""The store hands out what this user built for this machine, whole, and nothing else."""

from __future__ import annotations

import logging
import os
import random
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.runtime.engine_factory import ORIN, make_plan, make_record

from jetsight.errors import EngineError
from jetsight.storage.ownership import default_root, read_file
from jetsight.tensorrt import engine_cache as store_module
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import BuildOptions, HostSpec
from jetsight.tensorrt.record import BuildRecord

GRAPH, PLAN = "ab" * 32, make_plan()


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "cache" / "jetsight" / "engines")


def add(store: EngineStore, plan: bytes = PLAN, **changes) -> BuildRecord:
    record = make_record(plan, **changes)
    store.add(plan, record, "what TensorRT said")
    return record


def test_what_was_added_is_found(store) -> None:
    record = add(store)
    found = store.find(GRAPH, ORIN)
    assert (found.plan, found.record) == (PLAN, record)
    assert store.get(record.fingerprint.key) == record
    (folder,) = store.root.glob(f"{record.fingerprint.key}-*")
    assert sorted(os.listdir(folder)) == ["build.log", "engine.plan", "record.json"]


def test_nothing_built_names_the_command(store) -> None:
    with pytest.raises(EngineError, match="jetsight build BUNDLE"):
        store.find(GRAPH, ORIN)
    add(store, graph_sha256="cd" * 32)
    with pytest.raises(EngineError, match="no engine was built for this graph"):
        store.find(GRAPH, ORIN)


@pytest.mark.parametrize("name", [f.name for f in fields(HostSpec) if f.name != "power_mode"])
def test_another_machine_is_refused_with_both_facts(store, name) -> None:
    add(store)
    value = getattr(ORIN, name)
    host = replace(ORIN, **{name: value + 1 if isinstance(value, int) else "9.9.9.9"})
    with pytest.raises(EngineError, match=r"built for \| found: ") as caught:
        store.find(GRAPH, host)
    text = str(caught.value)
    assert f"{name} " in text
    assert "9.9.9.9" in text or str(value + 1) in text
    assert "jetsight build BUNDLE" in text
    assert "\n" not in text


def test_another_power_mode_is_accepted_and_logged_once(store, caplog, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_logged", set())
    add(store)
    with caplog.at_level(logging.WARNING, "jetsight"):
        for _ in range(3):
            store.find(GRAPH, replace(ORIN, power_mode="2"))
    assert [r.getMessage() for r in caplog.records if "power mode 0" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]


def test_the_newest_counts_and_the_power_mode_before_it(store) -> None:
    add(store, make_plan(body=b"old"), options=BuildOptions(level=1))
    new = add(store, make_plan(body=b"new"), built_utc="2026-02-01T12:00:00.000Z")
    tuned = add(
        store,
        make_plan(body=b"tuned"),
        built_utc="2026-02-02T12:00:00.000Z",
        host=replace(ORIN, power_mode="2"),
    )
    assert store.find(GRAPH, ORIN).record == new
    assert store.find(GRAPH, replace(ORIN, power_mode="2")).record == tuned


def test_an_engine_built_without_a_gpu_is_handed_to_nobody(store) -> None:
    host = replace(ORIN, gpu=None)
    add(store, host=host, parity=None)
    with pytest.raises(EngineError, match="built without a GPU and never compared"):
        store.find(GRAPH, host)


def test_a_cut_engine_is_refused(store) -> None:
    add(store)
    (path,) = store.root.glob("*/engine.plan")
    for size in [0, 1, 27, 28, *random.Random(1).sample(range(308), 50), 307]:
        path.write_bytes(PLAN[:size])
        with pytest.raises(EngineError, match=f"{size} bytes, its record says 308"):
            store.find(GRAPH, ORIN)
    path.write_bytes(PLAN + b"x")
    with pytest.raises(EngineError, match="309 bytes, its record says 308"):
        store.find(GRAPH, ORIN)
    path.write_bytes(PLAN)
    assert store.find(GRAPH, ORIN).plan == PLAN


def test_a_flipped_bit_is_refused(store) -> None:
    add(store)
    (path,) = store.root.glob("*/engine.plan")
    for bit in random.Random(2).sample(range(308 * 8), 200):
        data = bytearray(PLAN)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(EngineError, match="does not match the SHA-256 in its record"):
            store.find(GRAPH, ORIN)
    assert store.get(make_record(PLAN).fingerprint.key) is None


def test_a_record_that_lies_about_tensorrt_does_not_pass(store) -> None:
    """The header of the plan itself is read, whatever the record says."""
    add(store, make_plan((10, 16, 2, 10)))
    with pytest.raises(
        EngineError, match=r"built for TensorRT 10\.16\.2\.10, found TensorRT 10\.3"
    ):
        store.find(GRAPH, ORIN)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": "jetsight-engine"', b"\xff"])
def test_a_damaged_record_is_passed_over(store, content) -> None:
    add(store)
    (path,) = store.root.glob("*/record.json")
    path.write_bytes(content)
    assert store.records() == []
    with pytest.raises(EngineError, match="no engine was built"):
        store.find(GRAPH, ORIN)


def test_the_folder_is_private_whatever_the_umask(store) -> None:
    before = os.umask(0)
    try:
        add(store)
    finally:
        os.umask(before)
    for folder in (store.root, store.root.parent, *store.root.iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    store.find(GRAPH, ORIN)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755, 0o777])
def test_a_folder_that_others_can_enter_is_refused(store, mode) -> None:
    add(store)
    store.root.chmod(mode)
    for call in (lambda: store.find(GRAPH, ORIN), lambda: add(store), store.records):
        with pytest.raises(EngineError, match=f"has mode {mode:04o}.*chmod 700"):
            call()


def test_an_entry_others_could_write_is_refused(store) -> None:
    add(store)
    (path,) = store.root.glob("*/engine.plan")
    path.parent.chmod(0o777)
    with pytest.raises(EngineError, match="has mode 0777"):
        store.find(GRAPH, ORIN)


def test_a_folder_of_another_user_is_refused(store, monkeypatch) -> None:
    add(store)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EngineError, match="belongs to user"):
        store.find(GRAPH, ORIN)


def test_files_of_another_user_are_refused_when_they_are_opened(store, monkeypatch) -> None:
    """A folder above that others can write may be swapped between the look and the reading."""
    add(store)
    monkeypatch.setattr(store_module, "refuse_shared", lambda *_, **__: None)
    assert store.find(GRAPH, ORIN).plan == PLAN
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert store.records() == []
    with pytest.raises(EngineError, match=r"engine\.plan belongs to user"):
        read_file(next(store.root.glob("*/engine.plan")), 1000)


def test_a_home_that_cannot_be_entered_is_one_line(store, monkeypatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(EngineError, match="Permission denied; set XDG_CACHE_HOME"):
        store.find(GRAPH, ORIN)


def test_links_are_not_followed(store, tmp_path) -> None:
    add(store)
    (path,) = store.root.glob("*/engine.plan")
    (tmp_path / "elsewhere").write_bytes(PLAN)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match=r"engine\.plan"):
        store.find(GRAPH, ORIN)


def test_a_second_engine_of_a_key_replaces_the_first(store) -> None:
    add(store)
    newer = add(store, make_plan(body=b"other kernels"))
    assert store.records() == [newer]
    again = add(store, make_plan(body=b"other kernels"), seconds=9.0)
    assert store.records() == [again]


def test_the_same_engine_again_repairs_a_damaged_one(store) -> None:
    """Compilers that measure nothing make the same bytes again."""
    record = add(store)
    (path,) = store.root.glob("*/engine.plan")
    path.write_bytes(PLAN[:-1] + b"x")
    assert store.get(record.fingerprint.key) is None
    add(store)
    assert store.find(GRAPH, ORIN).plan == PLAN


def test_a_damaged_engine_gives_way_to_a_whole_one_of_other_options(store, caplog) -> None:
    """`jetsight build` finds its own engine whole then, and would repair nothing."""
    whole = add(store)
    newer = make_plan(body=b"damaged soon")
    add(store, newer, options=BuildOptions(level=5), built_utc="2026-02-01T12:00:00.000Z")
    assert store.find(GRAPH, ORIN).plan == newer
    (path,) = (p for p in store.root.glob("*/engine.plan") if p.read_bytes() == newer)
    path.write_bytes(newer[:-1])
    with caplog.at_level(logging.WARNING, "jetsight"):
        assert store.find(GRAPH, ORIN).record == whole
    assert "its record says" in caplog.text


def test_an_engine_that_a_build_replaces_in_this_moment_is_found_anew(store, monkeypatch) -> None:
    add(store)
    entries, newer = store._entries, make_plan(body=b"built meanwhile")

    def replaced_after_the_look() -> list:
        found = entries()
        monkeypatch.setattr(store, "_entries", entries)
        add(store, newer)
        return found

    monkeypatch.setattr(store, "_entries", replaced_after_the_look)
    assert store.find(GRAPH, ORIN).plan == newer
    stale = entries()
    monkeypatch.setattr(store, "_entries", lambda: stale)
    shutil.rmtree(next(store.root.glob("*/engine.plan")).parent)
    with pytest.raises(EngineError, match="No such file or directory; build it here"):
        store.find(GRAPH, ORIN)


def test_the_cache_follows_the_xdg_standard(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "jetsight" / "engines"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_root() == tmp_path / "me" / ".cache" / "jetsight" / "engines"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(EngineError, match=r"no home folder .*; set XDG_CACHE_HOME"):
        EngineStore()
