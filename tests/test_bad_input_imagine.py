"""Bad input to `jetsight imagine`: one line, the documented code, and no picture left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bad_input import Capture, Case, Table, check
from helpers.runtime.imagine_factory import (
    HEIGHT,
    WIDTH,
    make_image,
    make_imagine_bundle,
    make_recording,
)
from helpers.runtime.live_bundle import make_live_bundle

TINY = "tiny.jetsight"
CASES = Table()


def _ask(*options: str, frame: str = "a.png", goal: str = "b.png") -> tuple[str, ...]:
    """Plan with the tiny bundle; nothing may appear under the name of `--picture`."""
    towards = ("--goal", goal) if goal else ()
    where = ("imagine", TINY, "--frame", frame, *towards, "--picture", "plan.svg")
    return (*where, "--backend", "onnxruntime", "--threads", "1", *options)


def _ready(folder: Path) -> None:
    make_imagine_bundle(folder / TINY)
    make_image(folder / "a.png")
    make_image(folder / "b.png", 1)


def _images(folder: Path) -> None:
    """Refused before a bundle's graphs are touched."""
    _ready(folder)
    make_image(folder / "big.png", height=2 * HEIGHT, width=2 * WIDTH)
    (folder / "text.png").write_text("no picture")
    (folder / "film.mp4").write_text("no picture")


for _name, _frame, _goal, _code, _says in (
    ("frame that is no image", "text.png", "b.png", 7, ["text.png", "truncated or no image"]),
    ("goal that is no image", "a.png", "text.png", 7, ["text.png", "truncated or no image"]),
    ("frame that is not there", "no.png", "b.png", 7, ["no.png", "No such file"]),
    ("frame that is a film", "film.mp4", "b.png", 2, ["'film.mp4'", ".png", "calib_data/pusht#3"]),
    ("frame of another size", "big.png", "b.png", 7, ["24x16", "takes 12x8", "--resize"]),
    ("goal of another size", "a.png", "big.png", 7, ["big.png", "24x16", "12x8", "--resize"]),
    ("no goal", "a.png", "", 2, ["no goal", "--goal", "--probe-goal"]),
    ("no such dataset", "ds#1:9", "b.png", 4, ["ds", "info.json"]),
):
    CASES.row(_name, *_ask(frame=_frame, goal=_goal), code=_code, says=_says)(_images)

for _name, _options, _says in (
    ("unknown planner", ["--planner", "imagine_cem_9x9"], ["imagine_cem_9x9", "imagine_cem_16x2"]),
    ("unknown quantity", ["--probe-goal", "blok_x=3"], ["'blok_x'", "did you mean 'block_x'?"]),
    ("quantity without value", ["--probe-goal", "block_x"], ["'block_x'", "NAME=VALUE"]),
    ("target that is NaN", ["--probe-goal", "block_x=nan"], ["block_x=nan", "finite"]),
    ("target given twice", ["--probe-goal", "q=1", "--probe-goal", "q=2"], ["'q' twice"]),
    ("no iterations", ["--iterations", "0"], ["--iterations", "0"]),
    ("too many iterations", ["--iterations", "1001"], ["--iterations", "1001"]),
    ("budget that is NaN", ["--budget-ms", "nan"], ["--budget-ms is nan", "milliseconds"]),
    ("budget below zero", ["--budget-ms", "-1"], ["--budget-ms is -1"]),
    ("seed below zero", ["--seed", "-1"], ["--seed"]),
    ("inverted bounds", ["--low", "300,300", "--high", "9,9"], ["low of 'x' is 300", "above high"]),
    ("bounds wider than the robot's", ["--high", "600,512"], ["'x' is 600", "robot's own"]),
    ("bounds of another robot", ["--low", "0,0,0"], ["--low", "'0,0,0'", "2 finite numbers"]),
    ("bounds that are NaN", ["--high", "nan,1"], ["--high", "finite"]),
    ("last action of another robot", ["--last-action", "1"], ["--last-action", "(x, y)"]),
    ("impossible last action", ["--last-action", "1,900"], ["1,900", "outside the robot's"]),
    ("too short a history", ["--history", "b.png"], ["--history", "looks back on 2 frames"]),
    ("picture of unknown kind", ["--picture", "plan.txt"], ["plan.txt", ".png, .svg or .pdf"]),
    ("no such backend", ["--backend", "abacus"], ["'abacus'"]),
    ("no such family", ["--family", "cpu-int3"], ["'cpu-int3'"]),
    ("family without planners", ["--family", "cpu-int8"], ["no planner", "--planner"]),
):
    CASES.row(_name, *_ask(*_options), code=2, says=_says)(_ready)


@CASES.row("bundle without planners", *_ask(), code=2, says=["no planner", "compile", "--planner"])
def _planless(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    make_image(folder / "a.png")
    make_image(folder / "b.png", 1)


@CASES.row("corrupted planner", *_ask(), code=3, says=["imagine_cem_16x2.onnx", "SHA-256"])
def _corrupted(folder: Path) -> None:
    _ready(folder)
    path = folder / TINY / "graphs/cpu-fp32/imagine_cem_16x2.onnx"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


@CASES.row("picture into a folder", *_ask("--picture", "in.png"), code=8, says=["in.png", "folder"])
def _folder(folder: Path) -> None:
    _ready(folder)
    (folder / "in.png").mkdir()


def _recorded(folder: Path) -> None:
    _ready(folder)
    make_recording(folder / "ds", lengths=(12,))
    make_recording(folder / "slow", lengths=(6,), fps=5)


for _name, _frame, _options, _code, _says in (
    ("tick without a history", "ds#0:3", (), 2, ["ds#0:3", "3 ticks before it", "tick 4"]),
    ("tick after the end", "ds#0:12", (), 2, ["no tick 12 in episode 0", "0..11"]),
    ("no such episode", "ds#7:9", (), 2, ["no episode 7"]),
    (
        "recording of another rate",
        "slow#0:5",
        (),
        7,
        ["slow", "recorded at 5 Hz", "steps at 10 Hz"],
    ),
    ("history twice", "ds#0:9", ("--last-action", "1,1"), 2, ["leave out", "--last-action"]),
    ("library of itself", "ds#0:9", ("--library", "ds"), 4, ["ds", "larger dataset"]),
):
    CASES.row(_name, *_ask(*_options, frame=_frame), code=_code, says=_says)(_recorded)

CASES.row(
    *("picture without matplotlib", *_ask()),
    code=5,
    says=["'matplotlib'", "the picture of a plan", "pip install 'jetsight[train]'"],
    without=["matplotlib"],
)(_ready)
CASES.row(
    *("image without PyAV", *_ask()),
    code=5,
    says=["'av'", "pip install 'jetsight[camera]'"],
    without=["av"],
)(_ready)


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)
