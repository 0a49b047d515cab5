"""Facts that no bundle can carry: `train` and `compile` refuse each of them before they work.

Each row is one fact of a recipe. `train` reads it from a TOML file, `compile` from the `model.json`
of a checkpoint; both have to name file, key and value, and may compute for one second at most.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import Capture, here
from helpers.paths import RECORDED, ROOT

from jetsight.cli import group
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import ArtefactError
from jetsight_train import recipe as recipes
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.model.config import ConvConfig, ViTConfig
from jetsight_train.training import measured

SHIPPED = ROOT / "train" / "jetsight_train" / "zoo" / "pusht-nano"
RECIPE = recipes.RECIPES / "pusht-nano.toml"
MOST_S = 1.0
NAN, INF = float("nan"), float("inf")

# key in the recipe, value, words of the message
FACTS: list[tuple[str, Any, str]] = [
    ("name", "my model!", "letters, digits"),
    ("name", "../elsewhere", "letters, digits"),
    ("name", "", "letters, digits"),
    ("frame.camera", [0, 96], "camera is 0, expected 1 to 16384"),
    ("frame.camera", [96], "camera has 1 values, expected 2"),
    ("frame.camera", [96, 96, 3], "camera has 3 values, expected 2"),
    ("frame.camera", [96, 20000], "camera is 20000, expected 1 to 16384"),
    ("frame.resize", [48, -1], "resize is -1"),
    ("timing.camera_hz", 0.0, "camera_hz is 0.0, expected 0.01 to 1000"),
    ("timing.camera_hz", -10.0, "camera_hz is -10.0"),
    ("timing.camera_hz", 1e9, "camera_hz is 1000000000.0"),
    ("timing.action_block", 0, "action_block is 0, expected 1 to 1000"),
    ("timing.action_block", 5000, "action_block is 5000"),
    ("action.names", ["target_x", "target_x"], "repeat themselves"),
    ("action.names", ["", "target_y"], "printable characters"),
    ("action.names", ["target_x ", "target_y"], "printable characters"),
    ("action.names", ["x=1", "target_y"], "printable characters"),
    ("action.names", ["x" * 65, "target_y"], "printable characters"),
    ("action.names", [], "number of action names is 0"),
    ("action.units", ["px"], "units has 1 values, expected 2"),
    ("action.low", [0.0], "low has 1 values, expected 2"),
    ("action.low", [512.0, 512.0], "low 512.0 and high 512.0, expected low < high"),
    ("action.low", [600.0, 0.0], "'target_x' has low 600.0 and high 512.0, expected low < high"),
    ("action.low", [-1e39, 0.0], "low holds -1e+39, expected finite float32 numbers"),
    ("action.high", [512.0, 0.0], "'target_y' has low 0.0 and high 0.0, expected low < high"),
    ("action.high", [512.0, 512.0, 512.0], "high has 3 values, expected 2"),
    ("action.neutral", [600.0, 10.0], "'target_x' has neutral 600.0 outside"),
    ("action.neutral", [10.0, -0.5], "'target_y' has neutral -0.5 outside"),
    ("action.neutral", [10.0], "neutral has 1 values, expected 2"),
    ("action.rate_limit_per_s", [0.0, 400.0], "rate_limit_per_s holds 0.0"),
    ("action.rate_limit_per_s", [-1.0, 400.0], "rate_limit_per_s holds -1.0"),
    ("action.rate_limit_per_s", [400.0], "rate_limit_per_s has 1 values, expected 2"),
    ("model.latent_size", 0, "latent_size is 0, expected 1 to 65536"),
    ("model.latent_size", 70000, "latent_size is 70000"),
    ("model.history", 0, "history is 0, expected 1 to 1024"),
    ("model.history", 2000, "history is 2000"),
    ("model.horizon", 0, "horizon is 0, expected 1 to 1024"),
    ("model.conv.strides", [2, 1, 0], "strides is 0"),
    ("model.conv.widths", [32, 48], "expected one per layer"),
    ("model.predictor.heads", 0, "heads is 0"),
    ("model.predictor.dropout", 1.5, "dropout is 1.5"),
    ("optimiser.steps", 0, "steps is 0, expected 1 to"),
    ("optimiser.batch", 0, "batch is 0, expected 1 to"),
    ("optimiser.learning_rate", 0.0, "learning_rate holds 0.0, expected numbers above 0"),
    ("optimiser.grad_clip", -1.0, "grad_clip holds -1.0"),
    ("optimiser.seed", -1, "seed is -1"),
    ("optimiser.weight_decay", 1.5, "weight_decay is 1.5"),
    ("objective.prediction", -1.0, "prediction is -1.0, expected a weight from 0"),
    ("objective.slow_share", 1.5, "slow_share is 1.5"),
    ("objective.rollout_steps", 0, "rollout_steps must be at least 1"),
    ("objective.context", 4, "expected at most model.history"),
    ("objective.anchor", 1.0, "[[anchors]]"),
]
# TOML alone can say these; JSON has no such numbers.
INFINITE: list[tuple[str, Any, str]] = [
    ("action.high", [INF, 512.0], "action.high holds inf"),
    ("action.low", [-INF, 0.0], "action.low holds -inf"),
    ("action.neutral", [NAN, 0.0], "action.neutral holds nan"),
    ("timing.camera_hz", NAN, "timing.camera_hz holds nan"),
]
IDS = [f"{key}={value!r:.40}" for key, value, _ in FACTS]


def recipe_with(folder: Path, key: str, value: Any) -> Path:
    """The shipped recipe as a file of its own, one key changed or added."""
    section, _, name = key.rpartition(".")
    lines = RECIPE.read_text().splitlines()
    row = f"{name} = {_toml(value)}"
    start = lines.index(f"[{section}]") + 1 if section else 0
    for at in range(start, len(lines)):
        if re.match(rf"{name}\s*=", lines[at]):
            lines[at] = row
            break
        if lines[at].startswith("["):
            lines.insert(start, row)
            break
    path = folder / "robot.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def checkpoint_with(folder: Path, key: str, value: Any) -> Path:
    """The shipped checkpoint with one fact of its description changed."""
    target = folder / "ckpt"
    shutil.copytree(SHIPPED, target)
    path = target / "model.json"
    told = json.loads(path.read_text())
    _set(told, key, value)
    path.write_text(json.dumps(told))
    return target


def refused(command: list[str], capfd: Capture) -> tuple[object, str, float]:
    """Exit code, error line and processor seconds of a command that has its imports already."""
    capfd.readouterr()
    began = time.process_time()
    code, out, err = here(command, capfd)
    seconds = time.process_time() - began
    assert out == ""
    return code, err.splitlines()[-1], seconds


@pytest.mark.parametrize(("key", "value", "says"), [*FACTS, *INFINITE])
def test_train_refuses_it_first(
    key: str, value: Any, says: str, tmp_path: Path, capfd: Capture
) -> None:
    path = recipe_with(tmp_path, key, value)
    command = ["train", str(path), "--data", str(RECORDED), "--out", str(tmp_path / "run")]
    code, line, seconds = refused(command, capfd)
    assert (code, line.startswith(f"jetsight: error: {path}: ")) == (2, True), line
    assert says in line
    assert key.split(".")[0] in line
    assert seconds < MOST_S
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value", "says"), FACTS, ids=IDS)
def test_compile_refuses_it_first(
    key: str, value: Any, says: str, tmp_path: Path, capfd: Capture
) -> None:
    path = checkpoint_with(tmp_path, f"recipe.{key}", value)
    code, line, seconds = refused(_compile(path, tmp_path), capfd)
    assert (code, line.startswith(f"jetsight: error: {path / 'model.json'}: ")) == (3, True), line
    assert says in line
    assert seconds < MOST_S
    assert not (tmp_path / "x.jetsight").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("frame.crop", [0, 0, 97, 96], "outside the 96x96 frame"),
        ("frame.channel_order", "bgr", "channel_order: is 'bgr', expected 'rgb'"),
        ("frame.std", [0.0, 1.0, 1.0], "std holds 0.0, expected numbers above 0"),
        ("timing.camera_hz", 0.0, "camera_hz is 0.0"),
        ("action.low", [600.0, 0.0], "expected low < high"),
        ("action.low", [-1.0, 0.0], "expected the same"),
        ("action.neutral", [600.0, 0.0], "neutral 600.0 outside"),
        ("action.std", [0.0, 1.0], "std holds 0.0, expected numbers above 0"),
        ("latent.mean", [0.0], "std has 64 values, expected 1"),
        ("name", "a/b", "letters, digits"),
    ],
)
def test_a_checkpoint_is_refused_by_its_own_facts(
    key: str, value: Any, says: str, tmp_path: Path, capfd: Capture
) -> None:
    path = checkpoint_with(tmp_path, key, value)
    for command in (
        _compile(path, tmp_path),
        ["report", str(path), "--data", str(RECORDED)],
    ):
        code, line, seconds = refused(command, capfd)
        assert (code, says in line) == (3, True), line
        assert seconds < MOST_S


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("timing.camera_hz", 10.2, "recorded at 10 Hz, but the model steps at 10.2 Hz"),
        ("frame.camera", [96, 128], "frames are 96x96, but the model takes 128x96"),
        ("action.names", ["target_y", "target_x"], "in this order"),
        ("action.names", ["shoulder", "elbow"], "but the model takes ['shoulder', 'elbow']"),
        ("timing.action_block", 500, "no episode is long enough"),
        ("action.low", [340.0, 340.0], "the mean of the recorded actions does not fit"),
        ("action.low", [500.0, 500.0], "far outside of low 500 and high 512 in the recipe"),
    ],
)
def test_train_refuses_data_of_another_robot_before_it_decodes(
    key: str,
    value: Any,
    says: str,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LeRobotDataset, "episode", _began)
    path = recipe_with(tmp_path, key, value)
    command = ["train", str(path), "--data", str(RECORDED), "--out", str(tmp_path / "run")]
    code, line, seconds = refused(command, capfd)
    assert (code, str(RECORDED) in line, says in line) == (4, True, True), line
    assert seconds < MOST_S


def test_a_sound_recipe_gets_past_the_same_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: with nothing wrong the work begins."""
    monkeypatch.setattr(LeRobotDataset, "episode", _began)
    path = recipe_with(tmp_path, "name", "sound")
    with pytest.raises(_Began):
        group.run(["train", str(path), "--data", str(RECORDED), "--out", str(tmp_path / "r")])


@pytest.mark.parametrize(
    ("encoder", "size_hw", "fits"),
    [
        (ConvConfig((8,), (8,), (4,)), (1, 8), False),
        (ConvConfig((8,), (8,), (4,)), (2, 8), True),
        (ViTConfig(patch=14), (14, 13), False),
        (ViTConfig(patch=14), (14, 14), True),
    ],
)
def test_an_input_needs_a_pixel_per_layer_and_patch(
    encoder: ConvConfig | ViTConfig, size_hw: tuple[int, int], fits: bool
) -> None:
    if fits:
        encoder.check_input(size_hw)
        return
    with pytest.raises(ValueError, match=r"frame\.resize .* is (too small|smaller)"):
        encoder.check_input(size_hw)


@pytest.mark.parametrize("name", ["../elsewhere", "my heads!", ""])
def test_a_heads_recipe_names_a_folder(name: str) -> None:
    with pytest.raises(ArtefactError, match="letters, digits"):
        HeadsRecipe(name)
    HeadsRecipe("pusht-heads")


@pytest.mark.parametrize("miss_rate", [0.0, 1.0, 2.0])
def test_a_checkpoint_with_an_impossible_hazard_is_refused(
    miss_rate: float, tmp_path: Path, capfd: Capture
) -> None:
    path = checkpoint_with(tmp_path, "name", "pusht-nano")
    told = json.loads((path / "model.json").read_text())
    told["heads"]["hazards"][0]["miss_rate"] = miss_rate
    (path / "model.json").write_text(json.dumps(told))
    code, line, seconds = refused(_compile(path, tmp_path), capfd)
    assert (code, "miss_rate is" in line, str(path / "model.json") in line) == (3, True, True), line
    assert seconds < MOST_S


@pytest.mark.parametrize("slack", [0.0, 0.004])
def test_a_rate_within_the_tolerance_is_the_same(slack: float) -> None:
    recipe = recipes.load_recipe("pusht-nano")
    hz = recipe.timing.camera_hz * (1 + slack)
    timing = type(recipe.timing)(hz, recipe.timing.action_block)
    measured.check_training_data(dataclasses.replace(recipe, timing=timing), RECORDED)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("timing.camera_hz", 20.0, "recorded at 10 Hz"),
        ("frame.height_px", 97, "frames are 96x96, but the model takes 96x97"),
    ],
)
def test_report_refuses_data_of_another_robot_before_it_decodes(
    key: str,
    value: Any,
    says: str,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LeRobotDataset, "episode", _began)
    path = checkpoint_with(tmp_path, key, value)
    code, line, seconds = refused(["report", str(path), "--data", str(RECORDED)], capfd)
    assert (code, says in line) == (4, True), line
    assert seconds < MOST_S


class _Began(Exception):
    """The work began."""


def _began(*_: object, **__: object) -> None:
    raise _Began


def _compile(checkpoint: Path, folder: Path) -> list[str]:
    return [
        *("compile", str(checkpoint), "--calib", str(RECORDED)),
        *("--out", str(folder / "x.jetsight")),
    ]


def _set(told: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        told = told[part]
    told[last] = value


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)
