"""Camera thread: read, check, place on the time grid, pace, stamp, and deliver the newest frame."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jetsight.cameras import source as sources
from jetsight.cameras.latest_slot import LatestSlot
from jetsight.cameras.source import (
    Reading,
    Source,
    SourceFormat,
    SourceInfo,
    StreamRequest,
)
from jetsight.cameras.source_uri import open_sources
from jetsight.cameras.tick_grid import TickGrid
from jetsight.clock import Clock, MonotonicClock
from jetsight.datasets.dataset import FeatureMap
from jetsight.engine import NDArray
from jetsight.errors import CameraError, JetsightError, UsageError
from jetsight.stream.frames import Frame
from jetsight.stream.health import FrozenDetector, HealthLimits

if TYPE_CHECKING:
    from jetsight.cameras.gym import Policy

_log = logging.getLogger("jetsight")
_MOST_REJECTED = 300  # frames, none of them usable, before a recording or simulator is given up
_JOIN_S = 0.5  # a reader that blocks for longer is abandoned; shutdown must stay under 1 s
_NAP_NS = 50_000_000  # longest sleep of a pacing camera between two checks for `close`
_BACKOFF_NS = (500_000_000, 5_000_000_000)  # first and longest wait before reconnecting


class Camera:
    """Frame source with its own thread, which provides the newest frame to the loop.

    Use `Camera.open`; the constructor takes a `Source` for other kinds of cameras.

    Args:
        source: source of the frames.
        clock: the session's clock; frames are stamped with it.
        rate_hz: frames per second to replay a recording at; None for its own rate, 0 for as fast
            as they are taken, with nothing dropped. A physical camera is set to this rate.
        state: returns the robot's state `float32 [s]`, in the order of the manifest, for a model
            that reads one; called in the camera's thread as each frame arrives.

    Attributes:
        info: description of the source, once started.
        stamps: origin of the capture times: "driver", "arrival" or "replay".
        rejected: frames the model cannot use; `last_defect` describes the last one.

    Example:
        >>> camera = Camera.open("episode.mp4", rate_hz=0)
        >>> for forecast in Session.open("nano.jetsight").stream(camera):
        ...     print(forecast.frame_index, forecast.surprise)
    """

    def __init__(
        self,
        source: Source,
        *,
        clock: Clock | None = None,
        rate_hz: float | None = None,
        state: Callable[[], NDArray] | None = None,
    ) -> None:
        if rate_hz is not None and not 0 <= rate_hz <= 1000:
            raise UsageError(f"rate is {rate_hz} Hz, expected 0 (as fast as possible) to 1000")
        self._source = source
        self._clock = clock or MonotonicClock()
        self._rate_hz = rate_hz
        self._state_of = state
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: JetsightError | None = None
        self._index = -1
        self._base_ns: int | None = None
        self._rejecting = False
        self._frozen = False
        self.stamps = "replay"
        self.rejected = 0
        self.last_defect = ""

    @classmethod
    def open(
        cls,
        src: str | Sequence[str] | Mapping[str, str],
        *,
        clock: Clock | None = None,
        rate_hz: float | None = None,
        seed: int = 0,
        policy: Policy | str | None = None,
        features: FeatureMap | None = None,
        declared: SourceFormat | None = None,
        state: Callable[[], NDArray] | None = None,
    ) -> Camera:
        """Open the camera of `src`; it starts when a session streams it.

        Args:
            src: for a model of several cameras, one source each, by name or in its order; a video
                file, a folder of images, `/dev/videoN`, `rtsp://...`,
                `lerobot:FOLDER[#EPISODE]` (or just the folder of a dataset), `gym:ENV_ID`.
            clock: the session's clock.
            rate_hz: see `Camera`.
            seed: of a simulated environment.
            declared: rate, bits or channel order that a video or its images do not state.
            policy: drives a simulated environment: a function, or its name as `module:function`;
                random held actions by default.
            features: which features of a dataset are actions, states and frames; of a simulated
                environment its `cameras` alone.
            state: see `Camera`.

        Raises:
            CameraError: there is no such file, folder or device.
            UsageError: `src` is none of the above.
        """
        clock = clock or MonotonicClock()
        source = open_sources(
            src,
            clock=clock,
            rate_hz=rate_hz,
            seed=seed,
            policy=policy,
            features=features,
            declared=declared,
        )
        return cls(source, clock=clock, rate_hz=rate_hz, state=state)

    def start(self, request: StreamRequest, rate_hz: float | None = None) -> SourceInfo:
        """Open the source for a model and start reading; a camera starts once.

        Args:
            request: requirements of the model.
            rate_hz: overrides the rate the camera was opened with.

        Raises:
            CameraError: it cannot be opened, or delivers another size or too low a rate.
        """
        if self._thread is not None:
            raise UsageError("the camera was already streamed; open it again")
        try:
            info = self._source.start(request)
            if self._state_of is not None:
                info = replace(info, has_state=True)
            sources.check_start(info, request)
        # Also on KeyboardInterrupt: an opened device would stay busy.
        except BaseException:
            self._source.close()
            raise
        rate = self._rate_hz if rate_hz is None else rate_hz
        self.info = info = sources.noting_rate(info, request)
        self._request = request
        self._paced = not info.physical and rate != 0
        native_hz = info.fps or request.camera_hz
        self._speed = rate / native_hz if rate and not info.physical else 1.0
        self._grid = TickGrid(round(1e9 / request.camera_hz), 1e9 / native_hz)
        # Only a recording that is not in real time may wait for the loop instead of dropping.
        self._slot = LatestSlot(request, lossless=not info.physical and rate == 0)
        limit_ns = round(HealthLimits().frozen_s * 1e9)
        # A recording or a simulator may rightly repeat its pixels; the noise of a sensor never
        # does. One detector per camera, as the motion of one hides that another hangs.
        shape, count = request.frame_shape[-3:], info.cameras if info.physical else 0
        self._detectors = [FrozenDetector(shape, limit_ns) for _ in range(count)]
        # A daemon, because a driver may block in `read` for ever after a camera was unplugged.
        self._thread = threading.Thread(target=self._pump, name="jetsight-camera", daemon=True)
        self._thread.start()
        return info

    @property
    def source_hz(self) -> float | None:
        """Rate of the source; None if it has none, like a folder of images."""
        return self.info.fps

    @property
    def period_ns(self) -> int:
        """Time between two frames of the model's grid on arrival; 0 without pacing."""
        if not self._paced and not self.info.physical:
            return 0
        return round(1e9 / (self._request.camera_hz * self._speed))

    def next(self, timeout_ns: int) -> Frame | None:
        """Take the newest frame not taken yet, waiting up to `timeout_ns`; None if there is none.

        The frame is valid until the next call.
        """
        return self._slot.take(timeout_ns / 1e9)

    @property
    def unpaired(self) -> Mapping[str, int]:
        """Frames of each of several cameras that had no partner in time; empty for one camera."""
        return getattr(self._source, "unpaired", {})

    @property
    def started(self) -> bool:
        """True once it was opened successfully and `info` is known."""
        return self._thread is not None

    @property
    def ended(self) -> bool:
        """True once the source has ended or failed and its last frame was taken."""
        return self._slot.exhausted

    @property
    def frozen(self) -> bool:
        """True if a physical camera has delivered the same pixels for too long."""
        return self._frozen

    @property
    def rejecting(self) -> bool:
        """True if the model cannot use the newest frame; `last_defect` describes it."""
        return self._rejecting

    def raise_for_error(self) -> None:
        """Raise the error that ended the source, if there was one.

        Raises:
            CameraError: the recording is truncated, the reader failed, or no frame was usable.
        """
        if self._error is not None:
            raise self._error
        if self.ended and self._index - self.rejected < 0:
            why = f": {self.last_defect}" if self.rejected else ""
            raise CameraError(
                f"{self.info.label} ended without a frame the model can use{why}; "
                "check it with another program, or give another source"
            )

    def close(self) -> None:
        """Stop reading. A reader that blocks in its driver is abandoned after half a second."""
        self._stop.set()
        if self._thread is None:
            self._source.close()
            return
        # Before the join: a lossless writer may be waiting in the slot.
        self._slot.close()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            _log.warning("%s: the reader is blocked and was abandoned", self.info.label)

    def _pump(self) -> None:
        """Body of the camera thread."""
        try:
            while not self._stop.is_set():
                reading = self._read()
                if reading is None:
                    break
                self._deliver(reading)
        except JetsightError as error:
            self._error = error
        except Exception as error:  # a driver binding may raise anything; the loop reports it
            self._error = CameraError(f"{self.info.label}: the reader failed: {error!r}")
        finally:
            self._slot.close()
            self._source.close()

    def _read(self) -> Reading | None:
        """Take the next reading; reconnect a physical camera that was lost."""
        if not self.info.physical:
            return self._source.read()
        try:
            reading = self._source.read()
            why = "end of stream"
        except CameraError as error:
            reading, why = None, str(error)
        return reading if reading is not None else self._reconnect(why)

    def _reconnect(self, why: str) -> Reading | None:
        _log.warning("%s: lost (%s)", self.info.label, why)
        delay_ns, longest_ns = _BACKOFF_NS
        while not self._stop.is_set():
            self._source.close()
            self._wait_until(self._clock.now_ns() + delay_ns)
            delay_ns = min(2 * delay_ns, longest_ns)
            try:
                # The camera that is back may be another one, or in another mode.
                sources.check_start(self._source.start(self._request), self._request)
                reading = self._source.read()
            except CameraError as error:
                self.last_defect = str(error)
                continue
            if reading is not None:
                _log.warning("%s: back", self.info.label)
                # Time and scene went on meanwhile, so no history may reach across.
                reading.cut = True
                return reading
        return None

    def _deliver(self, reading: Reading) -> None:
        """Place one reading on the grid, and deliver it if the model can use it."""
        tick: int | None
        if reading.cut:
            # More than a block, so that no history reaches over the cut.
            tick = self._grid.cut(reading.media_ns, self._request.action_block + 1)
        else:
            tick = self._grid.place(reading.media_ns)
        if tick is None:
            return  # the camera is faster than the model's: another frame is nearer to the tick
        # Counted also where the frame is rejected, so that the loop sees the gap.
        self._index += 1
        why = reading.why or sources.defect(
            reading.image_hwc_u8, self._request, simulated=self.info.simulated
        )
        reading.state = self._state(reading)
        self._rejecting = why is not None
        if self._paced:
            self._wait_until(self._due_ns(reading.media_ns))
        # After the wait: a rejected frame of a recording takes its time as well.
        if why is not None:
            self.rejected += 1
            self.last_defect = f"frame {self._index} {why}"
            self._check_hope()
            return
        # After the wait too: a recorded frame is captured when it is delivered.
        stamp_ns = self._stamp_ns(reading)
        if self._detectors and reading.image_hwc_u8 is not None:
            self._frozen = self._any_frozen(reading.image_hwc_u8, stamp_ns)
        self._slot.put(reading, self._index, tick, stamp_ns)

    def _check_hope(self) -> None:
        """End a source, other than a real camera, that has had no usable frame for too long.

        Raises:
            CameraError: with the reason of the last one.
        """
        none_usable = self.rejected > self._index
        if none_usable and self.rejected >= _MOST_REJECTED and not self.info.physical:
            raise CameraError(
                f"{self.info.label} had no frame the model can use among the first "
                f"{self.rejected}: {self.last_defect}; check it with another program, or give "
                "another source"
            )

    def _state(self, reading: Reading) -> NDArray | None:
        """Return the state beside a reading, from the robot's function if there is one."""
        wanted = (len(self._request.state_names),)
        if wanted == (0,):
            return None
        state = reading.state if self._state_of is None else self._state_of()
        if state is not None and np.shape(state) != wanted:
            raise CameraError(
                f"{self.info.label}: the state has the shape {list(np.shape(state))}, but the "
                f"model reads {', '.join(self._request.state_names)}; give these, in this order"
            )
        return state

    def _any_frozen(self, image: NDArray, stamp_ns: int) -> bool:
        each = image if image.ndim == 4 else image[None]
        pairs = zip(self._detectors, each, strict=True)
        # A list: every camera is compared with its frame before, whatever the others did.
        frozen = [detector.update(camera, stamp_ns) for detector, camera in pairs]
        if self._request.cameras and any(frozen) and not self._frozen:
            name = self._request.cameras[frozen.index(True)]
            _log.warning("%s: camera %s repeats the same pixels", self.info.label, name)
        return any(frozen)

    def _stamp_ns(self, reading: Reading) -> int:
        """Take the time of capture from the driver, else the time of arrival."""
        if self.info.physical:
            self.stamps = "arrival" if reading.stamp_ns is None else "driver"
        return self._clock.now_ns() if reading.stamp_ns is None else reading.stamp_ns

    def _due_ns(self, media_ns: int) -> int:
        """Compute the time to deliver a recorded frame; a late reader shifts all later ones."""
        now_ns = self._clock.now_ns()
        if self._base_ns is None:
            self._base_ns = now_ns - round(media_ns / self._speed)
        due_ns = self._base_ns + round(media_ns / self._speed)
        late_ns = now_ns - due_ns
        # The reader has stalled, or the recording's times jump.
        if late_ns > self.period_ns or late_ns < -10 * self.period_ns:
            self._base_ns += late_ns
            return now_ns
        return due_ns

    def _wait_until(self, due_ns: int) -> None:
        while not self._stop.is_set():
            left_ns = due_ns - self._clock.now_ns()
            if left_ns <= 0:
                return
            # In naps, so that `close` need not wait for a slow recording.
            self._clock.sleep_ns(min(left_ns, _NAP_NS))
