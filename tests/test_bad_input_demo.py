"""Bad input to the demo and the benchmark: refused at once, not after a minute of compiling."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.bad_input import Capture, Case, Table, check
from helpers.paths import ROOT

CASES = Table()


def _nothing(folder: Path) -> None:
    pass


for _command in ("demo", "bench"):
    CASES.row(
        *(f"{_command}: no such model", _command, "--checkpoint", "ck"),
        code=3,
        says=["ck", "no model.json found"],
    )(_nothing)
    CASES.row(
        *(f"{_command} without torch", _command),
        code=5,
        says=["'torch'", "pip install 'jetsight[train]'"],
        without=["torch"],
    )(_nothing)

CASES.row(
    *("demo without jinja2", "demo"),
    code=5,
    says=["'jinja2'", "the demo's report", "pip install 'jetsight[compile]'"],
    without=["jinja2"],
)(_nothing)


@CASES.row("demo: truncated dataset", "demo", "--data", "ds", code=4, says=["ds", "info.json"])
def _truncated(folder: Path) -> None:
    shutil.copytree(ROOT / "calib_data" / "pusht" / "meta", folder / "ds" / "meta")
    (folder / "ds" / "meta" / "info.json").write_text('{"codebase_version": "v3.0"')


@CASES.row("demo: a file in the way", "demo", "--out", "taken", code=8, says=["taken", "--out"])
def _taken(folder: Path) -> None:
    (folder / "taken").write_text("mine")


CASES.row("demo: no such dataset", "demo", "--data", "ds", code=4, says=["ds"])(_nothing)
CASES.row(
    *("demo: too few frames", "demo", "--frames", "39"),
    code=2,
    says=["39 frames are too few", "needs 40 or more"],
)(_nothing)
CASES.row(
    *("demo: unknown backend", "demo", "--backend", "abacus"),
    code=2,
    says=["'abacus'", "'onnxruntime'"],
)(_nothing)
CASES.row(
    *("bench: unknown recipe", "bench", "--model", "gpt"), code=2, says=["'gpt'", "pusht-nano"]
)(_nothing)


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)
