"""Video files and image folders: every frame at its time, and what is wrong with a damaged one."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.picture_factory import arrow, displayed, film, turn
from helpers.runtime.camera_factory import REQUEST, encoded, number, picture, readings, video
from PIL import Image

from jetsight.cameras import Reading, SourceFormat
from jetsight.cameras.images import ImageFolderSource, natural_key, stamps_of
from jetsight.cameras.video import VideoSource
from jetsight.datasets.picture import PictureFormat
from jetsight.errors import CameraError, DataError


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264")])
def test_video_gives_every_frame_at_its_time(tmp_path: Path, name: str, codec: str) -> None:
    source = VideoSource(video(tmp_path / name, codec=codec))
    info = source.start(REQUEST)
    assert (info.height_px, info.width_px, info.fps, info.physical) == (32, 48, 10.0, False)
    found = readings(VideoSource(tmp_path / name))
    source.close()
    assert [number(r.image_hwc_u8) for r in found] == list(range(40))
    start = found[0].media_ns
    assert [round((r.media_ns - start) / 1e8, 3) for r in found] == list(range(40))
    assert all(r.actions is None and r.plan is None for r in found)


def test_truncated_video_delivers_what_is_there_and_says_so(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    source = VideoSource(path)
    source.start(REQUEST)
    found: list[Reading] = []
    with pytest.raises(CameraError, match=r"ends after \d+ of about 40 frames") as caught:
        found.extend(iter(source.read, None))
    source.close()
    assert 5 < sum(reading.image_hwc_u8 is not None for reading in found) < 40
    assert f"after {len(found)} of" in str(caught.value)


def test_video_without_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(video(tmp_path / "whole.mp4").read_bytes()[:500])
    with pytest.raises(CameraError, match=r"cannot read .*cut\.mp4 as a video"):
        VideoSource(path).start(REQUEST)


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing to see")
    with pytest.raises(CameraError, match="as a video"):
        VideoSource(path).start(REQUEST)


def test_video_of_sound_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(CameraError, match="has no video stream"):
        VideoSource(path).start(REQUEST)


def test_damaged_packet_is_one_frame_that_could_not_be_decoded(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", codec="mjpeg")
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", bytes(data))]
    assert len(starts) == 40
    length = starts[21] - starts[20]
    data[starts[20] + length // 2 : starts[20] + length - 40] = bytes(length - length // 2 - 40)
    path.write_bytes(bytes(data))
    found = readings(VideoSource(path))
    assert [i for i, reading in enumerate(found) if reading.image_hwc_u8 is None] == [20]
    assert len(found) == 40


@pytest.mark.parametrize(("codec", "suffix"), [("png", "png"), ("mjpeg", "jpg")])
def test_images_come_in_natural_order_one_per_tick(tmp_path: Path, codec: str, suffix: str) -> None:
    for i in range(12):
        (tmp_path / f"frame{i}.{suffix}").write_bytes(encoded(picture(i), codec))
    (tmp_path / "notes.txt").write_text("ignored")
    found = readings(ImageFolderSource(tmp_path))
    assert [number(r.image_hwc_u8) for r in found] == list(range(12))
    assert [r.media_ns for r in found] == [i * 100_000_000 for i in range(12)]


def test_natural_order() -> None:
    names = ["b1.png", "a10.png", "a2.png", "A1.png", "a02.png"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [path.name for path in ordered] == ["A1.png", "a02.png", "a2.png", "a10.png", "b1.png"]


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_unreadable_image_takes_its_tick_and_nothing_else(
    tmp_path: Path, codec: str, share: float
) -> None:
    rng = np.random.default_rng(0)
    data = encoded(rng.integers(0, 255, (32, 48, 3), np.uint8), codec)
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(data[: int(len(data) * (share if i == 1 else 1))])
    found = readings(ImageFolderSource(tmp_path))
    assert [r.image_hwc_u8 is None for r in found] == [False, True, False]
    assert found[2].media_ns == 200_000_000


def test_folder_without_images_or_with_a_broken_first_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no images"):
        ImageFolderSource(tmp_path).start(REQUEST)
    (tmp_path / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(CameraError, match=r"cannot read .*0\.png"):
        ImageFolderSource(tmp_path).start(REQUEST)


def test_rotated_video_is_upright_and_has_the_upright_size(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [arrow()] * 3)
    stored = [reading.image_hwc_u8 for reading in readings(VideoSource(path))]
    turn(path, 0, 1, -1, 0)
    source = VideoSource(path)
    info = source.start(REQUEST)
    source.close()
    assert (info.height_px, info.width_px) == (48, 32)
    found = [reading.image_hwc_u8 for reading in readings(VideoSource(path))]
    for before, after in zip(stored, found, strict=True):
        assert np.array_equal(after, displayed(before, 0, 1, -1, 0))
        assert not np.array_equal(after, before.swapaxes(0, 1))


@pytest.mark.parametrize(("form", "codec"), [("h264", "libx264"), ("mjpeg", "mjpeg")])
def test_stream_without_time_stamps_needs_a_rate(tmp_path: Path, form: str, codec: str) -> None:
    path = film(tmp_path / "raw", [picture(i) for i in range(20)], codec, form=form)
    with pytest.raises(CameraError, match=r"raw stores no time stamps.*e\.g\. --fps 30"):
        VideoSource(path).start(REQUEST)
    source = VideoSource(path, SourceFormat(fps=20))
    assert source.start(REQUEST).fps == 20
    source.close()
    found = readings(source)
    assert [number(r.image_hwc_u8) for r in found] == list(range(20))
    assert [r.media_ns for r in found] == [i * 50_000_000 for i in range(20)]


def test_declared_rate_replaces_stamps(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", count=10, fps=10)
    found = readings(VideoSource(path, SourceFormat(fps=40)))
    assert [r.media_ns for r in found] == [i * 25_000_000 for i in range(10)]
    assert readings(VideoSource(path))[1].media_ns == 100_000_000


def test_video_without_an_intact_picture_is_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", count=4, codec="mjpeg")
    data = re.sub(rb"\xff\xd8\xff[\s\S]{300}", bytes(303), path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(CameraError, match=r"holds no intact picture \(4 could not be decoded\)"):
        VideoSource(path).start(REQUEST)


def images(folder: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(encoded(picture(i), "png"))
    return folder


def test_hidden_files_of_macos_are_ignored(tmp_path: Path) -> None:
    images(tmp_path, ["0", "1"])
    for name in ("0", "1"):
        (tmp_path / f"._{name}.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    assert [number(r.image_hwc_u8) for r in readings(ImageFolderSource(tmp_path))] == [0, 1]


@pytest.mark.parametrize(
    "names",
    [
        ["1700000000.900", "1700000001.000", "1700000001.100", "1700000001.400"],
        ["cam_1700000000900", "cam_1700000001000", "cam_1700000001100", "cam_1700000001400"],
        ["1700000000900000", "1700000001000000", "1700000001100000", "1700000001400000"],
        [f"1700000000_{ns:09}" for ns in (0, 100_000_000, 200_000_000, 500_000_000)],
        [f"17000000{cs}00000000" for cs in ("009", "010", "011", "014")],
    ],
    ids=["s", "ms", "us", "ns", "19 digits"],
)
def test_names_that_are_time_stamps_give_the_times(tmp_path: Path, names: list[str]) -> None:
    source = ImageFolderSource(images(tmp_path, names))
    info = source.start(REQUEST)
    assert info.fps == pytest.approx(10)
    assert info.notes == ("times taken from the names (10 Hz in the middle)",)
    assert [r.media_ns // 1_000_000 for r in readings(source)] == [0, 100, 200, 500]
    declared = readings(ImageFolderSource(tmp_path, SourceFormat(fps=20)))
    assert [r.media_ns // 1_000_000 for r in declared] == [0, 50, 100, 150]


@pytest.mark.parametrize(
    "names",
    [
        ["0000000001", "0000000002"],  # numbers, padded
        ["1700000000.1", "frame7"],
        ["9700000000", "9700000001"],  # the year 2277
        ["1700000000.1", "1700000000100"],
        ["a1700000000", "b1700000001"],
        ["20260131120000", "20260131120001"],
    ],
)
def test_names_that_are_not_clearly_time_stamps_are_numbers(names: list[str]) -> None:
    assert stamps_of(names) is None
    assert stamps_of(["1700000000.1", "1700000000.25"]) is not None


def test_images_without_a_rate_say_so(tmp_path: Path) -> None:
    source = ImageFolderSource(images(tmp_path, ["0", "1"]))
    assert source.start(REQUEST).notes == ("images have no rate: taken as the model's 10 Hz",)
    source = ImageFolderSource(tmp_path, SourceFormat(fps=10))
    assert source.start(REQUEST).notes == ()


def test_fractions_of_different_length_that_are_out_of_order_are_refused(tmp_path: Path) -> None:
    images(tmp_path, ["1700000000.95", "1700000000.100", "1700000000.105"])
    with pytest.raises(CameraError, match=r"1700000000\.100\.png is not later.* --fps N"):
        ImageFolderSource(tmp_path).start(REQUEST)
    assert len(readings(ImageFolderSource(tmp_path, SourceFormat(fps=10)))) == 3


def test_folder_whose_first_image_has_no_meaning_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        file = tmp_path / f"{i}.png"
        Image.fromarray(np.full((32, 48), 4000, np.uint16)).save(file)
    with pytest.raises(DataError, match=r"up to 4000 .*give --bits 12"):
        ImageFolderSource(tmp_path).start(REQUEST)
    found = readings(ImageFolderSource(tmp_path, SourceFormat(picture=PictureFormat(bits=12))))
    assert [r.image_hwc_u8.max() for r in found] == [249, 249]
