"""Every kind of source, on tiny recordings made here: what they deliver, and how they refuse."""

from __future__ import annotations

import builtins
import io
import itertools
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import gym_factory
import numpy as np
import pytest
from rtsp_server import RtspServer

from jetsight.cameras import Camera, Reading, Source, StreamRequest
from jetsight.cameras.episodes import EpisodeSource
from jetsight.cameras.grammar import open_source
from jetsight.cameras.images import ImageFolderSource, natural_key
from jetsight.cameras.live import DeviceSource, DriverStamps, RtspSource
from jetsight.cameras.simulation import GymSource, HeldRandom
from jetsight.cameras.video import VideoSource
from jetsight.clock import MonotonicClock
from jetsight.errors import CameraError, DataError, JetsightError, MissingDependency, UsageError
from jetsight.lerobot import LeRobotDataset
from jetsight.testing import FakeClock

REQUEST = StreamRequest(32, 48, 10.0, action_block=5, plan_ticks=25, step_size=2)
RECORDED = Path(__file__).parents[2] / "calib_data" / "pusht"
RTSP = StreamRequest(32, 48, 10.0, action_block=2, plan_ticks=4, step_size=2)
PUSHT = StreamRequest(96, 96, 10.0, action_block=5, plan_ticks=25, step_size=2)


def _picture(i: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A frame whose brightness says its number."""
    return np.full((height, width, 3), 20 + 4 * i, np.uint8)


def _number(image: np.ndarray | None) -> int:
    assert image is not None
    return round((float(image.mean()) - 20) / 4)


def _video(path: Path, count: int = 40, fps: int = 10, codec: str = "libx264") -> Path:
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 1
        for i in range(count):
            picture = av.VideoFrame.from_ndarray(_picture(i), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def _encoded(image: np.ndarray, codec: str) -> bytes:
    with io.BytesIO() as file:
        with av.open(file, "w", format="image2pipe") as container:
            stream = container.add_stream(codec, rate=1)
            stream.width, stream.height = image.shape[1], image.shape[0]
            stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return file.getvalue()


def _readings(source: Source, request: StreamRequest = REQUEST, limit: int = 1000) -> list[Reading]:
    source.start(request)
    found: list[Reading] = []
    try:
        while len(found) < limit and (reading := source.read()) is not None:
            found.append(reading)
    finally:
        source.close()
    return found


# Video files


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264")])
def test_video_gives_every_frame_at_its_time(tmp_path: Path, name: str, codec: str) -> None:
    source = VideoSource(_video(tmp_path / name, codec=codec))
    info = source.start(REQUEST)
    assert (info.height_px, info.width_px, info.fps, info.physical) == (32, 48, 10.0, False)
    found = _readings(VideoSource(tmp_path / name))
    source.close()
    assert [_number(r.image_hwc_u8) for r in found] == list(range(40))
    start = found[0].media_ns
    assert [round((r.media_ns - start) / 1e8, 3) for r in found] == list(range(40))
    assert all(r.actions is None and r.plan is None for r in found)


def test_truncated_video_delivers_what_is_there_and_says_so(tmp_path: Path) -> None:
    whole = _video(tmp_path / "whole.mp4").read_bytes()
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
    path.write_bytes(_video(tmp_path / "whole.mp4").read_bytes()[:500])
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
    path = _video(tmp_path / "a.mkv", codec="mjpeg")
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", bytes(data))]
    assert len(starts) == 40
    length = starts[21] - starts[20]
    data[starts[20] + length // 2 : starts[20] + length - 40] = bytes(length - length // 2 - 40)
    path.write_bytes(bytes(data))
    found = _readings(VideoSource(path))
    assert [i for i, reading in enumerate(found) if reading.image_hwc_u8 is None] == [20]
    assert len(found) == 40


# Image folders


@pytest.mark.parametrize(("codec", "suffix"), [("png", "png"), ("mjpeg", "jpg")])
def test_images_come_in_natural_order_one_per_tick(tmp_path: Path, codec: str, suffix: str) -> None:
    for i in range(12):
        (tmp_path / f"frame{i}.{suffix}").write_bytes(_encoded(_picture(i), codec))
    (tmp_path / "notes.txt").write_text("ignored")
    found = _readings(ImageFolderSource(tmp_path))
    assert [_number(r.image_hwc_u8) for r in found] == list(range(12))
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
    data = _encoded(rng.integers(0, 255, (32, 48, 3), np.uint8), codec)
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(data[: int(len(data) * (share if i == 1 else 1))])
    found = _readings(ImageFolderSource(tmp_path))
    assert [r.image_hwc_u8 is None for r in found] == [False, True, False]
    assert found[2].media_ns == 200_000_000


def test_folder_without_images_or_with_a_broken_first_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no images"):
        ImageFolderSource(tmp_path).start(REQUEST)
    (tmp_path / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(CameraError, match=r"cannot read .*0\.png"):
        ImageFolderSource(tmp_path).start(REQUEST)


# LeRobot episodes


def test_episode_knows_what_was_done_and_what_comes_next() -> None:
    rows = LeRobotDataset.open(RECORDED).rows(1)
    found = _readings(EpisodeSource(RECORDED, 1), PUSHT)
    assert len(found) == len(rows.actions)
    assert found[0].actions is None
    for t in (1, 57, len(found) - 1):
        reading = found[t]
        assert reading.actions is not None
        assert reading.plan is not None
        np.testing.assert_array_equal(reading.actions, rows.actions[t - 1 : t])
        np.testing.assert_array_equal(reading.plan, rows.actions[t : t + 25])
        assert reading.media_ns == t * 100_000_000
    assert not any(reading.cut for reading in found)


def test_all_episodes_follow_each_other_with_a_cut() -> None:
    lengths = LeRobotDataset.open(RECORDED).episode_lengths
    source = EpisodeSource(RECORDED, None)
    found = _readings(source, PUSHT, limit=lengths[0] + 3)
    assert [i for i, reading in enumerate(found) if reading.cut] == [lengths[0]]
    assert found[lengths[0]].actions is None
    assert found[lengths[0]].media_ns == lengths[0] * 100_000_000


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (StreamRequest(96, 96, 30.0, 5, 25, 2), ["10 frames per second", "runs at 30"]),
        (StreamRequest(96, 96, 10.0, 5, 25, 7), ["target_x, target_y", "takes 7"]),
    ],
)
def test_episode_of_another_robot_is_refused(request_: StreamRequest, words: list[str]) -> None:
    with pytest.raises(CameraError) as caught:
        EpisodeSource(RECORDED, 0).start(request_)
    assert all(word in str(caught.value) for word in words)


def test_missing_episode_and_broken_dataset_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no episode 99"):
        EpisodeSource(RECORDED, 99).start(PUSHT)
    broken = Path(shutil.copytree(RECORDED, tmp_path / "copy"))
    for path in broken.glob("videos/**/*.mp4"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError):
        _readings(EpisodeSource(broken, 0), PUSHT)


# Simulated robots


def _fade() -> GymSource:
    return GymSource(gym_factory.FADE, seed=3)


FADE = StreamRequest(32, 48, 5.0, action_block=2, plan_ticks=6, step_size=2)


def test_environment_executes_the_first_action_of_each_plan() -> None:
    found = _readings(_fade(), FADE, limit=10)
    for before, reading in itertools.pairwise(found):
        assert before.plan is not None
        assert reading.actions is not None
        np.testing.assert_array_equal(reading.actions, before.plan[:1])
    assert found[0].actions is None
    assert [reading.media_ns for reading in found] == [i * 200_000_000 for i in range(10)]


def test_environment_is_a_function_of_its_seed() -> None:
    films = [
        np.stack([r.image_hwc_u8 for r in _readings(source, FADE, limit=10)])  # type: ignore[misc]
        for source in (_fade(), _fade(), GymSource(gym_factory.FADE, seed=4))
    ]
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])


def test_environment_that_ends_starts_again_with_a_cut() -> None:
    found = _readings(_fade(), FADE, limit=30)
    cuts = [i for i, reading in enumerate(found) if reading.cut]
    assert cuts == [gym_factory.LAST_TICK, 2 * gym_factory.LAST_TICK]
    assert all(found[i].actions is None for i in cuts)


def test_held_random_plans_what_it_does() -> None:
    policy = HeldRandom(np.array([-np.inf, 0.0]), np.array([np.inf, 5.0]), hold=4, seed=0)
    plans = [policy(None, 12) for _ in range(40)]
    for before, after in itertools.pairwise(plans):
        np.testing.assert_array_equal(before[1:], after[:-1])
    done = np.stack([plan[0] for plan in plans])
    changes = np.flatnonzero(np.abs(np.diff(done, axis=0)).sum(axis=1)) + 1
    assert {int(i) % 4 for i in changes} == {0}
    assert np.abs(done[:, 0]).max() <= 1.0
    assert done[:, 1].min() >= 0.0
    assert done[:, 1].max() <= 5.0


def test_own_policy_sees_the_environment_and_decides() -> None:
    seen: list[Any] = []

    def policy(environment: Any, n: int) -> np.ndarray:
        seen.append((environment.unwrapped.tick, n))
        return np.array([[0.25, -0.5]], np.float32)

    found = _readings(GymSource(gym_factory.FADE, policy=policy), FADE, limit=4)
    assert seen == [(0, 6), (1, 6), (2, 6), (3, 6)]
    assert found[3].actions is not None
    assert found[3].actions.tolist() == [[0.25, -0.5]]


def test_pusht_shows_pixels_of_the_size_that_was_asked_for() -> None:
    request = StreamRequest(64, 80, 10.0, 5, 25, 2)
    found = _readings(GymSource("gym_pusht/PushT-v0"), request, limit=3)
    assert {reading.image_hwc_u8.shape for reading in found} == {(64, 80, 3)}  # type: ignore[union-attr]
    assert found[1].actions is not None
    assert 0 <= found[1].actions.min() <= found[1].actions.max() <= 512


@pytest.mark.parametrize(
    ("env_id", "request_", "words"),
    [
        (gym_factory.FADE, StreamRequest(32, 48, 5.0, 2, 6, 3), "model's actions are 3 numbers"),
        (gym_factory.FADE, StreamRequest(32, 48, 10.0, 2, 6, 2), "makes 5 steps per second"),
        ("CartPole-v1", FADE, "takes actions Discrete"),
        ("NoSuch-v0", FADE, "cannot make environment 'NoSuch-v0'"),
        ("no_such_package/Robot-v0", FADE, "cannot make environment 'no_such_package/Robot-v0'"),
    ],
)
def test_environment_that_does_not_fit_is_refused(
    env_id: str, request_: StreamRequest, words: str
) -> None:
    source = GymSource(env_id)
    with pytest.raises(CameraError, match=words):
        source.start(request_)
    source.close()


# Physical cameras


class _FakeContainer:
    """What PyAV gives for a V4L2 device: packets of raw pictures with driver time stamps."""

    def __init__(self, stamps_us: list[int | None], width: int = 48, height: int = 32) -> None:
        context = SimpleNamespace(width=width, height=height, name="rawvideo")
        self.stream = SimpleNamespace(
            codec_context=context, average_rate=Fraction(30), time_base=Fraction(1, 1_000_000)
        )
        self.streams = SimpleNamespace(video=[self.stream])
        self._stamps_us = stamps_us
        self.closed = False

    def demux(self, stream: Any) -> Iterator[Any]:
        for i, stamp in enumerate(self._stamps_us):
            picture = SimpleNamespace(
                pts=stamp, is_corrupt=False, to_ndarray=lambda format, i=i: _picture(i)
            )
            yield SimpleNamespace(decode=lambda picture=picture: [picture])
        raise av.error.OSError(19, "No such device", "/dev/video0")

    def close(self) -> None:
        self.closed = True


def _device(
    monkeypatch: pytest.MonkeyPatch, stamps_us: list[int | None], clock: FakeClock
) -> tuple[DeviceSource, dict[str, Any]]:
    """A device source over a fake container, and the arguments it was opened with."""
    asked: dict[str, Any] = {}

    def fake_open(path: str, **options: Any) -> _FakeContainer:
        asked.update(path=path, **options)
        return _FakeContainer(stamps_us)

    monkeypatch.setattr(av, "open", fake_open)
    return DeviceSource("/dev/null", clock=clock), asked


def test_device_is_asked_for_size_and_rate_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = _device(monkeypatch, [], FakeClock())
    info = source.start(REQUEST)
    assert asked["format"] == "v4l2"
    assert asked["options"] == {"video_size": "48x32", "framerate": "10"}
    assert (info.physical, info.fps) == (True, 30.0)


def test_monotonic_driver_stamps_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(5_000_000_000)
    source, _ = _device(monkeypatch, [4_980_000, 4_990_000], clock)
    source.start(REQUEST)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert (first.stamp_ns, first.media_ns) == (4_980_000_000, 4_980_000_000)
    assert second.stamp_ns == 4_990_000_000
    with pytest.raises(CameraError, match=r"stopped delivering \(No such device\)"):
        source.read()


@pytest.mark.parametrize(
    "stamp_us",
    [None, 0, 1_790_000_000_000_000, 5_100_000, 3_900_000],
    ids=["none", "zero", "wall", "future", "old"],
)
def test_implausible_driver_stamps_are_given_up_for_good(
    monkeypatch: pytest.MonkeyPatch, stamp_us: int | None
) -> None:
    source, _ = _device(monkeypatch, [stamp_us, 4_990_000], FakeClock(5_000_000_000))
    source.start(REQUEST)
    for _ in range(2):  # the second stamp would be plausible; belief is gone
        reading = source.read()
        assert reading is not None
        assert (reading.stamp_ns, reading.media_ns) == (None, 5_000_000_000)


def test_stamps_at_the_edge_of_plausible() -> None:
    clock = FakeClock(5_000_000_000)
    assert DriverStamps(clock).capture_ns(5_000_000_000) == 5_000_000_000
    assert DriverStamps(clock).capture_ns(4_000_000_001) == 4_000_000_001
    assert DriverStamps(clock).capture_ns(4_000_000_000) is None


def test_missing_and_forbidden_devices_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CameraError, match="there is no camera /dev/video99"):
        DeviceSource("/dev/video99", clock=FakeClock()).start(REQUEST)
    path = tmp_path / "video0"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(CameraError, match="usermod -aG video"):
        DeviceSource(str(path), clock=FakeClock()).start(REQUEST)


def test_device_that_is_no_camera_says_what_to_look_at() -> None:
    with pytest.raises(CameraError, match=r"cannot open /dev/null .*v4l2-ctl"):
        DeviceSource("/dev/null", clock=FakeClock()).start(REQUEST)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_rtsp_without_a_server_is_one_line() -> None:
    url = f"rtsp://127.0.0.1:{_free_port()}/camera"
    with pytest.raises(CameraError, match=r"cannot open rtsp://.*Connection refused.*reachable"):
        RtspSource(url, clock=MonotonicClock()).start(REQUEST)


def test_rtsp_stream_is_received_at_the_times_of_the_sender() -> None:
    with RtspServer() as server:
        source = RtspSource(server.url, clock=MonotonicClock())
        info = source.start(RTSP)
        found = [source.read() for _ in range(8)]
        source.close()
    assert (info.height_px, info.width_px, info.fps, info.physical) == (32, 48, 10.0, True)
    numbers = [_number(reading.image_hwc_u8) for reading in found if reading is not None]
    assert np.diff(numbers).tolist() == [1] * 7 or 0 in numbers  # the film repeats after 40
    gaps = np.diff([reading.media_ns for reading in found if reading is not None])
    assert gaps.tolist() == [100_000_000] * 7
    assert all(reading is not None and reading.stamp_ns is None for reading in found)


def test_rtsp_camera_that_hangs_up_is_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetsight.cameras.camera._BACKOFF_NS", (10_000_000, 10_000_000))
    with RtspServer(frames=60, interval_s=0.005) as server:
        camera = Camera.open(server.url)
        camera.start(RTSP)
        ticks: list[int] = []
        while server.connections < 3:
            frame = camera.next(20_000_000)
            ticks += [] if frame is None else [frame.tick]
        camera.close()
    assert ticks == sorted(set(ticks))
    assert camera.stamps == "arrival"
    jumps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(jumps) > RTSP.action_block  # no history reaches across the reconnection


# What a text stands for


@pytest.mark.parametrize(
    ("src", "kind"),
    [
        ("gym:gym_pusht/PushT-v0", GymSource),
        ("rtsp://host/x", RtspSource),
        ("/dev/video3", DeviceSource),
        (f"lerobot:{RECORDED}", EpisodeSource),
        (f"lerobot:{RECORDED}#2", EpisodeSource),
        (str(RECORDED), EpisodeSource),
        (f"{RECORDED}#2", EpisodeSource),
    ],
)
def test_source_text_names_its_kind(src: str, kind: type) -> None:
    assert isinstance(open_source(src, clock=FakeClock()), kind)


def test_files_and_folders_are_told_apart_even_with_odd_names(tmp_path: Path) -> None:
    (tmp_path / "film#3").mkdir()
    (tmp_path / "a:b.mp4").touch()
    assert isinstance(open_source(str(tmp_path / "film#3"), clock=FakeClock()), ImageFolderSource)
    assert isinstance(open_source(str(tmp_path / "a:b.mp4"), clock=FakeClock()), VideoSource)


@pytest.mark.parametrize(
    ("src", "error"),
    [
        ("nowhere.mp4", CameraError),
        ("http://x/y", UsageError),
        (f"lerobot:{RECORDED}#x", UsageError),
    ],
)
def test_unknown_source_text_lists_what_there_is(src: str, error: type[JetsightError]) -> None:
    with pytest.raises(error):
        Camera.open(src)


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("av", lambda path: VideoSource(path)),
        ("av", lambda path: ImageFolderSource(path.parent)),
        ("av", lambda path: RtspSource("rtsp://127.0.0.1/x", clock=FakeClock())),
        ("gymnasium", lambda path: GymSource("CartPole-v1")),
    ],
)
def test_missing_library_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[Path], Source]
) -> None:
    path = tmp_path / "a.png"
    path.touch()
    real = builtins.__import__

    def fake(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(name, name=module)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fake)
    monkeypatch.setattr("importlib.import_module", fake)
    with pytest.raises(MissingDependency, match=r"pip install 'jetsight\[(camera|sim)\]'"):
        make(path).start(REQUEST)
