"""`jetsight build` with NVIDIA's compiler and no GPU: what it prints, keeps, and shares."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.bad_input import here
from helpers.runtime.engine_factory import FAMILY, make_tensorrt_bundle

from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import BuildOptions, Fingerprint, host_spec

pytestmark = pytest.mark.skipif(
    not find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_tensorrt_bundle(tmp_path / "t.jetsight")
    return tmp_path


def test_build_prints_a_table_and_what_it_could_not_check(folder, capfd) -> None:
    code, out, err = here(["build", "t.jetsight"], capfd)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["family", "graph", "engine"]
    assert [line.split()[1] for line in lines[1:3]] == ["encode", "forecast"]
    assert (
        "parity: skipped, built ahead of time on a machine without a GPU (encode, forecast)" in out
    )
    assert f"engines: 2; kept in {folder}/cache/jetsight/engines" in out
    assert err == f"  {FAMILY} encode: building\n  {FAMILY} forecast: building\n"


def test_json_holds_the_records_and_a_second_build_reuses(folder, capfd) -> None:
    _, out, _ = here(["build", "t.jetsight", "--json", "--graph", "encode"], capfd)
    (first,) = json.loads(out)["engines"]
    assert first["reused"] is False
    assert first["plan_version"].startswith("TensorRT-RTX 1.")
    assert set(first["skipped"]) == {"proof", "parity", "latency"}
    _, out, err = here(["build", "t.jetsight", "--json", "--graph", "encode"], capfd)
    (second,) = json.loads(out)["engines"]
    assert second == {**first, "reused": True}
    assert err == ""


def test_list_shows_engines_and_sweeps_leftovers(folder, capfd) -> None:
    _, out, _ = here(["build", "--list"], capfd)
    assert out.startswith("no engines in ")
    here(["build", "t.jetsight"], capfd)
    left = folder / "cache" / "jetsight" / "engines" / ".key.0.jetsight-tmp"
    left.mkdir()
    code, out, _ = here(["build", "--list"], capfd)
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["tiny", FAMILY, "encode"],
        ["tiny", FAMILY, "forecast"],
    ]
    assert "no GPU, TensorRT-RTX 1." in out
    assert not left.exists()
    _, out, _ = here(["build", "--list", "--json"], capfd)
    assert len(json.loads(out)["engines"]) == 2


def _child(*options: str) -> subprocess.Popen[str]:
    code = "import sys; from jetsight.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, "build", "t.jetsight", "--graph", "encode", *options],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _key(bundle) -> str:
    import hashlib

    from jetsight.tensorrt.bindings import open_library

    digest = hashlib.sha256(bundle.graph(FAMILY, "encode")).hexdigest()
    facts = host_spec(open_library())
    return Fingerprint(digest, FAMILY, "fp16", BuildOptions(), facts).key


def test_a_second_build_waits_and_takes_what_the_first_made(folder, capfd) -> None:
    from jetsight.bundle.bundle import Bundle

    _, out, _ = here(["build", "t.jetsight", "--graph", "encode", "--json"], capfd)
    store, key = EngineStore(), _key(Bundle.open(folder / "t.jetsight"))
    assert store.records()[0].fingerprint.key == key
    (entry,) = store.root.glob(f"{key}-*")
    entry.rename(folder / "aside")  # as if the first were still at work
    with store.building(key, lambda holder: None):
        child = _child("--json")
        assert child.stderr is not None
        line = child.stderr.readline()
        assert line == f"  {FAMILY} encode: waiting for another build (process {os.getpid()})\n"
        (folder / "aside").rename(entry)
    made, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert json.loads(made)["engines"][0] == {**json.loads(out)["engines"][0], "reused": True}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_waiting_is_one_line_and_keeps_nothing(folder, number, code) -> None:
    from jetsight.bundle.bundle import Bundle

    store, key = EngineStore(), _key(Bundle.open(folder / "t.jetsight"))
    with store.building(key, lambda holder: None):
        child = _child()
        assert child.stderr is not None
        assert "waiting" in child.stderr.readline()
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert err.strip() in ("jetsight: error: interrupted", "jetsight: error: terminated")
    assert store.records() == []
