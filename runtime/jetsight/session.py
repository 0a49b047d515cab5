"""The facade a robot uses: open a bundle, stream forecasts, imagine plans."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import Any

from jetsight.backends import loading
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import FrameStream, StreamRequest
from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import Engine
from jetsight.imagining import Imagining
from jetsight.planning.imagine import PlannerPool, Planning
from jetsight.stream.frames import Forecast, Frame
from jetsight.stream.health import HealthLimits, HealthMonitor
from jetsight.stream.loop import StreamLoop, StreamState


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
        self._imagination = PlannerPool(planning, encode, self.clock)
        self._loop = StreamLoop(spec, encode, forecast, self.clock, limits)

    @property
    def health(self) -> HealthMonitor:
        """Judge of the running stream."""
        return self._loop.health

    @property
    def drops(self) -> int:
        """Frames lost since the stream began."""
        return self._loop.drops

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
        self._imagination.forget()
        yield from self._loop.run(camera, frames, idle=self._imagination.prepare)

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
        return self._loop.step(frame, frozen=frozen)

    def _newest(self, now_ns: int) -> StreamState:
        return self._loop.state(now_ns)

    def summary(self) -> dict[str, Any]:
        """What the last stream was like: counts, and percentiles over every frame of it.

        Example:
            >>> session.summary()["encode_ms"]
            {'p50': 3.1, 'p99': 4.0, 'max': 4.2}
        """
        return {
            **self._loop.summary(),
            "backend": self.backend,
            "family": self.family,
            "precision": dict(self.precision),
            "parity": self.parity,
        }

    def forget(self) -> None:
        """Start the counts and percentiles of `summary` again, e.g. after a warm-up."""
        self._loop.forget()

    def close(self) -> None:
        """Release the engines; the session must not be used afterwards."""
        self._imagination.close()
        self._encode.close()
        self._forecast.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
