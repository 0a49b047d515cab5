"""The camera thread with scripted sources: pacing, rejecting, reconnecting, a reader that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from jetsight.cameras import Camera, Reading, SourceInfo, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.errors import CameraError, UsageError
from jetsight.session import Session
from jetsight.stream.frames import Forecast, Frame, Mode, Reason
from jetsight.testing import FakeBackend, FakeClock, tiny_spec

REQUEST = StreamRequest(4, 6, 10.0, action_block=2, plan_ticks=4, step_size=2)
P = 100_000_000


def _image(value: int = 7, shape: tuple[int, ...] = (4, 6, 3)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


class Scripted:
    """A source that returns, raises or waits for what its script says."""

    def __init__(
        self,
        steps: list[Reading | Exception | threading.Event],
        *,
        physical: bool = False,
        size: tuple[int, int] = (4, 6),
        fps: float | None = 10.0,
    ) -> None:
        self._steps: Iterator[Reading | Exception | threading.Event] = iter(steps)
        self._info = SourceInfo("scripted", *size, fps, physical=physical)
        self.starts = 0
        self.closed = 0

    def start(self, request: StreamRequest) -> SourceInfo:
        self.starts += 1
        return self._info

    def read(self) -> Reading | None:
        step = next(self._steps, None)
        if isinstance(step, threading.Event):
            step.wait(10)
            return None
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.closed += 1


def _readings(*ticks: float, value: int = 7) -> list[Reading]:
    return [Reading(_image(value), round(tick * P)) for tick in ticks]


def _frames(camera: Camera, rate_hz: float | None = None) -> list[tuple[int, int]]:
    """(index, tick) of every frame until the source ends."""
    camera.start(REQUEST, rate_hz)
    found = []
    while True:
        frame = camera.next(1_000_000_000)
        if frame is not None:
            found.append((frame.index, frame.tick))
        elif camera.ended:
            camera.close()
            return found


def test_unpaced_camera_delivers_everything_in_order() -> None:
    camera = Camera(Scripted([*_readings(*range(200))]), rate_hz=0)
    assert _frames(camera) == [(i, i) for i in range(200)]
    camera.raise_for_error()
    assert camera.stamps == "replay"


def test_rate_of_the_stream_beats_the_rate_of_the_camera() -> None:
    camera = Camera(Scripted([*_readings(*range(50))]), rate_hz=0.1)
    assert len(_frames(camera, rate_hz=0)) == 50


@pytest.mark.parametrize(
    ("rate_hz", "spacing_ns"), [(None, P), (10, P), (20, P // 2), (5, 2 * P), (1000, P // 100)]
)
def test_replay_is_paced_by_the_clock(rate_hz: float | None, spacing_ns: int) -> None:
    clock, stamps = FakeClock(), []

    class Watched(Scripted):
        def read(self) -> Reading | None:
            stamps.append(clock.now_ns())
            return super().read()

    camera = Camera(Watched(_readings(*range(6))), clock=clock, rate_hz=rate_hz)
    camera.start(REQUEST)
    assert camera.period_ns == spacing_ns
    camera._thread.join(5)  # type: ignore[union-attr]
    camera.close()
    assert np.diff(stamps[1:]).tolist() == [spacing_ns] * 5


def test_late_reader_shifts_the_replay_instead_of_rushing_after_it() -> None:
    clock, delivered = FakeClock(), []

    class Slow(Scripted):
        def read(self) -> Reading | None:
            delivered.append(clock.now_ns())
            if len(delivered) == 4:
                clock.advance(10 * P)  # a disk that slept
            return super().read()

    camera = Camera(Slow(_readings(*range(8))), clock=clock)
    camera.start(REQUEST)
    camera._thread.join(5)  # type: ignore[union-attr]
    camera.close()
    gaps = (np.diff(delivered[1:]) / P).tolist()
    assert gaps == [1, 1, 10, 1, 1, 1, 1]


def test_faster_source_is_thinned_to_the_model_rate() -> None:
    camera = Camera(Scripted(_readings(*[i / 3 for i in range(30)]), fps=30.0), rate_hz=0)
    assert [tick for _, tick in _frames(camera)] == list(range(10))


def test_thinned_frames_are_not_drops() -> None:
    camera = Camera(Scripted(_readings(*[i / 3 for i in range(30)]), fps=30.0), rate_hz=0)
    assert [index for index, _ in _frames(camera)] == list(range(10))


def test_missing_frames_leave_their_tick_empty() -> None:
    camera = Camera(Scripted(_readings(0, 1, 4, 5)), rate_hz=0)
    assert [tick for _, tick in _frames(camera)] == [0, 1, 4, 5]


def test_rejected_frames_are_counted_in_the_index_and_explained() -> None:
    bad = Reading(_image(shape=(8, 8, 3)), 2 * P)
    camera = Camera(Scripted([*_readings(0, 1), bad, *_readings(3)]), rate_hz=0)
    assert _frames(camera) == [(0, 0), (1, 1), (3, 3)]
    assert camera.rejected == 1
    assert camera.last_defect == "frame 2 is [8, 8, 3], expected [4, 6, 3]"


@pytest.mark.parametrize(
    ("fps", "notes"),
    [
        (
            30.0,
            ("30 frames per second on the model's 10 Hz: the one nearest to each tick is used",),
        ),
        (10.03, ()),
        (9.6, ()),
        (None, ()),
    ],
)
def test_rate_of_the_source_and_resampling_are_reported(
    fps: float | None, notes: tuple[str, ...]
) -> None:
    camera = Camera(Scripted([], fps=fps))
    assert camera.start(REQUEST).notes == notes
    assert camera.source_hz == fps
    camera.close()


def test_no_usable_frame_at_all_is_an_error() -> None:
    for steps, why in (([], "ended without"), ([Reading(None, 0)], "could not be decoded")):
        camera = Camera(Scripted(list(steps)), rate_hz=0)
        assert _frames(camera) == []
        with pytest.raises(CameraError, match=why):
            camera.raise_for_error()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            Scripted([], size=(480, 640)),
            ["640x480", "6x4", "jetsight compile CHECKPOINT --camera 640x480"],
        ),
        (Scripted([], size=(3, 640)), ["640x3", "6x4", "train for this one"]),
        (Scripted([], fps=5.0), ["5 frames per second", "1/10 s"]),
    ],
)
def test_wrong_size_or_rate_is_refused_at_the_start(source: Scripted, words: list[str]) -> None:
    camera = Camera(source)
    with pytest.raises(CameraError) as caught:
        camera.start(REQUEST)
    assert all(word in str(caught.value) for word in words)
    assert source.closed == 1
    assert not camera.started


def test_rate_a_little_low_is_accepted() -> None:
    """Negative control of the refusal: 29.97 is 30."""
    camera = Camera(Scripted(_readings(0), fps=9.9), rate_hz=0)
    assert len(_frames(camera)) == 1


def test_broken_recording_ends_with_its_error_after_its_frames() -> None:
    for error in (CameraError("cut off"), ValueError("a binding's own error")):
        camera = Camera(Scripted([*_readings(0, 1), error]), rate_hz=0)
        assert len(_frames(camera)) == 2
        with pytest.raises(CameraError, match=str(error)):
            camera.raise_for_error()


def test_camera_is_streamed_once_and_rates_are_checked() -> None:
    camera = Camera(Scripted([]), rate_hz=0)
    _frames(camera)
    with pytest.raises(UsageError, match="already streamed"):
        camera.start(REQUEST)
    for rate_hz in (-1, 1e6, float("nan")):
        with pytest.raises(UsageError, match="expected 0"):
            Camera(Scripted([]), rate_hz=rate_hz)


def test_closing_a_camera_that_never_started_releases_its_source() -> None:
    source = Scripted([])
    Camera(source).close()
    assert source.closed == 1


def test_blocked_reader_does_not_delay_closing() -> None:
    never = threading.Event()
    camera = Camera(Scripted([*_readings(0), never], physical=True))
    camera.start(REQUEST)
    assert camera.next(1_000_000_000) is not None
    start_s = time.perf_counter()
    camera.close()
    assert time.perf_counter() - start_s < 1.0
    never.set()


def test_writer_waiting_for_a_slow_loop_does_not_delay_closing() -> None:
    camera = Camera(Scripted([*_readings(*range(10))]), rate_hz=0)
    camera.start(REQUEST)
    start_s = time.perf_counter()
    camera.close()
    assert time.perf_counter() - start_s < 0.4
    assert camera._thread is not None
    assert not camera._thread.is_alive()


def _lost_and_found() -> list[Reading | Exception | threading.Event]:
    gone = [CameraError("unplugged"), CameraError("no such device"), CameraError("still gone")]
    return [*_readings(0, 1, 2), *gone, *_readings(100, 101, 102)]


def test_physical_camera_is_reopened_with_growing_patience() -> None:
    clock, starts = FakeClock(0), []
    done = threading.Event()

    class Watched(Scripted):
        def start(self, request: StreamRequest) -> SourceInfo:
            starts.append(clock.now_ns() / 1e9)
            return super().start(request)

    camera = Camera(Watched([*_lost_and_found(), done], physical=True), clock=clock)
    camera.start(REQUEST)
    while len(starts) < 4:
        camera.next(1_000_000)
    done.set()
    camera.close()
    assert starts[:4] == [0, 0.5, 1.5, 3.5]


def test_recording_is_not_reopened() -> None:
    """Negative control: only a physical camera comes back."""
    source = Scripted(_lost_and_found())
    camera = Camera(source, rate_hz=0)
    assert len(_frames(camera)) == 3
    assert source.starts == 1


def test_tick_after_reconnecting_is_beyond_any_history() -> None:
    """The time line of the new connection has nothing to do with the old one."""
    clock = FakeClock()
    done = threading.Event()
    steps = [*_readings(5, 6, 7), CameraError("unplugged"), *_readings(0, 1, 2), done]
    camera = Camera(Scripted(steps, physical=True), clock=clock)
    camera.start(REQUEST)
    last = 2 + (REQUEST.action_block + 1) + 2
    seen = [0]
    while seen[-1] < last:
        frame = camera.next(10_000_000)
        seen += [] if frame is None else [frame.tick]
    done.set()
    camera.close()
    assert seen[-1] == last
    assert not {3, 4} & set(seen)


def test_driver_stamps_are_passed_on_and_named() -> None:
    clock = FakeClock()
    stamped = [Reading(_image(i + 1), i * P, stamp_ns=i * P + 5) for i in range(3)]
    done = threading.Event()
    camera = Camera(Scripted([*stamped, done], physical=True), clock=clock)
    camera.start(REQUEST)
    frame: Frame | None = None
    while frame is None or frame.index < 2:
        frame = camera.next(1_000_000_000) or frame
    assert frame.captured_ns == 2 * P + 5
    assert camera.stamps == "driver"
    done.set()
    camera.close()


@pytest.mark.parametrize(("changing", "frozen"), [(False, True), (True, False)])
def test_frozen_pixels_of_a_physical_camera_are_found(changing: bool, frozen: bool) -> None:
    steps = [
        Reading(_image(1 + (i % 2 if changing else 0)), i * P, stamp_ns=i * P) for i in range(15)
    ]
    done = threading.Event()
    camera = Camera(Scripted([*steps, done], physical=True), clock=FakeClock())
    camera.start(REQUEST)
    index = 0
    while index < 14:
        frame = camera.next(1_000_000_000)
        index = index if frame is None else frame.index
    assert camera.frozen == frozen
    done.set()
    camera.close()


def test_actions_of_overwritten_frames_reach_the_session() -> None:
    """A camera ten times faster than the loop, through the real thread."""
    rng = np.random.default_rng(0)
    actions = rng.standard_normal((60, 2)).astype(np.float32)
    steps = [Reading(_image(), i * P, actions=actions[i - 1 : i] if i else None) for i in range(60)]
    camera = Camera(Scripted([*steps]), rate_hz=1000)
    camera.start(REQUEST)
    done = -1  # the session's history begins with the first frame it sees, whichever that is
    while not camera.ended:
        frame = camera.next(50_000_000)
        if frame is None:
            continue
        if done >= 0:
            assert frame.action_since is not None
            np.testing.assert_array_equal(frame.action_since, actions[done : frame.tick])
        done = frame.tick
        time.sleep(0.01)
    camera.close()
    assert done == 59
    assert camera._slot.dropped > 10


def _stream(source: Scripted, clock: Clock, until: Callable[[Forecast], bool]) -> list[Forecast]:
    spec = tiny_spec(height_px=4, width_px=6, camera_hz=100.0)
    backend = FakeBackend(spec)
    session = Session(spec, backend.load(b"encode"), backend.load(b"forecast"), clock=clock)
    published = []
    stream = session.stream(Camera(source, clock=clock))
    for forecast in stream:
        published.append(forecast)
        if until(forecast):
            break
    stream.close()
    return published


def test_session_reports_a_blocked_reader_while_it_is_blocked() -> None:
    never = threading.Event()
    source = Scripted([*_readings(0), never], physical=True, fps=100.0)
    published = _stream(source, MonotonicClock(), lambda f: f.mode is Mode.FAULT)
    never.set()
    reasons = {forecast.reason for forecast in published[1:]}
    assert reasons == {Reason.CAMERA_LOST}
    modes = [forecast.mode for forecast in published]
    assert modes == sorted(modes)
    assert {Mode.DEGRADED, Mode.HOLD, Mode.FAULT} <= set(modes)


def test_session_names_a_camera_that_changed_its_size() -> None:
    never = threading.Event()
    bad = [Reading(_image(shape=(8, 8, 3)), i * P // 10) for i in range(1, 5)]
    source = Scripted([*_readings(0), *bad, never], physical=True, fps=100.0)
    published = _stream(source, MonotonicClock(), lambda f: f.mode is Mode.HOLD)
    never.set()
    assert Reason.FRAMES_REJECTED in {forecast.reason for forecast in published}
