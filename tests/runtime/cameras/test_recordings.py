"""Video files and image folders: every frame at its time, and what is wrong with a damaged one."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.runtime.camera_factory import REQUEST, encoded, number, picture, readings, video

from jetsight.cameras import Reading
from jetsight.cameras.images import ImageFolderSource, natural_key
from jetsight.cameras.video import VideoSource
from jetsight.errors import CameraError


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
