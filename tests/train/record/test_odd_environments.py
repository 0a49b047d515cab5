"""`collect` and `run` on environments with one oddity each: equal pixels, or one refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.runtime.camera_factory import readings
from helpers.simulators import environments
from helpers.simulators.base import H, W
from helpers.simulators.environments import odd

from jetsight.cameras import StreamRequest
from jetsight.cameras.gym import GymSource
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import CameraError, DataError, JetsightError, UsageError
from jetsight_train.cli.collect import collect as command
from jetsight_train.record.collect import collect, describe
from jetsight_train.record.episode import RecordingRecipe, simulate

POLICY = "helpers.simulators.drivers:forward"
STEPS = 7


def recipe_of(name: str, policy: str = "random", **changes: Any) -> RecordingRecipe:
    facts: dict[str, Any] = {"height_px": H, "width_px": W, **changes}
    return RecordingRecipe(odd(name), 2, STEPS, 3, policy, **facts)


def recorded(recipe: RecordingRecipe) -> np.ndarray | str:
    """Return the frames `[T,...]` that `collect` would record, or the line that refuses them."""
    try:
        describe(recipe)
        return simulate(recipe, 0).frames_u8
    except JetsightError as problem:
        return str(problem)


def streamed(recipe: RecordingRecipe) -> np.ndarray | str:
    """Return the frames that `run` would stream to a model of this recording, or the line."""
    try:
        about = describe(recipe)
        hz, size = about.fps, len(about.action_names)
    except UsageError:
        hz, size = 10.0, 2
    request = StreamRequest(H, W, hz, action_block=2, plan_ticks=4, step_size=size)
    source = GymSource(recipe.env_id, cameras=recipe.cameras)
    try:
        found = readings(source, request, limit=STEPS)
    except CameraError as problem:
        return str(problem)
    return np.stack([np.asarray(reading.image_hwc_u8) for reading in found])


# The others fail later, or their rate is known to one side alone.
KINDS = [name for name in environments.KINDS if name not in ("NoRate", "OneStepLater", "GoesBlack")]


@pytest.mark.parametrize("name", KINDS)
def test_recorded_and_streamed_pixels_are_equal_or_refused_in_one_voice(name: str) -> None:
    one, other = recorded(recipe_of(name)), streamed(recipe_of(name))
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        assert odd(name) in one
    else:
        assert one.shape == (STEPS, H, W, 3)
        assert np.array_equal(one, other)
        assert len(np.unique(one)) > 2  # control: not two black films


@pytest.mark.parametrize("cameras", [("wrist",), ("top", "wrist"), ("render", "wrist")])
def test_chosen_cameras_are_the_same_for_both(cameras: tuple[str, ...]) -> None:
    recipe = recipe_of("TwoViews", cameras=cameras)
    assert np.array_equal(recorded(recipe), streamed(recipe))


def test_a_recording_has_names_units_columns_and_an_odd_rate(tmp_path: Path) -> None:
    recipe = recipe_of("Rover", keep=("info.hit", "info.wheels.left"))
    result = collect(recipe, tmp_path / "rover")
    info = json.loads((result.path / "meta/info.json").read_text())["features"]
    assert (info["action"]["names"], info["action"]["units"]) == (["v", "w"], ["m/s", "rad/s"])
    assert info["observation.state"]["names"] == ["x", "y"]
    assert info["observation.state"]["units"] == ["m", "m"]
    assert [info[key]["dtype"] for key in recipe.keep] == ["bool", "float32"]
    rows = pq.read_table(result.path / "data/chunk-000/file-000.parquet").to_pydict()
    assert rows["info.hit"] == 2 * [tick > 3 for tick in range(STEPS)]
    assert rows["info.wheels.left"] == 2 * [tick / 4 for tick in range(STEPS)]
    # With the observation of the same row, not with the action as the reward is.
    assert [state[0] for state in rows["observation.state"]] == 2 * list(range(STEPS))


def test_two_cameras_are_two_videos(tmp_path: Path) -> None:
    recipe = recipe_of("TwoViews", cameras=("pixels.top", "pixels.wrist"), height_px=64)
    path = collect(recipe, tmp_path / "two").path
    truth = simulate(recipe, 1).frames_u8
    keys = ["observation.images.top", "observation.images.wrist"]
    for camera, key in enumerate(keys):
        found = LeRobotDataset.open(path, key).episode(1).frames
        gap = [np.abs(found.astype(int) - truth[:, other]).mean() for other in (0, 1)]
        assert gap[camera] < 8 < gap[1 - camera]


def test_a_rate_that_is_not_whole_is_recorded(tmp_path: Path) -> None:
    path = collect(recipe_of("HalfRate"), tmp_path / "half").path
    assert LeRobotDataset.open(path).fps == 12.5


def test_a_rate_is_given_where_there_is_none(tmp_path: Path) -> None:
    assert describe(recipe_of("NoRate", fps=7.5)).fps == 7.5
    with pytest.raises(UsageError, match=r"runs at 12.5 steps per second"):
        describe(recipe_of("HalfRate", fps=30.0))


@pytest.mark.parametrize("name", ["NanState", "NanReward", "NanPixel"])
def test_nan_is_never_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"(nan|NaN).*episode 0; finished episodes are kept"):
        collect(recipe_of(name), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.rglob("*.npz"))


def test_nan_of_kept_info_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"info.gap is nan"):
        collect(recipe_of("NanInfo", keep=("info.gap",)), tmp_path / "x")


def test_a_policy_of_the_user_drives(tmp_path: Path) -> None:
    recipe = recipe_of("Odd", POLICY)
    first, second = (simulate(recipe, index).actions for index in range(2))
    assert (first[:, 0] == 0.5).all()
    assert not np.array_equal(first, second)
    assert np.array_equal(first, simulate(recipe, 0).actions)
    one = collect(recipe, tmp_path / "one").path
    two = collect(recipe, tmp_path / "two", workers=2).path
    assert LeRobotDataset.open(one).digest() == LeRobotDataset.open(two).digest()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("helpers.simulators.drivers:too_many", "expected 2 numbers"),
        ("helpers.simulators.drivers:too_far", "expected -1 to 1"),
        ("helpers.simulators.drivers:not_a_number", "is nan"),
        ("helpers.simulators.drivers:wrong_signature", "function(observation, rng)"),
        ("drive", "expected random, scripted, MODULE:FUNCTION or FILE.py:FUNCTION"),
        ("scripted", "no scripted policy"),
    ],
)
def test_a_policy_that_cannot_drive_is_refused_before_any_work(
    tmp_path: Path, policy: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        collect(recipe_of("Odd", policy), tmp_path / "x")
    assert words in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_policy_that_fails_later_keeps_what_is_finished(tmp_path: Path) -> None:
    policy = "helpers.simulators.drivers:nan_later"
    with pytest.raises(DataError, match=r"action 'action_1' is nan.*episode 0"):
        collect(recipe_of("Odd", policy), tmp_path / "x")


def test_the_command_passes_its_options_on(tmp_path: Path) -> None:
    call = [odd("TwoViews"), "--episodes", "1", "--steps", "4", "--size", f"{W}x{H}"]
    call += ["--policy", POLICY, "--camera", "top", "--camera", "render", "--fps", "10"]
    call += ["--action-names", "v, w", "--units", "m/s,rad/s", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(command, [*call, "--json"])
    assert result.exit_code == 0, result.output
    features = json.loads((tmp_path / "x/meta/info.json").read_text())["features"]
    assert {"observation.images.top", "observation.images.render"} <= features.keys()
    assert features["action"]["names"] == ["v", "w"]
    assert features["action"]["units"] == ["m/s", "rad/s"]
