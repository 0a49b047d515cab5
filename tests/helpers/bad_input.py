"""A table of broken inputs, and the check every row of it must pass.

A row prepares something broken in a folder and says what to run and what must come of it: one last
line on stderr with what happened, to which file, what was expected and what to do; a documented
exit code; nothing on stdout; nothing new or changed in the folder. Tables: `test_bad_input*.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from jetsight import cli

Prepare = Callable[[Path], None]
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """One broken input.

    Args:
        name: what is broken.
        prepare: makes it, in the folder the command will run in.
        command: arguments after `jetsight`.
        code: exit code that must come back.
        says: parts the one line on stderr must contain.
        without: import names that are hidden, as if not installed.
    """

    name: str
    prepare: Prepare
    command: Sequence[str]
    code: int
    says: Sequence[str]
    without: Sequence[str] = ()


class Table(list[Case]):
    """Rows, in the order they were added."""

    def row(
        self, name: str, *command: str, code: int, says: Sequence[str], without: Sequence[str] = ()
    ) -> Callable[[Prepare], Prepare]:
        """Add a row; the decorated function prepares the folder."""

        def add(prepare: Prepare) -> Prepare:
            self.append(Case(name, prepare, command, code, says, without))
            return prepare

        return add


def check(row: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """Run the row in `folder` and hold it to everything a row promises."""
    monkeypatch.chdir(folder)
    row.prepare(folder)
    before = _tree(folder)
    capfd.readouterr()
    code, out, err = _elsewhere(row) if row.without else here(row.command, capfd)
    assert code == row.code, err
    *progress, line = err.splitlines()
    assert line.startswith("jetsight: error: ")
    assert not any("error" in before for before in progress), "more than one line"
    assert out == ""
    for part in row.says:
        assert part in line
    assert _tree(folder) == before, "something was left behind or changed"


def here(command: Sequence[str], capfd: Capture) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    try:
        code: object = cli.main(command)
    except SystemExit as ending:
        code = ending.code
    return code, *capfd.readouterr()


def write_video(path: Path, height: int, width: int, frames: int = 20) -> None:
    """A readable video at 10 Hz that brightens from frame to frame."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for level in range(1, frames + 1):
            image = np.full((height, width, 3), 10 * level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def _elsewhere(row: Case) -> tuple[object, str, str]:
    """In a fresh Python, where the packages can be hidden."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(row.without)!r})); "
        "from jetsight.cli import main; sys.exit(main())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *row.command]
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
