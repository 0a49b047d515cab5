"""Bad input of `jetsight data`; what every row must do is in `helpers.bad_input`."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bad_input import Capture, Case, Table, check
from helpers.paths import RECORDED

CASES = Table()
CONVERT = ("data", "convert", str(RECORDED), "new")


@CASES.row(
    *("check of nothing", "data", "check", "ds", "--no-picture"),
    code=4,
    says=["ds", "does not exist", "meta/info.json"],
)
@CASES.row(
    *("conversion of nothing", "data", "convert", "ds", "new", "--hz", "5"),
    code=4,
    says=["ds", "does not exist", "meta/info.json"],
)
@CASES.row(
    *("a role that is none", *CONVERT, "--map", "acton=x"),
    code=2,
    says=["--map 'acton=x'", "action=FEATURE"],
)
@CASES.row(
    *("a size that is none", *CONVERT, "--size", "96"),
    code=2,
    says=["'96' is not a size", "96x96"],
)
@CASES.row(
    *("a crop that is none", *CONVERT, "--crop", "1,2"),
    code=2,
    says=["'1,2' is not a crop", "0,80,480,480"],
)
@CASES.row("no rate", *CONVERT, "--hz", "0", code=2, says=["--hz is 0", "0.01 to 1000"])
@CASES.row("a higher rate", *CONVERT, "--hz", "30", code=2, says=["10 Hz", "at most --hz 10"])
@CASES.row(
    *("a camera that is none", *CONVERT, "--camera", "wrist"),
    code=2,
    says=["no camera 'wrist'", "observation.images.top"],
)
@CASES.row(
    *("nothing to resume", *CONVERT, "--resume"),
    code=2,
    says=["nothing to resume", "run without --resume"],
)
@CASES.row(
    *("conversion without PyAV", *CONVERT, "--episodes", "0"),
    code=5,
    says=["'av'", "pip install 'jetsight[camera]'"],
    without=["av"],
)
@CASES.row(
    *("contact sheet without matplotlib", "data", "check", str(RECORDED)),
    code=5,
    says=["'matplotlib'", "pip install 'jetsight[train]'"],
    without=["matplotlib"],
)
@CASES.row(
    *("a recipe that is none", "data", "check", str(RECORDED), "--recipe", "pusht-nan"),
    code=2,
    says=["recipe 'pusht-nan' was not found"],
)
def _nothing(folder: Path) -> None:
    pass


@CASES.row(
    *("conversion over something", "data", "convert", str(RECORDED), "ds"),
    code=8,
    says=["ds", "already exists and is never overwritten"],
)
@CASES.row(
    *("conversion into itself", "data", "convert", "ds", "ds", "--resume"),
    code=2,
    says=["SRC and DST are both ds", "another DST"],
)
@CASES.row(
    *("a folder for a picture", "data", "check", str(RECORDED), "--picture", "ds"),
    code=8,
    says=["ds", "is a folder"],
)
def _used(folder: Path) -> None:
    (folder / "ds").mkdir()
    (folder / "ds" / "mine.txt").write_text("precious")


@CASES.row("a folder of something else", "data", "check", "ds", code=4, says=["ds", "notes.txt"])
@CASES.row(
    *("conversion of something else", "data", "convert", "ds", "new"),
    code=4,
    says=["ds", "notes.txt"],
)
def _other(folder: Path) -> None:
    (folder / "ds").mkdir()
    (folder / "ds" / "notes.txt").write_text("no recording")


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)
