"""Bad input to `jetsight compile`: refused before the long work, nothing under the final name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import Capture, Case, Table, check
from helpers.paths import ROOT

MODEL = str(ROOT / "train" / "jetsight_train" / "zoo" / "pusht-nano")
RECORDED = ROOT / "calib_data" / "pusht"
CASES = Table()


def _compile(*options: str, calib: str = "ds") -> tuple[str, ...]:
    return ("compile", MODEL, "--calib", calib, "--out", "x.jetsight", *options)


def _nothing(folder: Path) -> None:
    pass


def _edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The shipped recording with another description of itself."""
    shutil.copytree(RECORDED, folder / "ds")
    path = folder / "ds" / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


CASES.row("no calibration set", *_compile(), code=4, says=["ds", "info.json"])(_nothing)
CASES.row(
    *("a camera smaller than the frames of training", *_compile("--camera", "64x48")),
    code=2,
    says=["48x48", "smaller than the 96x96", "use a larger camera"],
)(_nothing)
CASES.row(
    *("a camera that is no size", *_compile("--camera", "VGA")), code=2, says=["'VGA'", "640x480"]
)(_nothing)
CASES.row(
    *("a crop outside of the camera", *_compile("--camera", "640x480", "--crop", "0,300,480,480")),
    code=3,
    says=["0, 300, 480, 480", "outside the 480x640 frame"],
)(_nothing)
CASES.row(
    *("a crop without a camera", *_compile("--crop", "full")),
    code=2,
    says=["--crop full", "--camera 640x480"],
)(_nothing)
CASES.row("no --calib", "compile", MODEL, "--out", "x", code=2, says=["--calib"])(_nothing)
CASES.row(
    *("a precision the target lacks", *_compile("--target", "orin-jp6", "--precision", "fp8")),
    code=2,
    says=["orin-jp6", "fp8", "no FP8", "choose fp32 or fp16"],
)(_nothing)
CASES.row(
    *("TensorRT INT8", *_compile("--target", "cpu", "--target", "rtx", "--precision", "int8")),
    code=2,
    says=["target rtx", "INT8 for weights only", "choose fp32 or fp16"],
)(_nothing)
CASES.row(
    "a method of the CPU's quantizer for TensorRT",
    *_compile("--target", "orin-jp6", "--precision", "int8", "--method", "entropy"),
    code=2,
    says=["TensorRT's quantizer", "entropy", "choose max, percentile, mse"],
)(_nothing)


@CASES.row("empty calibration folder", *_compile(), code=4, says=["ds", "info.json"])
def _empty(folder: Path) -> None:
    (folder / "ds").mkdir()


@CASES.row("calibration: other actions", *_compile(), code=4, says=["'a'", "'target_x'", "ds"])
def _actions(folder: Path) -> None:
    _edited(folder, lambda info: info["features"]["action"].update(names=["a", "b"]))


@CASES.row("calibration: other rate", *_compile(), code=4, says=["ds", "5 Hz", "length is 200"])
def _rate(folder: Path) -> None:
    _edited(folder, lambda info: info.update(fps=5))


@CASES.row("calibration: truncated video", *_compile(), code=4, says=["file-000.mp4"])
def _video(folder: Path) -> None:
    shutil.copytree(RECORDED, folder / "ds")
    (path,) = (folder / "ds" / "videos").rglob("*.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@CASES.row("a bundle in the way", *_compile(), code=8, says=["x.jetsight", "already exists"])
def _taken(folder: Path) -> None:
    (folder / "x.jetsight").mkdir()
    (folder / "x.jetsight" / "mine.txt").write_text("precious")


@CASES.row(
    "--force on what is no bundle", *_compile("--force"), code=8, says=["no jetsight bundle"]
)
def _not_ours(folder: Path) -> None:
    _taken(folder)


@CASES.row(
    *("compiling without onnxruntime", *_compile(calib=str(RECORDED))),
    code=5,
    says=["'onnxruntime'", "pip install 'jetsight["],
    without=["onnxruntime"],
)
def _no_runtime(folder: Path) -> None:
    pass


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)


def test_rows_have_distinct_names() -> None:
    names = [row.name for row in CASES]
    assert len(set(names)) == len(names)
