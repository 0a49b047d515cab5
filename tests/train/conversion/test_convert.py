"""Conversion: what is kept bit for bit, what is resampled by which rule, and interruptions."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.train import disc_recordings as disc

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight.datasets.resample import FrameResize, TickRows
from jetsight.errors import DataError, JetsightError, StorageError, UsageError
from jetsight_train.conversion import convert as converting
from jetsight_train.conversion.convert import ConvertedDataset, convert, validation_path
from jetsight_train.conversion.plan import check_space, plan_conversion
from jetsight_train.conversion.recipe import ConversionOptions
from jetsight_train.curation.findings import find
from jetsight_train.curation.survey import CheckOptions, examine
from jetsight_train.record import dataset
from jetsight_train.record.staging import finished, staging_of

PLAIN = ConversionOptions(FeatureMap())
SMALL = replace(PLAIN, hz=5.0, size_hw=(16, 16))


def run(source: Path, target: Path, options: ConversionOptions = PLAIN, **how) -> ConvertedDataset:
    return convert(plan_conversion(source, options), target, **how)[0]


def digest(path: Path) -> str:
    return open_dataset(path).digest()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return disc.write(tmp_path_factory.mktemp("recorded") / "disc", 4)


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory) -> Path:
    """The source converted by SMALL, without interruption."""
    return run(source, tmp_path_factory.mktemp("reference") / "small", SMALL).path


def test_actions_are_bit_for_bit_those_of_the_source_where_the_rate_stays(source, tmp_path):
    result = run(source, tmp_path / "d", replace(PLAIN, size_hw=(16, 16)))
    before, after = open_dataset(source), open_dataset(result.path)
    assert after.episode_lengths == before.episode_lengths
    for i in range(len(before)):
        assert after.rows(i).actions.tobytes() == before.rows(i).actions.tobytes()
        assert after.rows(i).states.tobytes() == before.rows(i).states.tobytes()
    # Control: an action one bit off would be seen.
    other = before.rows(0).actions.view(np.uint32) ^ np.uint32(1)
    assert other.tobytes() != after.rows(0).actions.tobytes()


@pytest.mark.parametrize("rule", ["hold", "mean"])
def test_half_the_rate_takes_every_second_frame_and_reduces_actions_by_the_rule(
    source, tmp_path, rule
):
    options = replace(PLAIN, hz=5.0, actions=rule, lossless=True, episodes="1")
    result = run(source, tmp_path / "d", options)
    before, after = open_dataset(source).episode(1), open_dataset(result.path).episode(0)
    expected = before.actions[::2]
    if rule == "mean":
        expected = (before.actions[::2] + before.actions[1::2]) / 2
    assert np.allclose(after.actions, expected, atol=1e-6)
    assert not np.allclose(after.actions, before.actions[1::2], atol=1e-3)  # control
    assert np.array_equal(after.states, before.states[::2])
    assert np.array_equal(after.frames, before.frames[::2])
    assert result.most_levels == 0
    assert result.offset_s < 1e-5


def test_a_rate_that_is_no_part_takes_the_nearest_frames_and_says_how_far_off(source, tmp_path):
    result = run(source, tmp_path / "d", replace(PLAIN, hz=4.0, lossless=True, episodes="0"))
    before, after = open_dataset(source).episode(0), open_dataset(result.path).episode(0)
    ticks = TickRows.even(disc.TICKS, disc.HZ, 4.0)
    assert np.array_equal(after.frames, before.frames[ticks.frames])
    assert result.offset_s == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    ("crop", "region"),
    [("center", (4, 0, 24, 32)), ("full", (0, 0, 32, 32)), ((2, 6, 18, 24), (2, 6, 18, 24))],
)
def test_frames_are_cropped_and_resized_by_the_declared_recipe(source, tmp_path, crop, region):
    options = replace(PLAIN, size_hw=(18, 24), crop=crop, lossless=True, episodes="0")
    result = run(source, tmp_path / "d", options)
    expected = FrameResize((18, 24), region)(open_dataset(source).episode(0).frames)
    assert np.array_equal(open_dataset(result.path).episode(0).frames, expected)
    recipe = json.loads((result.path / converting.PROVENANCE).read_text())["conversion"]
    assert tuple(recipe["cameras"][0]["crop"]) == region


def test_stored_pixels_differ_by_what_is_reported(source, tmp_path):
    result = run(source, tmp_path / "d", replace(PLAIN, episodes="0"))
    before, after = open_dataset(source).episode(0), open_dataset(result.path).episode(0)
    difference = np.abs(before.frames[::2].astype(int) - after.frames[::2])
    assert result.mean_levels == pytest.approx(difference.mean(), rel=0.1)
    assert 0 < result.mean_levels < 5
    assert result.most_levels >= difference.max() - 1


def test_cameras_of_two_sizes_become_one_dataset(tmp_path):
    about = replace(disc.ABOUT, cameras=(disc.TOP, disc.WRIST))
    played = [
        replace(e, frames=np.stack([e.frames, 255 - e.frames], axis=1)) for e in [disc.play(0)]
    ]
    source = disc.write(tmp_path / "two", played, about)
    options = replace(PLAIN, features=FeatureMap(cameras=("all",)), size_hw=(16, 16), lossless=True)
    made = run(source, tmp_path / "d", options).path
    both = open_dataset(made, FeatureMap(cameras=(disc.TOP, disc.WRIST))).episode(0).frames
    assert both.shape == (disc.TICKS, 2, 16, 16, 3)
    recorded = open_dataset(source, FeatureMap(cameras=(disc.WRIST,))).episode(0).frames
    assert np.array_equal(both[:, 1], FrameResize((16, 16), (0, 0, 32, 32))(recorded))
    with pytest.raises(UsageError, match="several cameras"):
        plan_conversion(source, PLAIN)


def test_names_units_limits_tasks_and_columns_are_kept(tmp_path):
    about = replace(disc.ABOUT, extra=("next.reward", "next.done", "battery"))
    done = np.arange(disc.TICKS) == disc.TICKS - 1
    volts = np.linspace(12, 11, disc.TICKS, dtype=np.float32)
    extra = {"next.reward": np.ones(disc.TICKS, np.float32), "next.done": done, "battery": volts}
    played = [
        replace(disc.play(0), extra=extra, task="go home"),
        replace(disc.play(1), extra=extra),
    ]
    made = run(disc.write(tmp_path / "s", played, about), tmp_path / "d", SMALL).path
    after = open_dataset(made)
    labels = after.labels()
    assert (after.action_names, after.state_names) == (["target_x", "target_y"], ["x", "y"])
    assert (labels.action_units, labels.state_units) == (("m", "m"), ("m", "m"))
    assert labels.action_limits == ((-1.5, 1.5), (-1.5, 1.5))
    assert labels.tasks == ("go home", "follow the target")
    columns = after.columns(0, ["next.reward", "next.done", "battery"])
    assert np.array_equal(columns["next.reward"], np.full(disc.TICKS // 2, 2.0))  # the sum
    assert columns["next.done"].tolist() == [0.0] * (disc.TICKS // 2 - 1) + [1.0]  # the last row's
    assert np.array_equal(columns["battery"], volts[::2])
    assert after.robot == "disc"


def test_other_names_become_lerobots_and_the_old_ones_are_noted(source, tmp_path):
    renamed = Path(shutil.copytree(source, tmp_path / "s"))
    text = (renamed / "meta/info.json").read_text().replace(disc.TOP, "front")
    (renamed / "meta/info.json").write_text(text)
    (renamed / "videos" / disc.TOP).rename(renamed / "videos/front")
    import pyarrow.parquet as pq

    file = renamed / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    names = [name.replace(disc.TOP, "front") for name in table.column_names]
    pq.write_table(table.rename_columns(names), file)
    made = run(renamed, tmp_path / "d", SMALL).path
    assert open_dataset(made).camera_keys == ("observation.images.front",)
    recipe = json.loads((made / converting.PROVENANCE).read_text())["conversion"]
    assert recipe["cameras"][0]["source"] == "front"
    assert recipe["source"]["sha256"] == digest(renamed)


def test_held_out_episodes_are_spread_and_in_a_dataset_of_their_own(source, tmp_path):
    plan = plan_conversion(source, replace(SMALL, hold_out=0.5))
    assert sorted((*plan.recipe.episodes, *plan.held_out)) == [0, 1, 2, 3]
    assert plan.held_out == (1, 3)
    kept, held = convert(plan, tmp_path / "d")
    assert held.path == validation_path(kept.path)
    recorded = open_dataset(source)
    for made, episodes in ((kept, (0, 2)), (held, (1, 3))):
        for i, episode in enumerate(episodes):
            after = open_dataset(made.path).rows(i)
            assert np.array_equal(after.states, recorded.rows(episode).states[::2])


def interrupt_after(episodes: int) -> Callable[[int], None]:
    made = []

    def progress(more: int) -> None:
        made.extend([None] * more)
        if len(made) >= episodes:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("kept", [1, 3])
def test_a_resumed_conversion_equals_an_uninterrupted_one(source, reference, tmp_path, kept):
    target = tmp_path / "small"
    with pytest.raises(KeyboardInterrupt):
        run(source, target, SMALL, progress=interrupt_after(kept))
    assert not target.exists()
    assert finished(target) == kept
    assert run(source, target, SMALL, resume=True).resumed == kept
    assert digest(target) == digest(reference)
    assert os.listdir(tmp_path) == ["small"]


def test_two_processes_convert_to_the_same_bytes(source, reference, tmp_path):
    assert digest(run(source, tmp_path / "small", SMALL, workers=2).path) == digest(reference)
    other = run(source, tmp_path / "other", replace(SMALL, actions="mean"))
    assert digest(other.path) != digest(reference)  # control


def test_a_kill_between_the_two_datasets_loses_nothing(source, tmp_path, monkeypatch):
    options = replace(SMALL, hold_out=0.5)
    whole = [r.path for r in convert(plan_conversion(source, options), tmp_path / "whole")]
    target, assemble = tmp_path / "d", dataset.assemble

    def second_fails(folder, *rest):
        if validation_path(target).exists():
            raise KeyboardInterrupt
        return assemble(folder, *rest)

    monkeypatch.setattr(dataset, "assemble", second_fails)
    with pytest.raises(KeyboardInterrupt):
        run(source, target, options)
    monkeypatch.undo()
    assert not target.exists()
    again = convert(plan_conversion(source, options), target, resume=True)
    assert [digest(r.path) for r in again] == [digest(path) for path in whole]
    assert not staging_of(target).exists()


def test_a_damaged_episode_is_left_out_on_resume(tmp_path):
    about = replace(disc.ABOUT, pictures="png")
    source = disc.write(tmp_path / "s", 3, about)
    cells = lambda rows: [*rows[:100], {"bytes": b"no picture", "path": "x"}, *rows[101:]]  # noqa: E731
    disc.edit_rows(source, disc.TOP, cells)
    with pytest.raises(DataError, match=r"episode 1: .*--resume --episodes 0,2"):
        run(source, tmp_path / "d", SMALL)
    result = run(source, tmp_path / "d", replace(SMALL, episodes="0,2"), resume=True)
    assert (result.episodes, result.resumed) == (2, 1)


@pytest.mark.parametrize("shift", [1, -2])
def test_shifted_actions_mend_a_recording_that_is_off(tmp_path, shift):
    wrong = disc.write(tmp_path / "s", disc.with_actions(lambda a: np.roll(a, -shift, axis=0)))
    made = run(wrong, tmp_path / "d", replace(PLAIN, shift=shift)).path
    truth, mended = disc.play(0), open_dataset(made).rows(0)
    count = disc.TICKS - abs(shift)
    first = max(shift, 0)
    assert np.array_equal(mended.states, truth.states[first : first + count])
    assert np.array_equal(mended.actions, truth.actions[first : first + count])
    assert find(examine(wrong, CheckOptions(FeatureMap()))[0])  # control: it was off
    assert find(examine(made, CheckOptions(FeatureMap()))[0]) == []


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"hz": 20.0}, UsageError, "at most --hz 10"),
        ({"size_hw": (19, 24)}, UsageError, "--size 24x18, or --lossless"),
        ({"size_hw": (8, 8)}, UsageError, "at least 16x16"),
        ({"crop": (0, 0, 40, 32)}, UsageError, "outside of the 32x32 frames"),
        ({"episodes": "2:9"}, UsageError, "inside of 0:4"),
        ({"episodes": "one"}, UsageError, "for example 0:50,60"),
        ({"episodes": "1", "hold_out": 0.1}, UsageError, "at least two episodes"),
        ({"features": FeatureMap(action="actoin")}, UsageError, "did you mean 'action'?"),
    ],
)
def test_unusable_options_are_refused_before_work(source, tmp_path, options, error, says):
    with pytest.raises(error) as caught:
        plan_conversion(source, replace(PLAIN, **options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConversionOptions(FeatureMap(), hold_out=1.0),
        lambda: ConversionOptions(FeatureMap(), hz=0.0),
        lambda: ConversionOptions(FeatureMap(), hz=float("nan")),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(UsageError, match="expected"):
        make()


def test_targets_in_use_are_refused(source, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("keep me")
    with pytest.raises(StorageError, match="never overwritten"):
        run(source, tmp_path / "d", SMALL)
    held_out = validation_path(tmp_path / "e")
    shutil.copytree(tmp_path / "d", held_out)
    with pytest.raises(StorageError, match="e-val already exists"):
        run(source, tmp_path / "e", replace(SMALL, hold_out=0.5))
    assert sorted(os.listdir(tmp_path)) == ["d", "e-val"]


def test_resume_with_other_settings_or_of_nothing_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        run(source, tmp_path / "d", SMALL, resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "d", SMALL, progress=interrupt_after(1))
    with pytest.raises(StorageError, match="--resume"):
        run(source, tmp_path / "d", SMALL)
    with pytest.raises(UsageError, match="other settings"):
        run(source, tmp_path / "d", replace(SMALL, hz=2.0), resume=True)
    assert finished(tmp_path / "d") == 1


def test_a_disk_that_is_too_small_is_refused_at_the_start(source, tmp_path, monkeypatch):
    plan = plan_conversion(source, SMALL)
    check_space(plan, tmp_path / "new" / "d")
    usage = namedtuple("usage", "total used free")(1, 1, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"0\.0 GB free"):
        check_space(plan, tmp_path / "new" / "d")


def test_episodes_that_cannot_be_read_are_named_with_the_line_to_type(tmp_path):
    source = disc.write(tmp_path / "s")
    disc.edit_rows(source, "action", lambda rows: [*rows[:120], [np.nan, 0], *rows[121:]])
    with pytest.raises(DataError, match=r"episode 1: .*leave out with --episodes 0,2") as caught:
        plan_conversion(source, PLAIN)
    assert isinstance(caught.value, JetsightError)
