"""Several cameras as one source: frames that were captured together, in the model's order.

Frames of one tick may be captured up to `TOLERANCE` of the model's period apart. What finds no
partner in time is dropped and counted per camera; a camera that is late or silent is named.

Shapes: C cameras, h, w frame size.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jetsight.cameras.source import Reading, Source, SourceInfo, StreamRequest, check_start
from jetsight.clock import Clock
from jetsight.engine import NDArray
from jetsight.errors import CameraError, JetsightError, did_you_mean

TOLERANCE = 0.2  # of the model's period
_DEPTH = 8  # frames of one camera that wait for those of the others
_SILENT_PERIODS, _SILENT_S = 5, 1.0  # without a frame for the longer of both, a camera is lost
_POLL_S = 0.05
_JOIN_S = 0.4  # less than the camera thread is given by its own owner


@dataclass(frozen=True, slots=True)
class TimedReading:
    """A reading of one camera, and when it was captured on the time line of all."""

    time_ns: int
    reading: Reading


class FramePairing:
    """Frames that wait for those of the other cameras; no threads, no clock.

    Args:
        names: of the cameras, in order.
        period_ns: of the model's camera rate.

    Attributes:
        unpaired: frames dropped without a partner, by camera.
    """

    def __init__(self, names: Sequence[str], period_ns: int) -> None:
        self._names, self._period_ns = names, period_ns
        self._limit_ns = round(TOLERANCE * period_ns)
        self._waiting: list[deque[TimedReading]] = [deque() for _ in names]
        self._matched_ns: int | None = None
        self._nearest: tuple[int, str] | None = None  # miss since the last match, and its text
        self.unpaired = dict.fromkeys(names, 0)

    def add(self, camera: int, shot: TimedReading) -> None:
        """Add the newest frame of a camera; the oldest that waits too long is dropped."""
        if len(self._waiting[camera]) == _DEPTH:
            self._drop(camera)
        self._waiting[camera].append(shot)

    def missing(self) -> list[int]:
        """List the cameras that no frame waits of."""
        return [camera for camera, shots in enumerate(self._waiting) if not shots]

    def match(self) -> list[TimedReading] | None:
        """Take the oldest frames that belong together; None until every camera has one."""
        while not self.missing():
            times = [shots[0].time_ns for shots in self._waiting]
            first, last = int(np.argmin(times)), int(np.argmax(times))
            apart_ns = times[last] - times[first]
            if self._matched_ns is None:
                self._matched_ns = times[first]
            if apart_ns <= self._limit_ns:
                self._closer(first, times[last])
                self._matched_ns, self._nearest = times[last], None
                return [shots.popleft() for shots in self._waiting]
            self._note(first, last, apart_ns)
            self._drop(first)
        return None

    def overdue(self) -> TimedReading | None:
        """Return a reading that says why no frames match, once per period in which none did."""
        newest = max((s[-1].time_ns for s in self._waiting if s), default=None)
        if self._nearest is None or newest is None or self._matched_ns is None:
            return None
        if newest - self._matched_ns < 2 * self._period_ns:
            return None
        self._matched_ns += self._period_ns
        why, self._nearest = self._nearest[1], None
        return TimedReading(self._matched_ns, Reading(None, self._matched_ns, why=why))

    def _note(self, first: int, last: int, apart_ns: int) -> None:
        """Keep the smallest miss: of two cameras out of step, every other pair is further apart."""
        text = (
            f"has no partner: camera {self._names[last]!r} is {apart_ns / 1e6:.0f} ms later than "
            f"{self._names[first]!r}, expected at most {self._limit_ns / 1e6:.0f} ms "
            f"({TOLERANCE:g} of a period)"
        )
        found = (apart_ns, text)
        self._nearest = found if self._nearest is None else min(self._nearest, found)

    def _closer(self, camera: int, time_ns: int) -> None:
        """Drop frames of a faster camera that a later one of it is nearer to the others than."""
        shots = self._waiting[camera]
        while len(shots) > 1 and abs(shots[1].time_ns - time_ns) < time_ns - shots[0].time_ns:
            shots.popleft()  # a surplus frame, which is no fault of any camera

    def _drop(self, camera: int) -> None:
        self._waiting[camera].popleft()
        self.unpaired[self._names[camera]] += 1


class SeveralSources:
    """Sources of one camera each as one source of `[C, h, w, 3]` frames.

    Args:
        sources: by name of the camera; or in the model's order, without names.
        clock: the session's clock, for cameras whose driver does not stamp.
    """

    def __init__(self, sources: Mapping[str, Source] | Sequence[Source], clock: Clock) -> None:
        self._given, self._clock = sources, clock
        self._sources: list[Source] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._failed: JetsightError | None = None
        self.unpaired: Mapping[str, int] = {}

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open every camera.

        Raises:
            CameraError: a name or number of cameras is not the model's, one cannot be opened or
                does not fit, or recordings and physical cameras are mixed.
        """
        names, self._sources = _in_order(self._given, request)
        infos = [source.start(request.alone) for source in self._sources]
        for name, info in zip(names, infos, strict=True):
            named = replace(info, label=f"camera {name!r} ({info.label})")
            check_start(named, request.alone)
        physical = {info.physical for info in infos}
        label = " + ".join(info.label for info in infos)
        if len(physical) > 1:
            raise CameraError(
                f"{label}: recordings and physical cameras have no common time line; give sources "
                "of one kind"
            )
        self._names, self._physical = names, physical.pop()
        self._pairing = FramePairing(names, round(1e9 / request.camera_hz))
        self.unpaired = self._pairing.unpaired
        self._silent_ns = round(max(_SILENT_PERIODS / request.camera_hz, _SILENT_S) * 1e9)
        self._image: NDArray = np.zeros(request.frame_shape, np.uint8)
        rates = [info.fps for info in infos if info.fps is not None]
        if self._physical:
            self._begin()
        return SourceInfo(
            label,
            request.height_px,
            request.width_px,
            min(rates, default=None),
            physical=self._physical,
            notes=tuple(dict.fromkeys(note for info in infos for note in info.notes)),
            cameras=len(names),
            reports_actions=infos[0].reports_actions,  # whose actions are passed on
        )

    def read(self) -> Reading | None:
        """Take the next frames that belong together; None at the end of a recording.

        Raises:
            CameraError: a camera failed or fell silent; it is named.
        """
        while not self._stop.is_set():
            with self._changed:
                shots = self._pairing.match()
                late = None if shots else self._pairing.overdue()
                if shots is None and late is None and not self._more():
                    return None
            if shots is not None:
                return self._joined(shots)
            if late is not None:
                return late.reading
        return None

    def close(self) -> None:
        """Release every camera; a reader that blocks in its driver is abandoned."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        # Taken first: the owner and its own camera thread may both close.
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(_JOIN_S / len(threads))
        for source in self._sources:
            source.close()

    def _more(self) -> bool:
        """Wait for another frame, or pull the missing ones of recordings; False at their end."""
        if not self._physical:
            for camera in self._pairing.missing():
                reading = self._sources[camera].read()
                if reading is None:
                    return False
                self._pairing.add(camera, TimedReading(reading.media_ns, reading))
            return True
        self._changed.wait(_POLL_S)
        if self._failed is not None:
            raise self._failed
        now_ns = self._clock.now_ns()
        for name, seen_ns in zip(self._names, self._seen_ns, strict=True):
            if now_ns - seen_ns > self._silent_ns:
                raise CameraError(
                    f"camera {name!r} delivered no frame for {(now_ns - seen_ns) / 1e9:.1f} s; "
                    "check its cable and its driver"
                )
        return True

    def _begin(self) -> None:
        """Start one reader per camera, since any of them may block."""
        self._stop, self._failed = threading.Event(), None
        self._seen_ns = [self._clock.now_ns()] * len(self._sources)
        self._threads = [
            threading.Thread(
                target=self._pump, args=(camera, self._stop), name=f"jetsight-{name}", daemon=True
            )
            for camera, name in enumerate(self._names)
        ]
        for thread in self._threads:
            thread.start()

    def _pump(self, camera: int, stop: threading.Event) -> None:
        """Body of a reader; `stop` is that of its own start, as a reconnection has another."""
        name, source = self._names[camera], self._sources[camera]
        try:
            while not stop.is_set():
                reading = source.read()
                if reading is None:
                    raise CameraError(f"camera {name!r} ended")
                self._receive(camera, reading, stop)
        except JetsightError as error:
            self._fail(CameraError(f"camera {name!r}: {error}"), stop)
        except Exception as error:  # a driver binding may raise anything
            self._fail(CameraError(f"camera {name!r}: the reader failed: {error!r}"), stop)

    def _receive(self, camera: int, reading: Reading, stop: threading.Event) -> None:
        now_ns = self._clock.now_ns()
        # Media times of different cameras have no common origin; stamps and arrivals have.
        time_ns = now_ns if reading.stamp_ns is None else reading.stamp_ns
        if reading.image_hwc_u8 is not None:
            # The source may reuse its memory for the next frame, which is read at once.
            reading = replace(reading, image_hwc_u8=np.array(reading.image_hwc_u8))
        with self._changed:
            if not stop.is_set():
                self._seen_ns[camera] = now_ns
                self._pairing.add(camera, TimedReading(time_ns, reading))
                self._changed.notify_all()

    def _fail(self, error: JetsightError, stop: threading.Event) -> None:
        with self._changed:
            if not stop.is_set():
                self._failed = error
                self._changed.notify_all()

    def _joined(self, shots: Sequence[TimedReading]) -> Reading:
        """Make one reading of frames that belong together."""
        readings = [shot.reading for shot in shots]
        times = [shot.time_ns for shot in shots]
        image, why = self._image, ""
        for name, room, reading in zip(self._names, image, readings, strict=True):
            given = reading.image_hwc_u8
            if given is None or given.shape != room.shape or given.dtype != room.dtype:
                found = "no picture" if given is None else f"{given.dtype} {list(given.shape)}"
                why = why or (f"of camera {name!r} is {found}, expected uint8 {list(room.shape)}")
                continue
            room[...] = given
        stamped = all(reading.stamp_ns is not None for reading in readings)
        return Reading(
            None if why else image,
            # Between them for the tick, the oldest for the age: what is known of the scene is at
            # least as old.
            sum(times) // len(times),
            min(times) if self._physical and stamped else None,
            actions=readings[0].actions,
            plan=readings[0].plan,
            cut=any(reading.cut for reading in readings),
            why=why,
        )


def _in_order(
    given: Mapping[str, Source] | Sequence[Source], request: StreamRequest
) -> tuple[Sequence[str], list[Source]]:
    """Return names and sources in the model's order."""
    wanted = request.cameras
    if isinstance(given, Mapping):
        for name in given:
            if name not in wanted:
                hint = did_you_mean(name, wanted, "it takes")
                raise CameraError(f"the model takes no camera {name!r}; {hint}")
        lacking = [name for name in wanted if name not in given]
        if lacking:
            raise CameraError(
                f"the model takes {', '.join(wanted)}, but there is no source of {lacking[0]!r}; "
                f"add --source {lacking[0]}=..."
            )
        return wanted, [given[name] for name in wanted]
    if len(given) != max(1, len(wanted)):
        raise CameraError(
            f"{len(given)} sources were given, but the model takes "
            f"{', '.join(wanted) or 'one camera'}; give one --source per camera, in this order"
        )
    return wanted, list(given)
