"""The real-time loop: newest frame in, forecast with its evidence out."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import Any

from jetsight.backends import loading
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import FrameStream, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import Engine, NDArray
from jetsight.errors import EngineError
from jetsight.imagining import Imagining
from jetsight.planning.imagine import PlannerPool, Planning
from jetsight.planning.inputs import StreamState
from jetsight.stream.forecaster import Forecaster
from jetsight.stream.frames import Forecast, Frame, Mode, Reason
from jetsight.stream.health import HealthLimits, HealthMonitor
from jetsight.stream.summary import StreamSummary

_UNPACED_PERIOD_NS = (
    1_000_000_000  # frames that wait for the loop are late only if the reader hangs
)
_COMPUTED = frozenset({Reason.OK, Reason.ACTIONS_UNKNOWN, Reason.PLAN_UNKNOWN})
_BROKEN = frozenset(
    {Reason.LATENT_NOT_FINITE, Reason.FORECAST_NOT_FINITE, Reason.ENGINE_FAILED},
)


class Session(Imagining):
    """Two engines, the histories of one stream, and its health.

    Use `Session.open`; the constructor takes engines of your own, or fakes.

    Args:
        spec: sizes and statistics of the model.
        encode: engine of graph `encode`.
        forecast: engine of graph `forecast`.
        clock: shared with the camera.
        limits: when a stream is stale, lost or broken.
        planning: what `imagine` plans with; None if nothing shall.

    Attributes:
        health: judge of the running stream.
        drops: frames lost since the stream began.
        parity: smallest cosine to PyTorch on the bundle's reference data, per graph.
        backend: name of the backend.
        family: name of the graph family.
        precision: number format of each graph, e.g. `{"encode": "int8", "forecast": "fp32"}`.

    Example:
        >>> with Session.open("pusht-nano.jetsight") as session:
        ...     for forecast in session.stream(Camera.open("/dev/video0")):
        ...         if forecast.valid:
        ...             act_on(forecast.z_future)
    """

    def __init__(
        self,
        spec: StreamSpec,
        encode: Engine,
        forecast: Engine,
        *,
        clock: Clock | None = None,
        limits: HealthLimits | None = None,
        planning: Planning | None = None,
    ) -> None:
        self.spec = spec
        self.clock = clock or MonotonicClock()
        self.parity: dict[str, float] = {}
        self.backend, self.family = "custom", "custom"
        self.precision: Mapping[str, str] = {}
        self._encode, self._forecast = encode, forecast
        self._limits = limits or HealthLimits()
        self._imagination = PlannerPool(planning, encode, self.clock)
        self._tally = StreamSummary()
        self._index = self._tick = -1
        self._failures = 0
        self._reset(spec.period_ns)

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        backend: str | None = None,
        family: str | None = None,
        clock: Clock | None = None,
        *,
        threads: int | None = None,
    ) -> Session:
        """Verify and load a bundle, and prove its engines on the reference data it carries.

        Args:
            bundle: opened, or the path of one.
            backend: `"onnxruntime"`, `"openvino"` or `"tensorrt"`; None for the preferred one.
            family: graph family; None for the fastest one with engines built here, else the first
                in the manifest that can run here.
            clock: give the camera the same one.
            threads: CPU threads of the engines; None for one per physical core.

        Raises:
            BundleError: the bundle was refused.
            UsageError: there is no such backend or family.
            MissingDependency: the backend's library is not installed.
            EngineError: a graph cannot be loaded, or does not compute what PyTorch did.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        loaded = loading.load(opened, backend, family, threads)
        try:
            spec = StreamSpec.from_manifest(opened.manifest)
            planning = loading.planning(opened, loaded)
            session = cls(spec, loaded.encode, loaded.forecast, clock=clock, planning=planning)
            session.parity = loading.parity(opened, loaded)
        except BaseException:
            loaded.close()
            raise
        session.backend, session.family = loaded.backend, loaded.family.name
        session.precision = loaded.family.precision
        return session

    def stream(
        self, camera: FrameStream, rate_hz: float | None = None, frames: int | None = None
    ) -> Generator[Forecast, None, None]:
        """Forecast every frame until the camera ends; closes the camera.

        While no usable frame comes, an invalid forecast with its growing age is published once per
        period, so that whoever listens never waits for a camera.

        Args:
            camera: not started yet.
            rate_hz: overrides the rate the camera was opened with; see `Camera`.
            frames: stop after this many frames; None for all.

        Yields:
            One forecast per frame, in order of capture.

        Raises:
            CameraError: the camera cannot start, or ended before its time; everything it
                delivered was forecast first.
            EngineError: an engine failed several times in a row.
        """
        self.camera_info = camera.start(StreamRequest.of(self.spec), rate_hz)
        period_ns = camera.period_ns or _UNPACED_PERIOD_NS
        self._reset(period_ns)
        try:
            while frames is None or self._tally.frames < frames:
                frame = self._next(camera, period_ns)
                forecast = None if frame is None else self.step(frame, frozen=camera.frozen)
                if forecast is None:
                    if camera.ended:
                        break
                    forecast = self._stalled(camera.rejecting)
                if forecast is not None:
                    yield forecast
        finally:
            self._ended_ns = self.clock.now_ns()
            self._stamps = camera.stamps
            camera.close()
        if frames is None or self._tally.frames < frames:
            camera.raise_for_error()

    def _next(self, camera: FrameStream, period_ns: int) -> Frame | None:
        """The next frame; while there is none yet, noise for the next plan is drawn."""
        while self._imagination.prepare():
            frame = camera.next(0)
            if frame is not None:
                return frame
        return camera.next(period_ns)

    def step(self, frame: Frame, *, frozen: bool = False) -> Forecast | None:
        """Forecast one frame; for robots that bring their own loop.

        Args:
            frame: newer than the last one.
            frozen: the camera has repeated the same pixels for too long.

        Returns:
            The forecast; None when the frame is not newer and was dropped.

        Raises:
            EngineError: an engine failed several times in a row.
        """
        start_ns = self.clock.now_ns()
        # 1. Time: count what was lost, refuse what is not newer, note what was done meanwhile.
        lost = max(0, frame.index - self._index - 1) if self._index >= 0 else 0
        self._index = max(self._index, frame.index)
        if not self._forecaster.advance(frame):
            self.drops += lost + 1
            return None
        self.drops += lost
        # 2. Compute: encode, judge the last forecast, forecast on.
        reason, surprise = self._compute(frame)
        # 3. Trust: how old is it by now, and how has the stream been doing?
        age_ns = self.clock.now_ns() - frame.captured_ns
        self.health.frame(age_ns, reason if reason in _BROKEN else None, lost, frozen)
        # 4. Publish.
        forecast = self._evidence(frame, reason, surprise, age_ns)
        work_ns = self._forecaster.encode_ns + self._forecaster.forecast_ns
        forecast.overhead_ms = (self.clock.now_ns() - start_ns - work_ns) / 1e6
        self._tally.add(forecast)
        self._captured_ns, self._tick = frame.captured_ns, frame.tick
        return forecast

    def _compute(self, frame: Frame) -> tuple[Reason, float | None]:
        """Run the engines; a single failure costs one frame, several in a row end the stream."""
        forecaster = self._forecaster
        try:
            broken = forecaster.encode(frame)
            if broken is not None:
                return broken, None
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
        forecaster = self._forecaster
        finite = reason not in (Reason.LATENT_NOT_FINITE, Reason.ENGINE_FAILED)
        computed = reason in _COMPUTED
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
            surprising=surprise is not None and surprise > self.spec.surprise_limit,
            valid=reason is Reason.OK,
            reason=reason,
            mode=self.health.mode,
            drops=self.drops,
        )

    def _stalled(self, rejecting: bool) -> Forecast | None:
        """What to publish while there is no usable frame; None while the last is young enough."""
        age_ns = self.clock.now_ns() - self._captured_ns
        if not self.health.is_stale(age_ns):
            return None
        reason = Reason.FRAMES_REJECTED if rejecting else Reason.CAMERA_LOST
        self.health.stall(age_ns, reason)
        self._tally.stalls += 1
        return Forecast(
            frame_index=self._index,
            tick=self._tick,
            captured_ns=self._captured_ns,
            age_ms=age_ns / 1e6,
            reason=reason,
            mode=self.health.mode,
            drops=self.drops,
        )

    def _newest(self, now_ns: int) -> StreamState:
        """What `imagine` plans from."""
        stale = self.health.is_stale(now_ns - self._captured_ns)
        return StreamState(self._forecaster, self._tick, stale)

    def summary(self) -> dict[str, Any]:
        """What the last stream was like: counts, and percentiles over every frame of it.

        Example:
            >>> session.summary()["encode_ms"]
            {'p50': 3.1, 'p99': 4.0, 'max': 4.2}
        """
        ended_ns = self._ended_ns or self.clock.now_ns()
        return {
            **self._tally.summary(),
            "drops": self.drops,
            "resets": self._forecaster.resets,
            "seconds": (ended_ns - self._started_ns) / 1e9,
            "mode": str(self.health.mode),
            "stamps": self._stamps,
            "backend": self.backend,
            "family": self.family,
            "precision": dict(self.precision),
            "parity": self.parity,
        }

    def forget(self) -> None:
        """Start the counts and percentiles of `summary` again, e.g. after a warm-up."""
        self._tally.clear()
        self._started_ns = self.clock.now_ns()

    def close(self) -> None:
        """Release the engines; the session must not be used afterwards."""
        self._imagination.close()
        self._encode.close()
        self._forecast.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reset(self, period_ns: int) -> None:
        """Forget the last stream."""
        self._forecaster = Forecaster(self.spec, self._encode, self._forecast, self.clock)
        self._imagination.forget()
        self._z = _read_only(self._forecaster.z)
        self._z_future = _read_only(self._forecaster.z_future)
        self.health = HealthMonitor(period_ns, self._limits)
        self._tally.clear()
        self.drops = 0
        self._failures = 0
        self._index = -1
        self._tick = -1
        self._captured_ns = self._started_ns = self.clock.now_ns()
        self._ended_ns = 0
        self._stamps = "replay"


def _read_only(array: NDArray) -> NDArray:
    view: NDArray = array.view()
    view.flags.writeable = False
    return view
