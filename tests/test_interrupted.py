"""Interrupted commands: one line, the documented exit code, and nothing under its final name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.paths import RECORDED
from helpers.train.fade_data import RECIPE, fade_data

START_LIMIT_S, END_LIMIT_S = 120, 30


@dataclass(frozen=True)
class Interruption:
    """One command to stop in the middle of its work.

    Args:
        command: arguments after `jetsight`.
        working: glob of what shows that work has begun.
        final: what may only exist when the work is done.
        says: part of the line, about how to go on.
    """

    command: Sequence[str]
    working: str
    final: str
    says: str


ROWS = {
    "collect": Interruption(
        ["collect", "gym_pusht/PushT-v0", "--episodes", "500", "--out", "ds", "--quiet"],
        ".ds*/*",
        "ds",
        says="run the same command with --resume",
    ),
    "data convert": Interruption(
        ["data", "convert", str(RECORDED), "ds", "--lossless", "--quiet"],
        ".ds*/*.npz",
        "ds",
        says="run the same command with --resume",
    ),
    "train": Interruption(
        ["train", "r.toml", "--data", "ds", "--out", "run", "--quiet", "--steps", "1000000"],
        "run/state/step-*",
        "run/checkpoint",
        says="the state is kept in run; run the same command with --resume",
    ),
}


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("collect", signal.SIGINT, 130),
        ("collect", signal.SIGTERM, 143),
        ("train", signal.SIGINT, 130),
        ("data convert", signal.SIGINT, 130),
        ("data convert", signal.SIGTERM, 143),
        ("train", signal.SIGTERM, 143),
    ],
)
def test_interruption_is_one_line_and_leaves_no_final_name(
    tmp_path: Path, name: str, number: signal.Signals, code: int
) -> None:
    row = ROWS[name]
    if name == "train":
        fade_data(tmp_path / "ds")
        (tmp_path / "r.toml").write_text(RECIPE)
    child = _start(row.command, tmp_path)
    _wait_for_work(child, tmp_path, row.working)
    child.send_signal(number)
    out, err = child.communicate(timeout=END_LIMIT_S)
    assert child.returncode == code, err
    *notes, last = err.splitlines()
    assert last.startswith("jetsight: error: ")
    # Its simulator names no action, which is said before the work.
    assert notes == (
        ["ds: its actions have no names, so their order cannot be checked"]
        if name == "train"
        else []
    )
    assert row.says in err
    assert out == ""
    assert not (tmp_path / row.final).exists()


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    code = "import sys; from jetsight.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _wait_for_work(child: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    deadline_s = time.perf_counter() + START_LIMIT_S
    while not any(folder.glob(pattern)):
        assert child.poll() is None, child.communicate()[1]
        assert time.perf_counter() < deadline_s, "no work was ever seen"
        time.sleep(0.05)
