"""Every command that takes a dataset compares it with the model before it works, in the same words.

Each misfit is one edit of a dataset that fits; the edited one with the option of the message, or
the one that was not edited, is the negative control.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import Capture, here
from helpers.paths import RECORDED, ROOT
from helpers.runtime.imagine_factory import make_imagine_bundle, make_recording

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight_train.recipe import RECIPES

SHIPPED = ROOT / "train" / "jetsight_train" / "zoo" / "pusht-nano"
TRAINING = {
    "train": ("train", str(RECIPES / "pusht-nano.toml"), "--out", "out", "--data"),
    "train --probe": ("train", "pusht-heads", "--probe", str(SHIPPED), "--out", "out", "--data"),
    "report": ("report", str(SHIPPED), "--out", "out", "--data"),
    "compile": ("compile", str(SHIPPED), "--no-planner", "--out", "out.jetsight", "--calib"),
    "demo": ("demo", "--out", "out", "--data"),
}
RUNNING = {
    "run": ("run", "tiny.jetsight", "--backend", "onnxruntime", "--source"),
    "imagine": ("imagine", "tiny.jetsight", "--goal", "goal.png", "--frame"),
}
# They bring a faster recording to the model's rate; this one's stamps deny that it is faster.
RESAMPLING = ("compile", "run")
STAMPED = "rows are stamped 10 times per second, but meta/info.json says 30 frames per second"
Info = dict[str, Any]


def faster(info: Info) -> None:
    info["fps"] = 30


def other_order(info: Info) -> None:
    info["features"]["action"]["names"].reverse()


def fewer_names(info: Info) -> None:
    info["features"]["action"]["names"] = ["v", "w"]


def no_actions(info: Info) -> None:
    del info["features"]["action"]


def second_camera(info: Info) -> None:
    features = info["features"]
    (key,) = (key for key in features if features[key]["dtype"] == "video")
    features["observation.images.another"] = copy.deepcopy(features[key])


MISFITS: dict[str, tuple[Callable[[Info], None], str]] = {
    "rate": (faster, "recorded at 30 Hz, but the model steps at 10 Hz; bring it to that: jetsight"),
    "order": (other_order, "in this order"),
    "names": (fewer_names, "actions are ['v', 'w'], but the model takes"),
    "no actions": (no_actions, "add --map action=action"),
    "cameras": (second_camera, "several cameras; choose one of: observation.images.another, "),
}


def edited(source: Path, target: Path, change: Callable[[Info], None]) -> Path:
    """A dataset with other metadata; rows and videos are shared with the source."""
    shutil.copytree(source / "meta", target / "meta")
    for top in ("data", "videos"):
        (target / top).symlink_to(source / top, target_is_directory=True)
    path = target / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    return target


def decoded(*_: object) -> None:
    raise AssertionError("a frame was decoded")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that plans, and a recording of its robot."""
    room = tmp_path_factory.mktemp("tiny")
    make_imagine_bundle(room / "tiny.jetsight")
    make_recording(room / "ds")
    return room


def refused(
    command: Sequence[str], data: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Last line of a command on a dataset that it must refuse before it decodes a frame."""
    monkeypatch.chdir(data.parent)
    capfd.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(LeRobotDataset, "frames", decoded)
        code, out, err = here([*command, data.name], capfd)
    assert code in (2, 4, 7), err
    assert out == ""
    line = str(err.splitlines()[-1])
    assert line.startswith("jetsight: error: ")
    assert data.name in line
    assert not (data.parent / "out").exists()
    assert not (data.parent / "out.jetsight").exists()
    return line


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("command", TRAINING)
def test_data_that_does_not_fit_is_refused_before_any_work(
    command: str,
    misfit: str,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, words = MISFITS[misfit]
    words = STAMPED if (command in RESAMPLING and misfit == "rate") else words
    data = edited(RECORDED, tmp_path / "ds", change)
    assert words in refused(TRAINING[command], data, capfd, monkeypatch)


@pytest.mark.parametrize("misfit", [name for name in MISFITS if name != "no actions"])
@pytest.mark.parametrize("command", RUNNING)
def test_a_robot_that_does_not_fit_is_refused_by_the_runtime(
    command: str,
    misfit: str,
    tiny: Path,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, words = MISFITS[misfit]
    words = STAMPED if (command in RESAMPLING and misfit == "rate") else words
    (tmp_path / "tiny.jetsight").symlink_to(tiny / "tiny.jetsight")
    data = edited(tiny / "ds", tmp_path / "ds", change)
    tick = "#0:8" if command == "imagine" else ""
    arguments = RUNNING[command]
    monkeypatch.chdir(tmp_path)
    code, _, err = here([*arguments, f"{data.name}{tick}"], capfd)
    assert code in (2, 4, 7), err
    assert words in err.splitlines()[-1]


def test_run_streams_a_camera_that_the_option_chooses_and_says_what_is_left_out(
    tiny: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.jetsight").symlink_to(tiny / "tiny.jetsight")
    edited(tiny / "ds", tmp_path / "ds", second_camera)
    monkeypatch.chdir(tmp_path)
    command = [*RUNNING["run"], "ds", "--rate", "0", "--json"]
    code, _, err = here([*command, "--camera", "image"], capfd)
    assert code == 2, err
    assert "no camera 'image'" in err
    (key,) = (k for k in LeRobotDataset.open(tiny / "ds").camera_keys)
    code, out, err = here([*command, "--camera", key], capfd)
    assert code == 0, err
    assert json.loads(out)["frames"] == 36


def test_run_streams_without_actions_and_says_why(
    tiny: Path,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "tiny.jetsight").symlink_to(tiny / "tiny.jetsight")
    edited(tiny / "ds", tmp_path / "ds", no_actions)
    monkeypatch.chdir(tmp_path)
    command = [*RUNNING["run"], "ds", "--rate", "0", "--json"]
    code, _, err = here(command, capfd)
    assert code == 0, err
    assert "streamed without actions" in caplog.text
    assert "add --map action=action" in caplog.text
    caplog.clear()
    code, _, err = here([*command, "--map", "action=action"], capfd)
    assert code == 0, err
    assert "without actions" not in caplog.text


def test_what_the_option_chooses_is_compared_too(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = edited(RECORDED, tmp_path / "ds", no_actions)
    command = [*TRAINING["report"][:-1], "--map", "action=observation.state", "--data"]
    line = refused(command, data, capfd, monkeypatch)
    assert "actions are ['agent_x', 'agent_y'" in line
