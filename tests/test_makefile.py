"""`make` sets itself up once, again when what is installed changes, and says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The build files alone, with an environment whose pip only writes down that it was called."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("pip", "jetsight"):
        _script(tmp_path / ".venv" / "bin" / name, f'echo {name} "$@" >> "{tmp_path}/calls"')
    _script(tmp_path / ".venv" / "bin" / "python", "exit 0")
    return tmp_path


def _script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def _installed(folder: Path) -> list[str]:
    """The extra of every call of pip that installed the distribution."""
    return [call.split("-e ")[1] for call in _calls(folder) if call.startswith("pip install")]


def test_demo_installs_once_and_again_when_the_pins_change(house: Path) -> None:
    for _ in range(2):
        assert _make(house, "demo").returncode == 0
    assert [call.split()[0] for call in _calls(house)] == ["pip", "jetsight", "jetsight"]
    assert "-c constraints.txt -e .[demo]" in _calls(house)[0]
    assert _calls(house)[-1] == "jetsight demo"
    later = (house / ".venv" / ".jetsight-demo-ready").stat().st_mtime_ns + 10**9
    os.utime(house / "constraints.txt", ns=(later, later))
    assert _make(house, "demo").returncode == 0
    assert [call.split()[0] for call in _calls(house)][3:] == ["pip", "jetsight"]


def test_the_tests_need_more_than_the_demo_has(house: Path) -> None:
    for target in ("demo", "bench", "demo"):
        assert _make(house, target).returncode == 0
    assert _installed(house) == [".[demo]", ".[dev]"]


def test_an_environment_for_the_tests_serves_the_demo(house: Path) -> None:
    for target in ("bench", "demo"):
        assert _make(house, target).returncode == 0
    assert _installed(house) == [".[dev]"]
    assert not (house / ".venv" / ".jetsight-demo-ready").exists()


def test_without_desktop_libraries_opencv_is_the_headless_one(house: Path) -> None:
    _script(house / ".venv" / "bin" / "python", "exit 1")  # cannot import cv2
    assert _make(house, "bench").returncode == 0
    assert "opencv-python-headless" in _calls(house)[1]
    assert "-c constraints.txt" in _calls(house)[1]


def test_the_demo_needs_no_opencv(house: Path) -> None:
    _script(house / ".venv" / "bin" / "python", "exit 1")
    assert _make(house, "demo").returncode == 0
    assert not any("opencv" in call for call in _calls(house))


def test_failed_installation_is_tried_again(house: Path) -> None:
    _script(house / ".venv" / "bin" / "pip", "exit 1")
    for target, marker in (("demo", ".jetsight-demo-ready"), ("bench", ".jetsight-ready")):
        assert _make(house, target).returncode != 0
        assert not (house / ".venv" / marker).exists()


PYTHONS = [
    ("no ensurepip", 'case "$*" in *ensurepip*) exit 1;; esac\nexec "{python}" "$@"', "-venv"),
    ("too old", 'case "$*" in *version_info\\ \\<*) exit 1;; esac', "Python 3.10 or newer"),
]


@pytest.mark.parametrize(("name", "body", "says"), PYTHONS, ids=[row[0] for row in PYTHONS])
def test_what_the_system_lacks_is_named(house: Path, name: str, body: str, says: str) -> None:
    python = _script(house / "python", body.replace("{python}", sys.executable))
    done = _make(house, f"PYTHON={python}", "demo")
    assert done.returncode != 0
    assert f"sudo apt install python{sys.version_info[0]}" in done.stderr
    assert says in done.stderr
    assert not (house / "calls").exists()


def test_plain_make_only_explains_itself(house: Path) -> None:
    done = _make(house)
    assert done.returncode == 0
    for target in ("demo", "test", "lint", "bench", "clean"):
        assert f"make {target} " in done.stdout
    assert not (house / "calls").exists()
