"""Bad input, nothing lost: bundles, sources, datasets, recipes, checkpoints, the command line.

Add a row for every new way in which a user can be wrong; `bad_input.py` says what a row promises.
"""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - to make the file that must be refused
from pathlib import Path

import numpy as np
import pytest
from helpers.bad_input import Capture, Case, Table, check, here, write_video
from helpers.picture_factory import film
from helpers.runtime.bundle_factory import make_bundle
from helpers.runtime.live_bundle import make_live_bundle
from helpers.simulators.environments import odd
from PIL import Image

from jetsight.bundle import manifest

TINY = "tiny.jetsight"
CASES = Table()


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


# Bundles


@CASES.row("bundle that is not there", "inspect", TINY, code=3, says=[TINY, "No such file"])
def _absent(folder: Path) -> None:
    pass


@CASES.row(
    *("bundle with a flipped bit", "inspect", TINY),
    code=3,
    says=[TINY, "graphs/cpu-int8/encode.onnx", "SHA-256", "copy the bundle again"],
)
def _flipped_graph(folder: Path) -> None:
    make_bundle(folder / TINY)
    _flip(folder / TINY / "graphs/cpu-int8/encode.onnx", 17)


@CASES.row("bundle tar with a flipped bit", "inspect", "t.tar", code=3, says=["t.tar", "SHA-256"])
def _flipped_tar(folder: Path) -> None:
    content = make_bundle(folder / "t.tar", tar=True).path.read_bytes()
    _flip(folder / "t.tar", content.index(b"cpu-int8 encode"))


@CASES.row("bundle tar cut short", "inspect", "t.tar", code=3, says=["t.tar", "truncated"])
def _cut_tar(folder: Path) -> None:
    make_bundle(folder / "t.tar", tar=True)
    os.truncate(folder / "t.tar", 5000)


def _edit_manifest(folder: Path, old: str, new: str) -> None:
    make_bundle(folder / TINY)
    path = folder / TINY / manifest.FILE_NAME
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@CASES.row(
    *("unknown manifest key", "inspect", TINY),
    code=3,
    says=["manifest.json", "model", "unknown key 'historry'", "did you mean 'history'?"],
)
def _unknown_key(folder: Path) -> None:
    _edit_manifest(folder, '"history": 3', '"history": 3,\n    "historry": 3')


@CASES.row(
    *("manifest from the future", "inspect", TINY),
    code=3,
    says=["manifest.json", "version 2.0 is newer", "upgrade jetsight"],
)
def _future(folder: Path) -> None:
    _edit_manifest(folder, f'"version": "{manifest.VERSION}"', '"version": "2.0"')


@CASES.row(
    *("file beside the listed ones", "inspect", TINY),
    code=3,
    says=[TINY, "'evil.so' is not in the manifest", "remove it"],
)
def _extra_file(folder: Path) -> None:
    make_bundle(folder / TINY)
    (folder / TINY / "evil.so").write_bytes(b"\x7fELF")


# Frame sources


def _run(source: str) -> tuple[str, ...]:
    """Stream `source` through the tiny bundle; nothing may appear under the name of `--out`."""
    return ("run", TINY, "--source", source, "--backend", "onnxruntime", "--out", "out.jsonl")


@CASES.row(
    *("camera of another size", *_run("big.mp4")),
    code=7,
    says=["big.mp4", "32x32", "the model takes 12x8", "jetsight compile CHECKPOINT --camera 32x32"],
)
def _wrong_size(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    write_video(folder / "big.mp4", 32, 32)


@CASES.row(
    "truncated video", *_run("cut.mp4"), code=7, says=["cut.mp4", "truncated", "copy it again"]
)
def _cutvideo(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    write_video(folder / "cut.mp4", 8, 12)
    os.truncate(folder / "cut.mp4", (folder / "cut.mp4").stat().st_size // 2)


@CASES.row("video without time stamps", *_run("raw.h264"), code=7, says=["raw.h264", "--fps 30"])
def _unstamped(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    frames = [np.full((8, 12, 3), 90, np.uint8)] * 3
    film(folder / "raw.h264", frames, form="h264")


def _grey_images(folder: Path, name: str) -> None:
    make_live_bundle(folder / TINY)
    (folder / name).mkdir()
    samples = np.linspace(0, 4095, 96).reshape(8, 12).astype(np.uint16)
    Image.fromarray(samples).save(folder / name / "0.png")


@CASES.row(
    "16-bit images", *_run("dark"), code=4, says=["dark", "up to 4095", "12 bits", "--bits 12"]
)
def _sixteen_bits(folder: Path) -> None:
    _grey_images(folder, "dark")


@CASES.row(
    *("depth as a camera", *_run("depth"), "--bits", "12"),
    code=4,
    says=["depth holds depth", "never used as a colour camera"],
)
def _depth(folder: Path) -> None:
    _grey_images(folder, "depth")


@CASES.row("transparent images", *_run("glass"), code=4, says=["glass", "transparent", "magick"])
def _transparent(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    (folder / "glass").mkdir()
    Image.new("RGBA", (12, 8), (9, 9, 9, 0)).save(folder / "glass" / "0.png")


@CASES.row(
    *("rate of a live camera", *_run("/dev/video99"), "--fps", "30"),
    code=2,
    says=["/dev/video99", "paces itself", "--rate"],
)
def _live_rate(folder: Path) -> None:
    make_live_bundle(folder / TINY)


@CASES.row("text as video", *_run("text.mp4"), code=7, says=["text.mp4", "unknown format"])
def _textvideo(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    (folder / "text.mp4").write_text("no video " * 100)


@CASES.row("empty image folder", *_run("empty"), code=7, says=["empty holds no images", ".png"])
def _empty_images(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    (folder / "empty").mkdir()


@CASES.row(
    "camera that is not there", *_run("/dev/video99"), code=7, says=["no camera /dev/video99"]
)
@CASES.row("source that is nothing", *_run("nope"), code=7, says=["'nope'", "give a video file"])
@CASES.row(
    *("unknown environment", *_run("gym:Nope-v0")),
    code=7,
    says=["'Nope-v0'", "installed Gymnasium"],
)
@CASES.row(
    *("video without PyAV", *_run("good.mp4")),
    code=5,
    says=["'av'", "pip install 'jetsight[camera]'"],
    without=["av"],
)
@CASES.row(
    *("no engine installed", *_run("good.mp4")),
    code=5,
    says=["'onnxruntime'", "pip install 'jetsight[cpu]'"],
    without=["onnxruntime", "openvino"],
)
def _live(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    write_video(folder / "good.mp4", 8, 12)


@CASES.row(
    *("graph that is no ONNX", *_run("good.mp4")),
    code=10,
    says=["tiny.jetsight: graph 'encode' of cpu-", "not a readable ONNX graph", "jetsight compile"],
)
def _opaque(folder: Path) -> None:
    make_bundle(folder / TINY)
    write_video(folder / "good.mp4", 8, 12)


# Datasets and recipes


@CASES.row(
    "dataset that is none", *_run("lerobot:ds"), code=4, says=["ds/meta/info.json", "missing"]
)
def _no_dataset(folder: Path) -> None:
    make_live_bundle(folder / TINY)
    (folder / "ds" / "meta").mkdir(parents=True)
    (folder / "ds" / "meta" / "info.json").write_text("{}")


@CASES.row(
    *("dataset that is not there", "train", "pusht-nano", "--data", "ds"),
    code=4,
    says=["ds does not exist", "expected a folder with meta/info.json (LeRobot)"],
)
@CASES.row(
    *("unknown recipe", "train", "pusht-nan", "--data", "ds"),
    code=2,
    says=["recipe 'pusht-nan' was not found", "pusht-nano"],
)
@CASES.row(
    *("training without torch", "train", "pusht-nano", "--data", "ds"),
    code=5,
    says=["'torch'", "pip install 'jetsight[train]'"],
    without=["torch"],
)
@CASES.row(
    *("unknown environment to record", "collect", "Nope-v0", "--out", "ds"),
    code=2,
    says=["'Nope-v0'", "installed Gymnasium environment"],
)
@CASES.row(
    *("recording of choices", "collect", odd("Choices"), "--out", "ds", "--policy", "random"),
    code=2,
    says=["Choices-v0", "Discrete(4)", "only continuous numbers", "ActionWrapper"],
)
@CASES.row(
    *("recording of two pictures", "collect", odd("TwoViews"), "--out", "ds"),
    code=2,
    says=["TwoViews-v0", "pixels.top, pixels.wrist", "--camera pixels.top"],
)
@CASES.row(
    *("recording at a rate that is not the environment's", "collect", odd("Odd"), "--out", "ds"),
    *("--fps", "30"),
    code=2,
    says=["Odd-v0", "10 steps per second", "30 are wanted", "leave --fps out"],
)
@CASES.row(
    *("recording with a policy that is not there", "collect", odd("Odd"), "--out", "ds"),
    *("--policy", "driver.py:act"),
    code=2,
    says=["'driver.py:act'", "there is no file driver.py"],
)
@CASES.row(
    *("recording without a simulator", "collect", "gym_pusht/PushT-v0", "--out", "ds"),
    code=5,
    says=["pip install 'jetsight[sim]'"],
    without=["gymnasium"],
)
def _nothing(folder: Path) -> None:
    pass


@CASES.row(
    *("unknown recipe key", "train", "r.toml", "--data", "ds"),
    code=2,
    says=["r.toml", "unknown key 'optimizer'", "did you mean 'optimiser'?"],
)
def _bad_recipe(folder: Path) -> None:
    (folder / "r.toml").write_text('name = "x"\n[optimizer]\nsteps = 1\n')


@CASES.row(
    *("recording over something", "collect", "gym_pusht/PushT-v0", "--out", "ds"),
    code=8,
    says=["ds", "already exists and is never overwritten"],
)
@CASES.row(
    *("training over something", "train", "pusht-nano", "--data", "d", "--out", "ds"),
    code=8,
    says=["ds", "holds an earlier run", "--resume"],
)
def _used(folder: Path) -> None:
    (folder / "ds").mkdir()
    (folder / "ds" / "mine.txt").write_text("precious")


# Checkpoints


def _compile(checkpoint: str) -> tuple[str, ...]:
    return ("compile", checkpoint, "--calib", "ds", "--out", "x.jetsight")


def _report(checkpoint: str) -> tuple[str, ...]:
    return ("report", checkpoint, "--data", "ds")


class Canary:
    """Unpickling this leaves a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("canary", "w")


@CASES.row("checkpoint that is a pickle", *_report("model.pt"), code=3, says=["model.pt", "pickle"])
@CASES.row("pickle to compile", *_compile("model.pt"), code=3, says=["model.pt", "pickle"])
def _pickle(folder: Path) -> None:
    (folder / "model.pt").write_bytes(pickle.dumps(Canary()))


@CASES.row(
    "checkpoint that is not there", *_report("ck"), code=3, says=["ck", "no model.json found"]
)
@CASES.row("nothing to compile", *_compile("ck"), code=3, says=["ck", "no model.json found"])
@CASES.row(
    *("unknown target", *_compile("ck"), "--target", "mars"), code=2, says=["'mars'", "orin-jp6"]
)
@CASES.row(
    *("compiling without torch", *_compile("ck")),
    code=5,
    says=["'torch'", "pip install 'jetsight[train]'"],
    without=["torch"],
)
@CASES.row(
    *("compiling without onnx", *_compile("ck")),
    code=5,
    says=["'onnx'", "pip install 'jetsight[compile]'"],
    without=["onnx"],
)
def _no_checkpoint(folder: Path) -> None:
    pass


# The command line itself

CASES.row("unknown command", "fly", code=2, says=["No such command 'fly'", "jetsight --help"])(
    _nothing
)
CASES.row("unknown option", "doctor", "--jsn", code=2, says=["--jsn", "doctor --help"])(_nothing)
CASES.row("missing argument", "inspect", code=2, says=["Missing argument", "inspect --help"])(
    _nothing
)


def _tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)


def test_untouched_bundle_passes_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """The control: what the rows break was whole before."""
    monkeypatch.chdir(tmp_path)
    make_live_bundle(tmp_path / TINY)
    write_video(tmp_path / "good.mp4", 8, 12)
    for command in (("inspect", TINY), (*_run("good.mp4"), "--rate", "0")):
        code, out, err = here(command, capfd)
        assert (code, err) == (0, "")
        assert out
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_unpickling_the_canary_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Canary())).close()
    assert (tmp_path / "canary").exists()


def test_rows_have_distinct_names() -> None:
    names = [row.name for row in CASES]
    assert len(set(names)) == len(names)
