"""The real-time loop of one stream: newest frame in, forecast with its evidence out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.clock import Clock
from jetsight.engine import Engine, read_only
from jetsight.errors import EngineError
from jetsight.stream.assumption import ActionAssumption, Assumed
from jetsight.stream.forecaster import Forecaster
from jetsight.stream.frames import Forecast, Frame, Mode, Reason
from jetsight.stream.health import HealthLimits, HealthMonitor
from jetsight.stream.summary import StreamSummary

# Frames that wait for the loop are late only if the reader hangs.
_UNPACED_PERIOD_NS = 1_000_000_000
_COMPUTED = frozenset(
    {Reason.OK, Reason.ACTIONS_UNKNOWN, Reason.PLAN_UNKNOWN, Reason.ACTION_UNTRAINED}
)
_NO_LATENT = frozenset({Reason.LATENT_NOT_FINITE, Reason.ENGINE_FAILED, Reason.STATE_UNKNOWN})
_BROKEN = frozenset(
    {
        Reason.STATE_UNKNOWN,
        Reason.LATENT_NOT_FINITE,
        Reason.FORECAST_NOT_FINITE,
        Reason.ENGINE_FAILED,
    },
)


class FrameFeed(Protocol):
    """A started camera as the loop uses it.

    Attributes:
        stamps: origin of the capture times: "driver", "arrival" or "replay".
    """

    stamps: str

    @property
    def period_ns(self) -> int:
        """Time between frames; 0 when they wait for the loop."""
        ...

    @property
    def ended(self) -> bool:
        """There will be no more frames, and the last one was taken."""
        ...

    @property
    def frozen(self) -> bool:
        """The same pixels have arrived for too long."""
        ...

    @property
    def rejecting(self) -> bool:
        """The newest frame was one the model cannot take."""
        ...

    def next(self, timeout_ns: int) -> Frame | None:
        """Return the newest frame not seen yet; None after `timeout_ns` without one."""
        ...

    def raise_for_error(self) -> None:
        """Raise what ended the camera before its time, if anything did."""
        ...

    def close(self) -> None:
        """Stop, within a second whatever the driver does."""
        ...


@dataclass(frozen=True, slots=True)
class StreamState:
    """Newest state of a stream, to plan from.

    Args:
        forecaster: holds its histories.
        tick: of the newest frame; -1 before the first one.
        stale: that frame is too old to plan from.
        assumed: its actions are assumed by default, which is too little to plan from.
    """

    forecaster: Forecaster
    tick: int
    stale: bool
    assumed: bool = False


class StreamLoop:
    """Histories, health and counts of one stream, advanced frame by frame.

    Args:
        spec: sizes and statistics of the model.
        encode: engine of graph `encode`.
        forecast: engine of graph `forecast`.
        clock: shared with the camera.
        limits: when a stream is stale, lost or broken.

    Attributes:
        health: judge of the running stream.
        drops: frames lost since the stream began.
    """

    def __init__(
        self,
        spec: StreamSpec,
        encode: Engine,
        forecast: Engine,
        clock: Clock,
        limits: HealthLimits | None = None,
    ) -> None:
        self._spec, self._clock = spec, clock
        self._encode, self._forecast = encode, forecast
        self._source_hz: float | None = None
        self._limits = limits or HealthLimits()
        self._summary = StreamSummary()
        self._assumption: ActionAssumption | None = None
        self._index = self._tick = -1
        self._failures = 0
        self._reset(spec.period_ns)

    def run(
        self,
        camera: FrameFeed,
        frames: int | None,
        idle: Callable[[], bool],
        assumption: ActionAssumption | None = None,
    ) -> Generator[Forecast, None, None]:
        """Forecast every frame of a started camera until it ends; closes the camera.

        Args:
            camera: started.
            frames: stop after this many frames; None for all.
            idle: does a piece of other work while there is no frame; False when none is left.
            assumption: about the actions of a source that reports none; None for no assumption.

        Yields:
            One forecast per frame, and an invalid one per period without a usable frame.

        Raises:
            CameraError: the camera ended before its time; its frames were forecast first.
            EngineError: an engine failed several times in a row.
        """
        period_ns = camera.period_ns or _UNPACED_PERIOD_NS
        self._reset(period_ns)
        # Optional: a camera of the user's own need not know its rate.
        self._source_hz = getattr(camera, "source_hz", None)
        self._assumption = assumption
        try:
            while frames is None or self._summary.frames < frames:
                frame = _next(camera, period_ns, idle)
                forecast = None if frame is None else self.step(frame, frozen=camera.frozen)
                if forecast is None:
                    if camera.ended:
                        break
                    forecast = self.stalled(camera.rejecting)
                if forecast is not None:
                    yield forecast
        finally:
            # Also reached when the consumer stops early, which closes this generator.
            self._ended_ns = self._clock.now_ns()
            self._stamps = camera.stamps
            camera.close()
        if frames is None or self._summary.frames < frames:
            # Only now, after all delivered frames; with enough of them its end is no error.
            camera.raise_for_error()

    def step(self, frame: Frame, *, frozen: bool = False) -> Forecast | None:
        """Forecast one frame; see `Session.step`."""
        start_ns = self._clock.now_ns()
        if self._assumption is not None:
            frame = self._assumption.fill(frame)
        # 1. Time: count what was lost, refuse what is not newer, note what was done meanwhile.
        lost = max(0, frame.index - self._index - 1) if self._index >= 0 else 0
        # A frame out of order must not set the count back: the next one would count as a gap.
        self._index = max(self._index, frame.index)
        if not self._forecaster.advance(frame):
            self.drops += lost + 1
            return None
        self.drops += lost
        # 2. Compute: encode, judge the last forecast, forecast on.
        reason, surprise = self._compute(frame)
        # 3. Trust: how old is it by now, and how has the stream been doing?
        age_ns = self._clock.now_ns() - frame.captured_ns
        # Before the evidence, which carries the mode that this frame led to.
        self.health.frame(age_ns, reason if reason in _BROKEN else None, lost, frozen)
        # 4. Publish.
        forecast = self._evidence(frame, reason, surprise, age_ns)
        work_ns = self._forecaster.encode_ns + self._forecaster.forecast_ns
        forecast.overhead_ms = (self._clock.now_ns() - start_ns - work_ns) / 1e6
        self._summary.add(forecast)
        self._captured_ns, self._tick = frame.captured_ns, frame.tick
        return forecast

    def _compute(self, frame: Frame) -> tuple[Reason, float | None]:
        """Run the engines; a single failure costs one frame, several in a row end the stream."""
        forecaster = self._forecaster
        try:
            broken = forecaster.encode(frame)
            if broken is not None:
                if broken is not Reason.STATE_UNKNOWN:
                    self._failures = 0  # the engine did run: failures before it are not in a row
                return broken, None
            # Before the forecast: it may run the same engine, and leaves its result in `z_future`.
            surprise = forecaster.surprise(frame.tick)
            reason = forecaster.forecast(frame)
        except EngineError:
            self._failures += 1
            if self._failures >= self._limits.engine_failures:
                raise
            return Reason.ENGINE_FAILED, None
        self._failures = 0
        return reason, surprise

    def _evidence(
        self, frame: Frame, reason: Reason, surprise: float | None, age_ns: int
    ) -> Forecast:
        """Assemble the forecast of a frame from what was computed and how far to trust it."""
        forecaster = self._forecaster
        finite = reason not in _NO_LATENT
        computed = reason in _COMPUTED
        # A broken frame keeps its own reason, which says more than its age.
        if reason is Reason.OK and self.health.is_stale(age_ns):
            reason = Reason.FRAME_STALE
        elif reason is Reason.OK and self.health.mode >= Mode.HOLD:
            reason = Reason.RECOVERING
        return Forecast(
            frame_index=frame.index,
            tick=frame.tick,
            captured_ns=frame.captured_ns,
            age_ms=age_ns / 1e6,
            encode_ms=forecaster.encode_ns / 1e6,
            forecast_ms=forecaster.forecast_ns / 1e6,
            z=self._z if finite else None,
            z_future=self._z_future if computed else None,
            surprise=surprise,
            surprising=surprise is not None and surprise > self._spec.surprise_limit,
            valid=reason is Reason.OK,
            reason=reason,
            mode=self.health.mode,
            drops=self.drops,
            source_hz=self._source_hz,
            assumed=self._assumed,
        )

    @property
    def _assumed(self) -> Assumed | None:
        return None if self._assumption is None else self._assumption.assumed

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the frames that the encoder takes."""
        return self._encode.inputs["frame_hwc_u8"].shape

    def restart(self, period_ns: int | None = None) -> None:
        """Begin another stream for `step`, with empty histories.

        Args:
            period_ns: of the frames; None where the world waits for the loop.
        """
        self._reset(period_ns or _UNPACED_PERIOD_NS)

    def stalled(self, rejecting: bool) -> Forecast | None:
        """Assemble the invalid forecast of a stalled stream; None while the last is recent."""
        age_ns = self._clock.now_ns() - self._captured_ns
        if not self.health.is_stale(age_ns):
            return None
        reason = Reason.FRAMES_REJECTED if rejecting else Reason.CAMERA_LOST
        self.health.stall(age_ns, reason)
        self._summary.stalls += 1
        return Forecast(
            frame_index=self._index,
            tick=self._tick,
            captured_ns=self._captured_ns,
            age_ms=age_ns / 1e6,
            reason=reason,
            mode=self.health.mode,
            drops=self.drops,
            source_hz=self._source_hz,
        )

    def state(self, now_ns: int) -> StreamState:
        """Return the state to plan from at `now_ns`."""
        stale = self.health.is_stale(now_ns - self._captured_ns)
        assumption = self._assumption
        silent = assumption is not None and bool(assumption.assumed) and not assumption.declared
        return StreamState(self._forecaster, self._tick, stale, silent)

    def summary(self) -> dict[str, Any]:
        """Count the last stream, with percentiles over every frame of it."""
        ended_ns = self._ended_ns or self._clock.now_ns()
        return {
            **self._summary.summary(),
            "drops": self.drops,
            "resets": self._forecaster.resets,
            "seconds": (ended_ns - self._started_ns) / 1e9,
            "mode": str(self.health.mode),
            "stamps": self._stamps,
            "source_hz": self._source_hz,
            "assumed": self._assumed,
        }

    def forget(self) -> None:
        """Restart the counts and percentiles of `summary`; the stream itself goes on."""
        self._summary.clear()
        self._started_ns = self._clock.now_ns()

    def _reset(self, period_ns: int) -> None:
        """Begin a stream with empty histories."""
        # A new one: histories of another stream must not reach into this one.
        self._forecaster = Forecaster(self._spec, self._encode, self._forecast, self._clock)
        self._z = read_only(self._forecaster.z)
        self._z_future = read_only(self._forecaster.z_future)
        self.health = HealthMonitor(period_ns, self._limits)
        self._summary.clear()
        self.drops = 0
        self._failures = 0
        self._index = self._tick = -1
        # As if a frame had just arrived: the camera gets its time to deliver the first one.
        self._captured_ns = self._started_ns = self._clock.now_ns()
        self._ended_ns = 0
        self._stamps = "replay"
        self._source_hz = None
        self._assumption = None


def frames_of(camera: FrameFeed, period_ns: int) -> Generator[Frame | None, None, None]:
    """Yield the frames of a started camera, and None for a period without one; closes it.

    Raises:
        CameraError: the camera ended before its time.
    """
    try:
        while not camera.ended:
            frame = camera.next(period_ns)
            if frame is not None or not camera.ended:
                yield frame
    finally:
        camera.close()
    camera.raise_for_error()


def _next(camera: FrameFeed, period_ns: int, idle: Callable[[], bool]) -> Frame | None:
    """Wait up to a period for the next frame; what `idle` does never delays one that is there."""
    while idle():
        frame = camera.next(0)
        if frame is not None:
            return frame
    return camera.next(period_ns)
