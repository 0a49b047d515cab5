"""Reading LeRobot v3 datasets: any camera, exact frames, and one line for everything unreadable."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.paths import RECORDED

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.datasets.pictures import decode_picture
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError, JetsightError, MissingDependency, UsageError

TOP = "observation.images.top"
WRIST = "observation.images.wrist"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{TOP}/chunk-000/file-000.mp4"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the recorded dataset that a test may damage."""
    return Path(shutil.copytree(RECORDED, tmp_path / "pusht"))


def edit_info(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def all_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([p.to_ndarray(format="rgb24") for p in container.decode(video=0)])


def test_recorded_dataset_describes_itself():
    data = LeRobotDataset.open(RECORDED)
    assert (data.fps, data.camera_key, data.height, data.width) == (10.0, TOP, 96, 96)
    assert data.action_names == ["target_x", "target_y"]
    assert data.state_names == ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
    assert data.episode_lengths == [200] * len(data)


def test_episode_starts_at_its_own_frame():
    data, whole = LeRobotDataset.open(RECORDED), all_frames(RECORDED / VIDEO)
    for index in (0, 3, len(data) - 1):
        frames = data.episode(index).frames
        assert np.array_equal(frames, whole[200 * index : 200 * (index + 1)])
        assert not np.array_equal(frames, np.roll(whole, 1, axis=0)[200 * index :][:200])


def test_streamed_frames_equal_the_whole_episode():
    data = LeRobotDataset.open(RECORDED)
    streamed = list(data.frames(2))
    assert np.array_equal(np.stack(streamed), data.episode(2).frames)
    assert len({id(frame.base) for frame in streamed}) == len(streamed)  # none is reused


def test_rows_belong_to_their_frames():
    """The blue agent of the picture is where the state says: frames and rows are not shifted."""
    episode = LeRobotDataset.open(RECORDED).episode(5)
    pixels = episode.frames.astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 80) & (pixels[..., 1] < 170)
    seen = np.stack([np.argwhere(mask).mean(axis=0)[::-1] for mask in blue]) * 512 / 96

    def miss(states: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(seen[: len(states)] - states[:, :2], axis=1)))

    assert miss(episode.states) < 4.0
    assert miss(episode.states[2:]) > 8.0  # control: rows two ticks late


def test_rows_do_not_need_the_video(copy):
    shutil.rmtree(copy / "videos")
    data = LeRobotDataset.open(copy)
    assert data.rows(1).actions.shape == (200, 2)
    with pytest.raises(DataError, match=r"file-000\.mp4"):
        next(data.frames(1))


def with_second_camera(folder: Path) -> Path:
    """The recorded dataset with a second camera that shows the episodes of the first backwards."""
    other = f"videos/{WRIST}/chunk-000/file-000.mp4"
    (folder / other).parent.mkdir(parents=True)
    shutil.copy(folder / VIDEO, folder / other)
    edit_info(folder, lambda info: info["features"].update({WRIST: info["features"][TOP]}))
    spot = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")

    def add(table: pa.Table) -> pa.Table:
        for key in spot:
            values = table[f"videos/{TOP}/{key}"].to_pylist()
            table = table.append_column(f"videos/{WRIST}/{key}", pa.array(values[::-1]))
        return table

    edit_table(folder / EPISODES, add)
    return folder


def test_one_of_several_cameras_is_chosen_by_name(copy):
    folder = with_second_camera(copy)
    top, wrist = LeRobotDataset.open(folder, TOP), LeRobotDataset.open(folder, WRIST)
    assert np.array_equal(wrist.episode(0).frames, top.episode(len(top) - 1).frames)
    assert not np.array_equal(wrist.episode(0).frames, top.episode(0).frames)
    for camera in (None, "observation.images.left"):
        with pytest.raises(UsageError, match=f"choose one of: {TOP}, {WRIST}"):
            LeRobotDataset.open(folder, camera)


def png(frame_hwc_u8: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = frame_hwc_u8.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc_u8, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def with_embedded_pictures(folder: Path, frames_u8: np.ndarray) -> Path:
    """A dataset of one episode whose pictures are PNGs in the rows, without state or video."""
    length = len(frames_u8)
    edit_info(
        folder,
        lambda info: info.update(
            total_episodes=1,
            video_path=None,
            features={
                TOP: {"dtype": "image", "shape": [3, 96, 96], "names": ["channels", "h", "w"]},
                "action": {"dtype": "float32", "shape": [1], "names": None},
            },
        ),
    )
    numbers = pa.array(np.arange(length))
    rows = {"episode_index": pa.array([0] * length), "frame_index": numbers}
    rows |= {"timestamp": pa.array(np.arange(length) / 10), "action": numbers}
    rows[TOP] = pa.array([{"bytes": png(f), "path": "x.png"} for f in frames_u8])
    pq.write_table(pa.table(rows), folder / DATA)
    spans = ["length", "dataset_from_index", "dataset_to_index"]
    edit_table(
        folder / EPISODES,
        lambda t: t.slice(0, 1).drop_columns(spans).append_column("length", pa.array([length])),
    )
    return folder


def test_pictures_embedded_in_rows_are_read(copy):
    frames_u8 = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    data = LeRobotDataset.open(with_embedded_pictures(copy, frames_u8))
    episode = data.episode(0)
    assert np.array_equal(episode.frames, frames_u8)
    assert np.array_equal(episode.actions, np.arange(4, dtype=np.float32)[:, None])
    assert episode.states.shape == (4, 0)
    assert (data.action_names, data.state_names) == (["action_0"], [])


def jpeg(frame_hwc_u8: np.ndarray) -> bytes:
    context = av.CodecContext.create("mjpeg", "w")
    context.height, context.width = frame_hwc_u8.shape[:2]
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 1)
    picture = av.VideoFrame.from_ndarray(frame_hwc_u8, format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode()))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_cut_jpeg_in_a_row_is_refused_and_not_filled_with_grey(share: float, tmp_path: Path):
    """A whole one is the negative control."""
    whole = jpeg(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    data, where = whole[: int(len(whole) * share)], tmp_path / "rows.parquet row 0"
    if share == 1.0:
        assert decode_picture(data, where).shape == (96, 96, 3)
        return
    with pytest.raises(DataError, match=r"cannot decode .*rows\.parquet row 0"):
        decode_picture(data, where)


def test_frames_between_distant_key_frames_are_exact(tmp_path):
    """Datasets of others have B-frames and one key frame in many; seeking must not drift."""
    path, rng = tmp_path / "long_gop.mp4", np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "40", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(90):
            frame = np.full((48, 64, 3), 2 * t, np.uint8) + rng.integers(0, 20, 3, dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(frame.astype(np.uint8), format="rgb24")
            picture.pts, picture.time_base = t, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    whole = all_frames(path)
    index = VideoIndex.read(path)
    for first in (0, 1, 39, 57):
        frames = np.stack(list(index.frames(first, 20)))
        assert np.array_equal(frames, whole[first : first + 20])


def test_digest_covers_every_recorded_byte_and_nothing_else(copy):
    before = LeRobotDataset.open(copy).digest()
    assert before == LeRobotDataset.open(RECORDED).digest()
    (copy / "README.md").write_text("other words")
    assert LeRobotDataset.open(copy).digest() == before
    for name in (VIDEO, DATA, "meta/stats.json"):
        flip_byte(copy / name)
        changed = LeRobotDataset.open(copy).digest()
        assert changed != before
        flip_byte(copy / name)
    assert LeRobotDataset.open(copy).digest() == before
    (copy / VIDEO).rename(copy / "videos/other.mp4")
    assert LeRobotDataset.open(copy).digest() != before


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def truncate_behind_index(path: Path) -> None:
    """Cut a file whose index comes first: it opens, and then its frames end early."""
    with (
        av.open(str(path)) as source,
        av.open(f"{path}.mp4", "w", options={"movflags": "faststart"}) as target,
    ):
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    Path(f"{path}.mp4").replace(path)
    truncate(path, 0.8)


def set_info(**changes) -> Callable[[Path], None]:
    return lambda folder: edit_info(folder, lambda info: info.update(changes))


def set_shape(*shape: int) -> Callable[[Path], None]:
    def change(info: dict) -> None:
        info["features"][TOP]["shape"] = list(shape)

    return lambda folder: edit_info(folder, change)


def drop_features(info: dict) -> None:
    del info["features"][TOP]


def drop_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, table.num_rows - 1)


def spoil_action(table: pa.Table) -> pa.Table:
    values = np.full((table.num_rows, 2), np.nan, np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    return table.set_column(table.column_names.index("action"), "action", column)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no dataset": (shutil.rmtree, r"info\.json"),
    "info is no json": (lambda f: (f / "meta/info.json").write_text("{"), r"info\.json"),
    "info is no object": (lambda f: (f / "meta/info.json").write_text("[]"), r"info\.json"),
    "info lacks fps": (lambda f: edit_info(f, lambda i: i.pop("fps")), "fps"),
    "fps is zero": (set_info(fps=0), "fps 0"),
    "fps is other": (set_info(fps=30), "30 frames per second"),
    "older version": (set_info(codebase_version="v1.6"), "convert it with LeRobot"),
    "newer version": (set_info(codebase_version="v4.0"), "'v4.0', expected 'v3.0'"),
    "path leaves the folder": (set_info(data_path="../{file_index}.parquet"), "leaves the dataset"),
    "path names nothing": (set_info(video_path="{nope}.mp4"), "unusable path"),
    "no camera": (lambda f: edit_info(f, drop_features), "no colour camera"),
    "other frame size": (set_shape(48, 96, 3), "96x96 px"),
    "odd frame size": (set_shape(96, 96), "height, width, 3"),
    "no episode table": (lambda f: shutil.rmtree(f / "meta/episodes"), "no parquet file"),
    "episode table cut": (lambda f: truncate(f / EPISODES), r"file-000\.parquet"),
    "episode table lacks a column": (
        lambda f: edit_table(f / EPISODES, lambda t: t.drop_columns(["length"])),
        "no column 'length'",
    ),
    "no rows": (lambda f: (f / DATA).unlink(), "data/chunk-000"),
    "rows cut": (lambda f: truncate(f / DATA), "data/chunk-000"),
    "rows missing": (lambda f: edit_table(f / DATA, drop_rows), "199 rows of episode 15"),
    "action not a number": (lambda f: edit_table(f / DATA, spoil_action), "'action'"),
    "no video": (lambda f: (f / VIDEO).unlink(), r"file-000\.mp4"),
    "video cut": (lambda f: truncate(f / VIDEO), r"file-000\.mp4"),
    "video cut behind its index": (lambda f: truncate_behind_index(f / VIDEO), "truncated"),
    "video is no video": (lambda f: (f / VIDEO).write_bytes(b"\0" * 5000), "cannot decode"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_unreadable_dataset_is_one_line_that_names_the_file(copy, damage):
    spoil, message = DAMAGE[damage]
    spoil(copy)
    with pytest.raises(DataError, match=message) as caught:
        LeRobotDataset.open(copy).episode(15)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_undamaged_copy_is_read(copy):
    assert LeRobotDataset.open(copy).episode(15).frames.shape == (200, 96, 96, 3)


@pytest.mark.parametrize("index", [-1, 16])
def test_episode_that_is_not_there(index):
    with pytest.raises(UsageError, match=r"0\.\.15"):
        LeRobotDataset.open(RECORDED).rows(index)


@pytest.mark.parametrize(("module", "use"), [("av", "frames"), ("pyarrow.parquet", "open")])
def test_missing_library_names_its_extra(monkeypatch, module, use):
    data = LeRobotDataset.open(RECORDED)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"jetsight\[camera\]") as caught:
        next(data.frames(0)) if use == "frames" else LeRobotDataset.open(RECORDED)
    assert isinstance(caught.value, JetsightError)
