"""LeRobot datasets as people have them: both layouts, gaps, missing files, codecs, odd names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets.lerobot_writer import (
    SIZE_HW,
    TOP,
    WRIST,
    ToyRecording,
    camera,
    number_of,
    png,
    vector,
    write_v2,
    write_v3,
)

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError, UsageError

WRITERS = {"v2": write_v2, "v3": write_v3}
Writer = Callable[[Path, ToyRecording], Path]


def numbers(path: Path, episode: int, features: FeatureMap | None = None) -> list[int]:
    """Numbers of the frames that an episode is read with."""
    return [number_of(frame) for frame in open_dataset(path, features).frames(episode)]


@pytest.mark.parametrize("layout", WRITERS)
def test_rows_and_frames_of_each_episode(layout: str, tmp_path: Path) -> None:
    data = open_dataset(WRITERS[layout](tmp_path / "d", ToyRecording()))
    data.verify()
    assert (data.format, data.fps, data.robot) == (f"lerobot-{layout}", 10.0, "toy")
    assert (data.action_names, data.state_names) == (["x", "y"], ["sx", "sy"])
    assert data.episode_lengths == [8, 6]
    second = data.episode(1)
    assert second.actions[:, 0].tolist() == [100 + t for t in range(6)]
    assert second.timestamps_s == pytest.approx(np.arange(6) / 10)
    first = 8 if layout == "v3" else 0  # a video of its own, or behind the first episode
    assert [number_of(frame) for frame in second.frames] == list(range(first, first + 6))
    assert data.notes == ()


@pytest.mark.parametrize("layout", WRITERS)
def test_numbers_with_gaps_and_episodes_of_one_frame(layout: str, tmp_path: Path) -> None:
    recording = ToyRecording(lengths=(5, 1, 3), numbers=(0, 4, 7))
    data = open_dataset(WRITERS[layout](tmp_path / "d", recording))
    data.verify()
    assert data.episode_numbers == [0, 4, 7]
    assert [len(data.episode(i).frames) for i in range(3)] == [5, 1, 3]
    assert data.episode(2).actions[0, 0] == 200
    with pytest.raises(UsageError, match=r"no episode 4; choose one of 0\.\.2, .* 0, 4, 7"):
        data.rows(4)


def test_several_files_of_several_episodes(tmp_path: Path) -> None:
    recording = ToyRecording(lengths=(4, 3, 5, 2), files=(0, 0, 1, 1))
    data = open_dataset(write_v3(tmp_path / "d", recording))
    data.verify()
    assert [number_of(frame) for frame in data.frames(3)] == [5, 6]  # of the second file
    assert data.rows(3).actions[:, 0].tolist() == [300, 301]


def remove_rows(folder: Path) -> None:
    next(folder.glob("data/*/*1.parquet")).unlink()


def remove_video(folder: Path) -> None:
    next(folder.glob("videos/**/*1.mp4")).unlink()


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("remove", [remove_rows, remove_video])
def test_episodes_without_files_are_left_out_and_said(
    layout: str, remove: Callable[[Path], None], tmp_path: Path
) -> None:
    recording = ToyRecording(lengths=(4, 3, 5), files=(0, 1, 2))
    folder = WRITERS[layout](tmp_path / "d", recording)
    remove(folder)
    data = open_dataset(folder)
    data.verify()
    assert data.episode_numbers == [0, 2]
    assert data.episode(1).actions[0, 0] == 200
    assert "1 of 3 episodes in meta/ have no files and are left out: 1 (" in data.notes[0]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_dataset_without_any_file_is_refused(layout: str, tmp_path: Path) -> None:
    folder = WRITERS[layout](tmp_path / "d", ToyRecording())
    shutil.rmtree(folder / "data")
    with pytest.raises(DataError, match=r"none of its 2 episodes has files; .*parquet is missing"):
        open_dataset(folder)


def rename_top(folder: Path) -> None:
    (folder / "videos").rename(folder / "video")


def swap_order(folder: Path) -> None:
    for file in list(folder.glob("videos/*/*/*.mp4")):
        outer, inner = file.parent.parent.name, file.parent.name
        target = folder / "videos" / inner / outer / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)


def shorten_key(folder: Path) -> None:
    for place in list(folder.glob(f"videos/**/{TOP}")):
        place.rename(place.with_name("top"))


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("move", [rename_top, swap_order, shorten_key])
def test_files_elsewhere_than_meta_says_are_found(
    layout: str, move: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = WRITERS[layout](tmp_path / "d", ToyRecording())
    before = open_dataset(folder).digest()
    move(folder)
    data = open_dataset(folder)
    assert number_of(next(data.frames(0))) == 0
    assert any("although meta/info.json says" in note for note in data.notes)
    assert data.digest() != before  # their place is part of it, and so is their content
    (folder / "notes.txt").write_text("no recording")
    assert open_dataset(folder).digest() == data.digest()


def test_two_files_that_could_be_meant_are_not_guessed(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", ToyRecording())
    shutil.copytree(folder / "videos", folder / "more")
    (folder / "videos").rename(folder / "video")
    with pytest.raises(DataError, match=r"file-000\.mp4.*No such file"):
        open_dataset(folder).verify()


CODECS = {
    "h264 with B-frames": ("libx264", {"g": "12", "bf": "3"}, "yuv420p"),
    "hevc": ("libx265", {"x265-params": "log-level=none"}, "yuv420p"),
    "ten bits": ("libx265", {"x265-params": "log-level=none"}, "yuv420p10le"),
    "av1": ("libsvtav1", {"g": "6", "crf": "10", "preset": "12"}, "yuv420p"),
    "vp9": ("libvpx-vp9", {"g": "7", "crf": "8", "deadline": "realtime"}, "yuv420p"),
}


@pytest.mark.parametrize("name", CODECS)
def test_any_codec(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    codec, options, pixels = CODECS[name]
    recording = ToyRecording(lengths=(13, 9), codec=(codec, options), pixels=pixels)
    folder = write_v3(tmp_path / "d", recording)
    assert numbers(folder, 1) == list(range(13, 22))
    assert numbers(folder, 0) == list(range(13))
    capfd.readouterr()  # encoders write about themselves


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("apart", [False, True])
def test_pictures_in_rows_or_beside_them(layout: str, apart: bool, tmp_path: Path) -> None:
    def embed(columns: dict[str, Any]) -> None:
        cells = []
        for row, episode in zip(columns["frame_index"], columns["episode_index"], strict=True):
            path = f"images/{TOP}/episode_{episode:06d}/frame_{row:06d}.png"
            (tmp_path / "d" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "d" / path).write_bytes(png(row))
            cells.append({"bytes": None if apart else png(row), "path": path})
        columns[TOP] = cells

    recording = ToyRecording(lengths=(4, 3), cameras={TOP: camera(dtype="image")}, rows=embed)
    data = open_dataset(WRITERS[layout](tmp_path / "d", recording))
    shutil.rmtree(tmp_path / "d" / "videos")
    data.verify()
    assert [number_of(frame) for frame in data.frames(1)] == [0, 1, 2]
    if apart:
        next((tmp_path / "d").glob("images/**/frame_000001.png")).unlink()
        with pytest.raises(DataError, match="no embedded picture in row 1"):
            list(data.frames(0))


AXES: dict[str, tuple[list[int], Any]] = {
    "null names, channels first": ([3, *SIZE_HW], None),
    "null names, channels last": ([*SIZE_HW, 3], None),
    "colours named": ([3, *SIZE_HW], ["rgb", "height", "width"]),
    "short names": ([3, *SIZE_HW], ["c", "h", "w"]),
    "width first": ([SIZE_HW[1], SIZE_HW[0], 3], ["width", "height", "channels"]),
    "names against the shape": ([3, *SIZE_HW], ["height", "width", "channels"]),
    "names of nothing": ([*SIZE_HW, 3], ["a", "b", "c"]),
    "four channels": ([*SIZE_HW, 4], None),
}


@pytest.mark.parametrize("name", AXES)
def test_axes_of_a_frame_by_name_and_shape(name: str, tmp_path: Path) -> None:
    shape, names = AXES[name]
    recording = ToyRecording(lengths=(2,), cameras={TOP: camera(shape=shape, names=names)})
    data = open_dataset(write_v3(tmp_path / "d", recording))
    assert (data.height, data.width) == SIZE_HW
    assert data.episode(0).frames.shape == (2, *SIZE_HW, 3)


@pytest.mark.parametrize("shape", [[64, 96], [64, 96, 7], [0, 96, 3], "64x96", None])
def test_a_shape_that_is_no_frame_is_refused(shape: Any, tmp_path: Path) -> None:
    recording = ToyRecording(lengths=(2,), cameras={TOP: camera(shape=shape)})
    with pytest.raises(DataError, match=r"info\.json: camera .* expected \[height, width, 3\]"):
        open_dataset(write_v3(tmp_path / "d", recording))


def test_an_odd_camera_beside_a_good_one_is_only_said(tmp_path: Path) -> None:
    cameras = {TOP: camera(), WRIST: camera(shape=[7])}
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(2,), cameras=cameras))
    data = open_dataset(folder)
    assert data.camera_keys == (TOP,)
    assert "not used" in data.notes[0]
    assert WRIST in data.notes[0]
    with pytest.raises(DataError, match="shape"):
        open_dataset(folder, FeatureMap(cameras=(WRIST,)))


ONE = [*SIZE_HW, 1]
DEPTH: dict[str, tuple[str, dict[str, Any]]] = {
    "flag in info": ("observation.images.far", {"info": {"is_depth_map": True}}),
    "flag of the video": ("observation.images.far", {"info": {"video.is_depth_map": True}}),
    "flag of v2.0": ("observation.images.far", {"video_info": {"video.is_depth_map": True}}),
    "flag of the feature": ("observation.images.far", {"is_depth_map": True}),
    "own key, flag denies": (
        "observation.depths.top",
        {"shape": [1, *SIZE_HW], "names": None, "info": {"video.is_depth_map": False}},
    ),
    "word in the key": ("observation.images.wrist_depth", {}),
    "pixels": ("observation.images.far", {"info": {"video.pix_fmt": "gray12le"}}),
    "one channel": ("observation.images.far", {"shape": ONE}),
}


@pytest.mark.parametrize("name", DEPTH)
def test_depth_is_kept_apart(name: str, tmp_path: Path) -> None:
    key, changes = DEPTH[name]
    cameras = {TOP: camera(), key: camera(**changes)}
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(3,), cameras=cameras))
    data = open_dataset(folder)
    assert data.camera_keys == (TOP,)
    assert {each.key: each.kind for each in data.cameras} == {TOP: "colour", key: "depth"}
    with pytest.raises(UsageError, match=f"is a depth map; choose one of: {TOP}"):
        open_dataset(folder, FeatureMap(cameras=(key,)))


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("observation.images.indepth", {}),  # the word inside another
        ("observation.images.grey", {"shape": ONE, "info": {"video.is_depth_map": False}}),
    ],
)
def test_what_is_no_depth(key: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(2,), cameras={key: camera(**changes)}))
    assert open_dataset(folder).camera_keys == (key,)


NAMES: dict[str, tuple[Any, list[str]]] = {
    "list": (["x", "y"], ["x", "y"]),
    "nested": ([["x", "y"]], ["x", "y"]),
    "places": ({"y": 1, "x": 0}, ["x", "y"]),
    "places, other order": ({"x": 1, "y": 0}, ["y", "x"]),
    "motors": ({"motors": ["x", "y"]}, ["x", "y"]),
    "groups": ({"left": ["x"], "right": ["y"]}, ["x", "y"]),
    "none": (None, ["action_0", "action_1"]),
    "too few": (["x"], ["action_0", "action_1"]),
    "repeated": (["x", "x"], ["action_0", "action_1"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_as_converters_write_them(name: str, tmp_path: Path) -> None:
    names, expected = NAMES[name]
    recording = ToyRecording(lengths=(2,), actions={"action": vector(2, names)})
    data = open_dataset(write_v3(tmp_path / "d", recording))
    assert data.action_names == expected
    assert any("no names" in note for note in data.notes) == (expected[0] == "action_0")


@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_actions_of_other_types(kind: str, tmp_path: Path) -> None:
    def cast(columns: dict[str, Any]) -> None:
        columns["action"] = [np.asarray(row, kind).tolist() for row in columns["action"]]

    recording = ToyRecording(lengths=(3,), actions={"action": vector(2, dtype=kind)}, rows=cast)
    actions = open_dataset(write_v3(tmp_path / "d", recording)).rows(0).actions
    assert actions.dtype == np.float32
    assert actions.tolist() == [[0, 0], [1, -1], [2, -2]]


def test_other_version_than_layout_is_said_and_read(tmp_path: Path) -> None:
    recording = ToyRecording(info=lambda info: info.update(codebase_version="v2.1"))
    data = open_dataset(write_v3(tmp_path / "d", recording))
    assert data.format == "lerobot-v3"
    assert any("says v2.1, but the files are laid out as v3" in note for note in data.notes)


@pytest.mark.parametrize("gone", ["codebase_version", "total_episodes", "chunks_size", "data_path"])
@pytest.mark.parametrize("layout", WRITERS)
def test_fields_that_converters_leave_out(layout: str, gone: str, tmp_path: Path) -> None:
    recording = ToyRecording(info=lambda info: info.pop(gone))
    assert len(open_dataset(WRITERS[layout](tmp_path / "d", recording)).episode(1).frames) == 6


def test_other_number_of_episodes_than_listed_is_said(tmp_path: Path) -> None:
    recording = ToyRecording(info=lambda info: info.update(total_episodes=99))
    data = open_dataset(write_v2(tmp_path / "d", recording))
    assert "meta/info.json says 99 episodes, but 2 are listed" in data.notes


LINES = {
    "no json": ("{", "line 1"),
    "no length": ('{"episode_index": 0}', "length"),
    "negative": ('{"episode_index": -1, "length": 3}', "episode -1"),
    "empty episode": ('{"episode_index": 0, "length": 0}', "0 frames"),
    "twice": ('{"episode_index": 0, "length": 8}\n{"episode_index": 0, "length": 8}', "twice"),
    "nothing": ("\n", "lists no episode"),
}


@pytest.mark.parametrize("damage", LINES)
def test_damaged_list_of_episodes(damage: str, tmp_path: Path) -> None:
    text, words = LINES[damage]
    folder = write_v2(tmp_path / "d", ToyRecording())
    (folder / "meta/episodes.jsonl").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(folder)
    assert str(folder) in str(caught.value)


def test_several_cameras_read_side_by_side_keep_common_episodes(tmp_path: Path) -> None:
    recording = ToyRecording(lengths=(3, 2, 4), cameras={TOP: camera(), WRIST: camera()})
    folder = write_v2(tmp_path / "d", recording)
    next(folder.glob(f"videos/*/{WRIST}/*1.mp4")).unlink()
    next(folder.glob(f"videos/*/{TOP}/*0.mp4")).unlink()
    data = open_dataset(folder, FeatureMap(cameras=("wrist", "top")))
    data.verify()
    assert data.camera_keys == (WRIST, TOP)
    assert data.episode_numbers == [2]
    assert data.episode(0).frames.shape == (4, 2, *SIZE_HW, 3)
    assert data.rows(0).actions[0, 0] == 200
    assert len([note for note in data.notes if "left out" in note]) == 2
