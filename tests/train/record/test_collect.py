"""Recording: equal content for any workers and interruptions, atomicity, and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.train import gym_factory

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import (
    DataError,
    JetsightError,
    MissingDependency,
    StorageError,
    UsageError,
)
from jetsight.simulators import registry
from jetsight_train.cli.collect import collect as command
from jetsight_train.record import dataset
from jetsight_train.record.collect import collect
from jetsight_train.record.episode import RecordingRecipe, simulate
from jetsight_train.record.staging import finished, locked, rows_path, staging_of, video_path

RECIPE = RecordingRecipe(gym_factory.FADE, 4, 20, 7, "random", height_px=32, width_px=48)


def digest(path) -> str:
    return LeRobotDataset.open(path).digest()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Record RECIPE without interruption."""
    return collect(RECIPE, tmp_path_factory.mktemp("reference") / "fade")


def interrupt_after(episodes: int):
    """Make a progress callback that raises KeyboardInterrupt after a number of episodes."""
    recorded = []

    def progress(more: int) -> None:
        recorded.extend([None] * more)
        if len(recorded) >= episodes:
            raise KeyboardInterrupt

    return progress


def test_rows_are_what_the_environment_did(reference):
    data = LeRobotDataset.open(reference.path)
    for index in range(RECIPE.episodes):
        truth, rows = simulate(RECIPE, index), data.rows(index)
        assert np.array_equal(rows.actions, truth.actions)
        assert np.array_equal(rows.states, truth.states)
        assert np.allclose(rows.timestamps_s, np.arange(len(truth.actions)) / 5, atol=1e-6)
    assert not np.array_equal(simulate(RECIPE, 0).actions, simulate(RECIPE, 1).actions)


def test_row_t_holds_the_action_that_leads_to_observation_t_plus_1(reference):
    rows = LeRobotDataset.open(reference.path).rows(2)
    place, action = rows.states[:, :2], rows.actions
    assert np.allclose(place[1:], 0.8 * place[:-1] + 0.2 * action[:-1], atol=1e-6)
    assert not np.allclose(place[1:], 0.8 * place[:-1] + 0.2 * action[1:], atol=1e-2)


def test_episode_ends_where_the_environment_ends_it(reference):
    assert reference.frames == RECIPE.episodes * gym_factory.LAST_TICK
    assert LeRobotDataset.open(reference.path).episode_lengths == [gym_factory.LAST_TICK] * 4


def test_names_and_rate_come_from_the_environment(reference):
    data = LeRobotDataset.open(reference.path)
    assert data.state_names == ["joint_0", "joint_1", "joint_2"]
    assert (data.fps, data.height, data.width) == (5.0, 32, 48)


def test_two_processes_record_the_same_bytes(reference, tmp_path):
    again = collect(RECIPE, tmp_path / "fade", workers=2)
    assert digest(again.path) == digest(reference.path)


def test_another_seed_records_something_else(reference, tmp_path):
    other = collect(replace(RECIPE, seed=8), tmp_path / "fade")
    assert digest(other.path) != digest(reference.path)


@pytest.mark.parametrize("kept", [1, 3])
def test_resumed_recording_equals_an_uninterrupted_one(reference, tmp_path, kept):
    target = tmp_path / "fade"
    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, target, progress=interrupt_after(kept))
    assert not target.exists()
    assert finished(target) == kept
    result = collect(RECIPE, target, resume=True)
    assert result.resumed == kept
    assert digest(target) == digest(reference.path)
    assert os.listdir(tmp_path) == ["fade"]


def test_interruption_while_assembling_leaves_no_final_name(reference, tmp_path, monkeypatch):
    target = tmp_path / "fade"

    def half_way(folder, *_):
        (folder / "meta").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "assemble", half_way)
    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, target)
    assert os.listdir(tmp_path) == [staging_of(target).name]
    monkeypatch.undo()
    assert collect(RECIPE, target, resume=True).resumed == RECIPE.episodes
    assert digest(target) == digest(reference.path)


def test_video_without_rows_is_no_episode(reference, tmp_path):
    target = tmp_path / "fade"
    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, target, progress=interrupt_after(2))
    rows_path(staging_of(target), 1).unlink()
    video_path(staging_of(target), 1).write_bytes(b"half a vid")
    assert collect(RECIPE, target, resume=True).resumed == 1
    assert digest(target) == digest(reference.path)


def test_files_split_where_they_grow_too_large(reference, tmp_path, monkeypatch):
    size = sum(f.stat().st_size for f in reference.path.glob("videos/**/*.mp4"))
    monkeypatch.setattr(dataset, "VIDEO_FILE_MB", size / 2 / 2**20)
    split = collect(RECIPE, tmp_path / "fade")
    assert len(list(split.path.glob("videos/**/*.mp4"))) > 1
    whole, parts = LeRobotDataset.open(reference.path), LeRobotDataset.open(split.path)
    for index in range(RECIPE.episodes):
        assert np.array_equal(whole.episode(index).frames, parts.episode(index).frames)


def test_non_empty_target_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(StorageError, match="never overwritten"):
        collect(RECIPE, tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, tmp_path / "fade", progress=interrupt_after(1))
    return tmp_path / "fade"


def test_interrupted_recording_is_not_started_over_by_accident(tmp_path):
    with pytest.raises(StorageError, match="--resume"):
        collect(RECIPE, interrupted(tmp_path))


def test_resume_with_other_settings_is_refused(tmp_path):
    target = interrupted(tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        collect(replace(RECIPE, steps=21), target, resume=True)
    assert finished(target) == 1


def test_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        collect(RECIPE, tmp_path / "fade", resume=True)
    assert os.listdir(tmp_path) == []


def test_two_recordings_of_one_target_are_refused(tmp_path):
    target = interrupted(tmp_path)
    with (
        locked(staging_of(target)),
        pytest.raises(StorageError, match="another process"),
    ):
        collect(RECIPE, target, resume=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_environment_is_one_line_and_keeps_episodes(tmp_path, workers):
    target = tmp_path / "broken"
    with pytest.raises(DataError, match="RuntimeError: the gripper fell off") as caught:
        collect(replace(RECIPE, env_id=gym_factory.BROKEN, episodes=8), target, workers=workers)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert 0 < finished(target) < 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "Nope-v0"}, "cannot make environment 'Nope-v0'"),
        ({"env_id": "nope/Nope-v0"}, "cannot make environment"),
        ({"env_id": "CartPole-v1"}, "Discrete"),
        ({"env_id": gym_factory.NAMELESS}, "--fps"),
        ({"policy": "scripted"}, "--policy random"),
    ],
)
def test_wrong_call_fails_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        collect(replace(RECIPE, **changes), tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "changes", [{"episodes": 0}, {"steps": 0}, {"seed": -1}, {"height_px": 33}, {"width_px": 8}]
)
def test_recipe_out_of_range_is_refused(changes):
    with pytest.raises(UsageError, match="expected"):
        replace(RECIPE, **changes)


def test_missing_and_unloadable_packages_are_told_apart(tmp_path, monkeypatch):
    def without(problem: ImportError):
        def refuse(name: str):
            raise problem

        monkeypatch.setattr(registry.importlib, "import_module", refuse)
        with pytest.raises(JetsightError) as caught:
            collect(replace(RECIPE, env_id=registry.PUSHT), tmp_path / "x")
        return caught.value

    assert isinstance(without(ModuleNotFoundError("no", name="gymnasium")), MissingDependency)
    broken = without(ImportError("libGL.so.1: cannot open shared object file"))
    assert not isinstance(broken, MissingDependency)
    assert "libGL.so.1" in str(broken)
    assert "apt install" in str(broken)


ARGS = [gym_factory.FADE, "--episodes", "4", "--steps", "20", "--seed", "7", "--policy", "random"]


def test_command_prints_one_json_object(reference, tmp_path):
    result = CliRunner().invoke(
        command, [*ARGS, "--size", "48x32", "--out", str(tmp_path / "fade"), "--json"]
    )
    facts = json.loads(result.stdout)
    assert facts["frames"] == 48
    assert facts["sha256"] == digest(reference.path)


def test_command_refuses_a_malformed_size(tmp_path):
    result = CliRunner().invoke(command, [*ARGS, "--out", str(tmp_path / "x"), "--size", "96"])
    assert result.exit_code == 2
    assert "96x96" in result.stderr


def test_interrupted_command_exits_130_and_says_how_to_go_on(tmp_path):
    target = tmp_path / "slow"
    code = "import sys; from jetsight.cli import main; sys.exit(main(sys.argv[1:]))"
    call = [sys.executable, "-c", code, "collect"]
    call += [gym_factory.SLOW, *ARGS[1:], "--episodes", "50", "--out", str(target)]
    process = subprocess.Popen(
        call, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE
    )
    while not finished(target) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in stderr
    assert b"Traceback" not in stderr
    assert not target.exists()
