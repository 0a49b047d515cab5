"""Bad input, nothing lost: each row ends in one line, its exit code, and no partial output.

A row of `CASES` prepares something broken in a folder and says what to run and what must come of
it. Every run happens in that folder, and afterwards nothing may be new in it. Add a row with
`@case(...)` for every new way in which a user can be wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle_factory import make_bundle

from jetsight import manifest

Prepare = Callable[[Path], None]
TINY = "tiny.jetsight"


@dataclass(frozen=True)
class Case:
    """One broken input.

    Args:
        name: what is broken.
        prepare: makes it, in the folder the command will run in.
        command: arguments after `jetsight`.
        code: exit code that must come back.
        says: parts the one line on stderr must contain: the file, what was expected, what to do.
        without: import names that are hidden, as if not installed.
    """

    name: str
    prepare: Prepare
    command: Sequence[str]
    code: int
    says: Sequence[str]
    without: Sequence[str] = ()


CASES: list[Case] = []


def case(
    name: str,
    *command: str,
    code: int,
    says: Sequence[str],
    without: Sequence[str] = (),
) -> Callable[[Prepare], Prepare]:
    """Add a row; the decorated function prepares the folder."""

    def add(prepare: Prepare) -> Prepare:
        CASES.append(Case(name, prepare, command, code, says, without))
        return prepare

    return add


def _nothing(folder: Path) -> None:
    pass


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


# Bundles


@case("bundle that is not there", "inspect", TINY, code=3, says=[TINY, "No such file"])
def _absent(folder: Path) -> None:
    pass


@case(
    *("bundle with a flipped bit", "inspect", TINY),
    code=3,
    says=[TINY, "graphs/cpu-int8/encode.onnx", "SHA-256", "copy the bundle again"],
)
def _flipped_graph(folder: Path) -> None:
    make_bundle(folder / TINY)
    _flip(folder / TINY / "graphs/cpu-int8/encode.onnx", 17)


@case("bundle tar with a flipped bit", "inspect", "t.tar", code=3, says=["t.tar", "SHA-256"])
def _flipped_tar(folder: Path) -> None:
    content = make_bundle(folder / "t.tar", tar=True).path.read_bytes()
    _flip(folder / "t.tar", content.index(b"cpu-int8 encode"))


@case("bundle tar cut short", "inspect", "t.tar", code=3, says=["t.tar", "truncated"])
def _cut_tar(folder: Path) -> None:
    make_bundle(folder / "t.tar", tar=True)
    os.truncate(folder / "t.tar", 5000)


def _edit_manifest(folder: Path, old: str, new: str) -> None:
    make_bundle(folder / TINY)
    path = folder / TINY / manifest.FILE_NAME
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@case(
    *("unknown manifest key", "inspect", TINY),
    code=3,
    says=["manifest.json", "model", "unknown key 'historry'", "did you mean 'history'?"],
)
def _unknown_key(folder: Path) -> None:
    _edit_manifest(folder, '"history": 3', '"history": 3,\n    "historry": 3')


@case(
    *("manifest from the future", "inspect", TINY),
    code=3,
    says=["manifest.json", "version 2.0 is newer", "upgrade jetsight"],
)
def _future(folder: Path) -> None:
    _edit_manifest(folder, '"version": "1.0"', '"version": "2.0"')


@case(
    *("file beside the listed ones", "inspect", TINY),
    code=3,
    says=[TINY, "'evil.so' is not in the manifest", "remove it"],
)
def _extra_file(folder: Path) -> None:
    make_bundle(folder / TINY)
    (folder / TINY / "evil.so").write_bytes(b"\x7fELF")


# The command line itself

case("unknown command", "fly", code=2, says=["No such command 'fly'", "jetsight --help"])(_nothing)
case("unknown option", "doctor", "--jsn", code=2, says=["--jsn", "doctor --help"])(_nothing)
case("missing argument", "inspect", code=2, says=["Missing argument", "inspect --help"])(_nothing)


def _tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(row: Case, tmp_path: Path) -> None:
    row.prepare(tmp_path)
    before = _tree(tmp_path)
    done = _jetsight(row, tmp_path)
    assert done.returncode == row.code, done.stderr
    assert done.stderr.startswith("jetsight: error: ")
    assert done.stderr.count("\n") == 1, "more than one line"
    assert done.stdout == ""
    for part in row.says:
        assert part in done.stderr
    assert _tree(tmp_path) == before, "something was left behind"


def _jetsight(row: Case, folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(row.without)!r})); "
        "from jetsight.cli import main; sys.exit(main())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *row.command]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=env, check=False, timeout=120
    )


def test_untouched_bundle_passes_the_same_command(tmp_path: Path) -> None:
    """The control: what the rows break was whole before."""
    make_bundle(tmp_path / TINY)
    row = Case("untouched", _nothing, ("inspect", TINY), 0, [])
    assert _jetsight(row, tmp_path).returncode == 0


def test_rows_have_distinct_names() -> None:
    names = [row.name for row in CASES]
    assert len(set(names)) == len(names)
