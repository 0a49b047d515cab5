"""Moments to plan from: images, recorded ticks, and what has to be assumed about the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.camera_factory import encoded
from helpers.runtime.imagine_factory import HEIGHT, WIDTH, actions_of, make_image, make_recording

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import StreamRequest
from jetsight.errors import CameraError, JetsightError, UsageError
from jetsight.plan_report.start import EpisodeTick, Resized, Slides, StartKind, StartReader, parse
from jetsight.testing import FakeClock

SPEC = StreamSpec.from_manifest(make_manifest())  # K=3, B=2
READER = StartReader(SPEC)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("data") / "ds")


def test_a_text_is_an_image_or_a_moment(tmp_path: Path) -> None:
    assert parse("a/b.PNG") == Path("a/b.PNG")
    assert parse("a/ds#3:40") == EpisodeTick(Path("a/ds"), 3, 40)
    assert parse("lerobot:ds#0:7") == EpisodeTick(Path("ds"), 0, 7)
    odd = tmp_path / "shot#1:2.png"  # a file is a file, whatever it is called
    make_image(odd)
    assert parse(str(odd)) == odd
    for text in ("film.mp4", "ds", "ds#3", "ds#x:1", "ds#1:-2", ""):
        with pytest.raises(UsageError, match=r"neither an image .* nor a tick"):
            parse(text)


def test_one_image_is_a_scene_at_rest(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.png")
    start = READER.still(str(tmp_path / "a.png"))
    assert all(np.array_equal(frame, image) for frame in start.frames_u8)
    assert len(start.frames_u8) == SPEC.history
    np.testing.assert_array_equal(start.actions, np.tile(SPEC.neutral, (6, 1)))
    assert (start.kind, start.neutral_held) == (StartKind.AT_REST, True)
    held = READER.still(str(tmp_path / "a.png"), last_action=np.array([1, 2], np.float32))
    np.testing.assert_array_equal(held.actions, np.tile([1, 2], (6, 1)))
    assert not held.neutral_held


def test_a_history_of_images_is_in_order(tmp_path: Path) -> None:
    images = [make_image(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    names = [str(tmp_path / f"{i}.png") for i in range(3)]
    start = READER.still(names[2], names[:2])
    assert all(map(np.array_equal, start.frames_u8, images))
    assert start.kind is StartKind.HISTORY
    assert not np.array_equal(start.frames_u8[0], start.frames_u8[2])
    for history in (names[:1], names):
        with pytest.raises(UsageError, match="looks back on 2 frames before --frame, 2 ticks"):
            READER.still(names[2], history)


def test_a_recorded_moment_comes_with_what_really_happened(recording: Path) -> None:
    start = READER.recorded(EpisodeTick(recording, 1, 9))
    level = [frame.mean() for frame in start.frames_u8]
    np.testing.assert_allclose(level, [90 + 5 * tick for tick in (5, 7, 9)], atol=3)
    np.testing.assert_array_equal(start.actions, actions_of(1, 12)[3:9])
    assert start.tick == 9
    assert start.kind is StartKind.RECORDED
    assert len(READER.recorded(EpisodeTick(recording, 1, 4)).actions) == 4  # there were no more


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((1, 3), "has 3 ticks before it, but the model looks back on 4"),
        ((1, 12), r"has no tick 12 in episode 1; choose one of 0\.\.11"),
        ((9, 5), r"has no episode 9; choose one of 0\.\.2"),
    ],
)
def test_a_moment_that_is_not_there(recording: Path, place: tuple[int, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        READER.recorded(EpisodeTick(recording, *place))


def test_a_recording_of_another_rate_or_robot_is_no_start(recording: Path) -> None:
    robot = make_manifest()
    faster = StreamSpec.from_manifest(make_manifest(timing=type(robot.timing)(20.0, 2)))
    with pytest.raises(CameraError, match="recorded at 10 Hz, but the model steps at 20 Hz"):
        StartReader(faster).recorded(EpisodeTick(recording, 0, 9))
    three = dataclasses.replace(SPEC, neutral=np.zeros(3, np.float32), action_names=())
    with pytest.raises(CameraError, match=r"but the model takes \[.*, .*, .*\] in this order"):
        StartReader(three).recorded(EpisodeTick(recording, 0, 9))


def test_another_size_is_refused_or_resized_as_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "big.png")
    image = make_image(tmp_path / "big.png", height=2 * HEIGHT, width=2 * WIDTH)
    with pytest.raises(CameraError, match=r"24x16 px, but the model takes 12x8 .*--resize"):
        READER.frame(path)
    reader = StartReader(SPEC, resize=True)
    small = reader.frame(path)
    assert small.shape == (HEIGHT, WIDTH, 3)
    averaged = image.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - averaged).mean() < 4  # swscale rounds, and goes through YUV
    assert np.abs(small - image[:HEIGHT, :WIDTH]).mean() > 20
    assert reader.resized == [Resized(path, 24, 16)]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(CameraError, match=r"cannot read .*a\.png .*truncated or no image"):
        READER.frame(str(tmp_path / "a.png"))


def test_a_black_frame_shows_no_scene(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "png"))
    with pytest.raises(JetsightError, match="all black"):
        READER.frame(str(path))


def test_slides_show_every_frame_at_its_tick(recording: Path) -> None:
    start = READER.recorded(EpisodeTick(recording, 1, 9))
    slides = Slides(start, SPEC.action_block, FakeClock())
    slides.start(StreamRequest.of(SPEC))
    frames = []
    while not slides.ended:
        frames.append(slides.next(0))
    assert slides.next(0) is None
    assert [frame.tick for frame in frames if frame] == [5, 7, 9]
    assert [frame.action_since is None for frame in frames if frame] == [True, True, False]
