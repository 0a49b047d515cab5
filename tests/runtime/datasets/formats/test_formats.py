"""Each format gives the frames, actions and state that were written, through one interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import recordings
from helpers.datasets.recordings import scene

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError, JetsightError, UsageError

Made = Callable[[Path], tuple[RecordedDataset, int]]


def _tub(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.tub(folder / "tub")), 12


def _rlds(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.rlds(folder / "rlds"), FeatureMap(rate_hz=5)), 9


def _robomimic(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.robomimic(folder / "demo.hdf5")), 9


def _aloha(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.aloha(folder / "aloha"), FeatureMap(rate_hz=50)), 9


def _aloha_jpeg(folder: Path) -> tuple[RecordedDataset, int]:
    made = recordings.aloha(folder / "aloha", encoded=True)
    return open_dataset(made, FeatureMap(rate_hz=50)), 9


def _worldmodel(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.worldmodel(folder / "pusht.h5")), 9


def _videos(folder: Path) -> tuple[RecordedDataset, int]:
    return open_dataset(recordings.video_table(folder / "runs")), 9


def _bag(folder: Path) -> tuple[RecordedDataset, int]:
    made = recordings.ros2_bag(folder / "bag")
    return open_dataset(made, FeatureMap(action="/cmd_vel:linear.x,/cmd_vel:angular.z")), 12


def _mcap_bag(folder: Path) -> tuple[RecordedDataset, int]:
    made = recordings.ros2_bag(folder / "bag", storage="mcap")
    return open_dataset(made, FeatureMap(action="/cmd_vel:linear.x,/cmd_vel:angular.z")), 12


def _mcap_file(folder: Path) -> tuple[RecordedDataset, int]:
    file = next(recordings.ros2_bag(folder / "bag", storage="mcap").glob("*.mcap"))
    return open_dataset(file, FeatureMap(action="/cmd_vel:linear.x,/cmd_vel:angular.z")), 12


ALL = (_tub, _rlds, _robomimic, _aloha, _aloha_jpeg, _worldmodel, _videos, _bag, _mcap_bag)
ALL += (_mcap_file,)


@pytest.mark.parametrize("make", ALL)
def test_reads_what_was_written(make: Made, tmp_path: Path) -> None:
    dataset, ticks = make(tmp_path)
    frames, actions = scene(ticks)
    episode = dataset.episode(0)
    assert dataset.episode_lengths[0] == ticks
    np.testing.assert_allclose(episode.actions, actions, atol=1e-6)
    assert episode.frames.shape == frames.shape
    # The codecs lose little; another frame, order of channels or orientation would differ by more.
    error = np.abs(episode.frames.astype(int) - frames).mean()
    assert error < 6
    assert np.abs(episode.frames.astype(int) - np.roll(frames, 1, axis=0)).mean() > error + 1
    assert np.abs(episode.frames[..., ::-1].astype(int) - frames).mean() > error + 10
    np.testing.assert_allclose(np.diff(episode.timestamps_s), 1 / dataset.fps, rtol=1e-3)
    assert not dataset.missing.get("action")


@pytest.mark.parametrize("make", ALL)
def test_a_changed_byte_changes_the_digest(make: Made, tmp_path: Path) -> None:
    dataset, _ = make(tmp_path)
    before = dataset.digest()
    assert before == dataset.digest()
    file = max((f for f in tmp_path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert dataset.digest() != before


def test_names_and_rates_come_from_the_recording(tmp_path: Path) -> None:
    tub, _ = _tub(tmp_path / "a")
    assert (tub.action_names, tub.fps) == (["angle", "throttle"], 20.0)
    mimic, _ = _robomimic(_made(tmp_path / "b"))
    assert (mimic.fps, mimic.robot) == (20.0, "Panda")
    assert "obs/agentview_image" in mimic.camera_keys
    videos, _ = _videos(tmp_path / "c")
    assert (videos.action_names, videos.fps) == (["v", "w"], 10.0)
    rows = videos.columns(0, ["action.v"])
    np.testing.assert_allclose(rows["action.v"], scene(9)[1][:, 0], atol=1e-6)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("period_ms", [3, 0, 20_000])
def test_impossible_stamps_are_no_rate(tmp_path: Path, period_ms: int) -> None:
    made = recordings.tub(tmp_path / "tub", period_ms=period_ms)
    with pytest.raises(DataError, match=r"--map rate="):
        open_dataset(made)
    assert open_dataset(made, FeatureMap(rate_hz=20)).fps == 20
    times = open_dataset(made, FeatureMap(rate_hz=20)).rows(0).timestamps_s
    np.testing.assert_allclose(np.diff(times), 0.05)


def test_a_recording_without_any_rate_is_refused(tmp_path: Path) -> None:
    for made in (
        recordings.rlds(tmp_path / "rlds"),
        recordings.aloha(tmp_path / "aloha"),
        recordings.robomimic(tmp_path / "demo.h5", hz=None),
    ):
        with pytest.raises(DataError, match=r"declares no rate .* --map rate=10"):
            open_dataset(made)


def test_deleted_records_end_an_episode(tmp_path: Path) -> None:
    dataset = open_dataset(recordings.tub(tmp_path / "tub", deleted=[5]))
    assert dataset.episode_lengths == [5, 6]
    assert "1 of 12 records are marked deleted" in dataset.notes[0]
    # The frame after the gap is the seventh.
    np.testing.assert_allclose(dataset.rows(1).actions, scene(12)[1][6:], atol=1e-6)


def test_several_cameras_are_stacked_in_the_given_order(tmp_path: Path) -> None:
    made = recordings.video_table(tmp_path / "runs", cameras=("front", "wrist"))
    with pytest.raises(UsageError, match=r"several cameras.*front, wrist"):
        open_dataset(made)
    both = open_dataset(made, FeatureMap(cameras=("wrist", "front")))
    single = open_dataset(made, FeatureMap(cameras=("front",)))
    frame = next(both.frames(0))
    assert frame.shape == (2, *recordings.SIZE, 3)
    np.testing.assert_array_equal(frame[1], next(single.frames(0)))
    assert not np.array_equal(frame[0], frame[1])


def test_rlds_cameras_are_chosen_by_the_end_of_their_name(tmp_path: Path) -> None:
    made = recordings.rlds(tmp_path / "rlds", cameras=("image_0", "image_1"))
    with pytest.raises(UsageError, match="camera=observation/image_0"):
        open_dataset(made, FeatureMap(rate_hz=5))
    chosen = open_dataset(made, FeatureMap(cameras=("image_1",), rate_hz=5))
    assert chosen.camera_keys == ("observation/image_1",)


def test_ticks_begin_when_the_robot_was_commanded(tmp_path: Path) -> None:
    choice = FeatureMap(action="/cmd_vel:linear.x,/cmd_vel:angular.z")
    dataset = open_dataset(recordings.ros2_bag(tmp_path / "bag", command_from=4), choice)
    assert dataset.episode_lengths == [8]
    frames, actions = scene(12)
    np.testing.assert_allclose(dataset.rows(0).actions, actions[4:], atol=1e-6)
    np.testing.assert_array_equal(next(dataset.frames(0)), frames[4])


def test_a_whole_topic_is_the_action_without_a_choice(tmp_path: Path) -> None:
    dataset = open_dataset(recordings.ros2_bag(tmp_path / "bag"))
    assert dataset.action_names[0] == "linear.x"
    assert len(dataset.action_names) == 6


def test_droid_takes_the_control_input_and_refuses_videos_of_other_length(tmp_path: Path) -> None:
    dataset = open_dataset(recordings.droid(tmp_path / "good"))
    assert (dataset.fps, len(dataset.action_names), len(dataset.state_names)) == (15.0, 8, 8)
    assert dataset.camera_keys == ("12345",)
    np.testing.assert_allclose(dataset.rows(0).actions[:, 7], scene(9)[1][:, 0], atol=1e-6)
    with pytest.raises(DataError, match="11 frames for 9 ticks"):
        open_dataset(recordings.droid(tmp_path / "bad", frames_more=2))


def _truncate(file: Path, share: float = 0.5) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def _all_of(dataset: RecordedDataset) -> None:
    for index in range(len(dataset)):
        dataset.episode(index)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_file_is_one_line_and_no_traceback(
    make: Made, tmp_path: Path, share: float
) -> None:
    dataset, _ = make(tmp_path)
    file = max((f for f in tmp_path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    _truncate(file, share)
    with pytest.raises(JetsightError) as caught:
        _all_of(open_dataset(dataset.path, FeatureMap(rate_hz=10)))
    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_found_by_its_checksum(tmp_path: Path) -> None:
    made = recordings.rlds(tmp_path / "rlds")
    file = next(made.glob("*.tfrecord*"))
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="truncated or damaged at byte 0"):
        open_dataset(made, FeatureMap(rate_hz=5))


def test_rows_and_frames_of_a_table_must_agree(tmp_path: Path) -> None:
    made = recordings.video_table(tmp_path / "runs")
    table = made / "run1.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"11 rows, but .*run1.mp4 has 12 frames"):
        open_dataset(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line of distinct column names"),
        ("1,2,3\n4,5,6\n", "no line of distinct column names"),
        ("a,a\n1,2\n", "no line of distinct column names"),
        ("a,b\n1\n", "has 1 values, expected 2"),
    ],
)
def test_a_table_without_header_is_refused(tmp_path: Path, text: str, message: str) -> None:
    made = recordings.video_table(tmp_path / "runs", lengths=(9,))
    (made / "run0.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(made)


def test_words_in_a_column_of_numbers_are_refused(tmp_path: Path) -> None:
    made = recordings.video_table(tmp_path / "runs", lengths=(9,))
    lines = (made / "run0.csv").read_text().splitlines()
    lines[4] = "0.3,fast,0.1,ok"
    (made / "run0.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"run0.csv:5 has 'fast' in column 'action.v'"):
        open_dataset(made).rows(0)


def test_nan_is_refused_with_its_tick(tmp_path: Path) -> None:
    import h5py

    made = recordings.robomimic(tmp_path / "demo.hdf5")
    with h5py.File(made, "a") as file:
        file["data/demo_1/actions"][4] = np.nan
    with pytest.raises(DataError, match="episode 1 has NaN or infinity in 'actions' at tick 4"):
        open_dataset(made).rows(1)
    assert len(open_dataset(made).rows(0).actions) == 9


def test_an_episode_unlike_the_first_is_named(tmp_path: Path) -> None:
    import h5py

    made = recordings.aloha(tmp_path / "aloha")
    with h5py.File(made / "episode_1.hdf5", "a") as file:
        del file["observations/images/top"]
    with pytest.raises(DataError, match=r"episode_1.hdf5: .*'observations/images/top' missing"):
        open_dataset(made, FeatureMap(rate_hz=50))


def test_an_empty_folder_lists_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"RLDS.*donkeycar.*ROS bag.*HDF5.*CSV"):
        open_dataset(tmp_path)
