"""Cost of the loop beside its engines, measured with engines that do nothing.

Shapes: h, w frame size; a size of one robot action.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.camera import Camera
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.session import Session
from jetsight.testing.engine import FakeBackend

_SETTLE_FRAMES = 64  # first calls of everything, the first history, and the plan


@dataclass(frozen=True, slots=True)
class Overhead:
    """Cost of the loop with null engines.

    Args:
        frames: measured.
        overhead_ms: p50, p99, max from taking a frame to publishing its forecast.
        age_ms: the same from the stamp in the camera thread: hand-over and wake-up included.
        period_ms: of the model's camera.
        kept_bytes: Python memory allocated after the frames and not before them.
        peak_bytes: peak of Python memory that a single frame allocated.
    """

    frames: int
    overhead_ms: dict[str, float]
    age_ms: dict[str, float]
    period_ms: float
    kept_bytes: int
    peak_bytes: int

    @property
    def share_of_period(self) -> float:
        """p99 of the overhead as a share of the camera period."""
        return self.overhead_ms["p99"] / self.period_ms


class _Noise:
    """A source of `count` different pictures with known actions."""

    def __init__(self, count: int) -> None:
        self._count = count

    def start(self, request: StreamRequest) -> SourceInfo:
        rng = np.random.default_rng(0)
        shape = request.frame_shape
        # Two pictures in turns, made in advance: the source must cost nothing. No zeros: not black.
        self._images = [rng.integers(1, 255, shape, np.uint8) for _ in range(2)]
        self._action = np.zeros((1, request.step_size), np.float32)
        self._plan = np.zeros((request.plan_ticks, request.step_size), np.float32)
        self._period_ns = round(1e9 / request.camera_hz)
        self._index = 0
        return SourceInfo("noise", request.height_px, request.width_px, request.camera_hz)

    def read(self) -> Reading | None:
        index, self._index = self._index, self._index + 1
        if index >= self._count:
            return None
        image = self._images[index % 2]
        return Reading(image, index * self._period_ns, actions=self._action, plan=self._plan)

    def close(self) -> None:
        """Keep the pictures: freeing them would show up as memory of the loop."""


def loop_overhead(
    height_px: int = 224,
    width_px: int = 224,
    camera_hz: float = 30.0,
    frames: int = 1000,
    rate_hz: float = 250.0,
) -> Overhead:
    """Stream `frames` pictures through a real camera thread and null engines.

    Args:
        height_px: frame height.
        width_px: frame width.
        camera_hz: of the model; only for `share_of_period`.
        frames: to measure.
        rate_hz: how fast to play them.

    Example:
        >>> loop_overhead().overhead_ms
        {'p50': 0.09, 'p99': 0.16, 'max': 0.41}
    """
    # In a run of its own, because tracing memory slows every allocation.
    kept, peak = loop_memory(height_px, width_px, frames)
    session = _null_session(height_px, width_px, camera_hz)
    camera = Camera(_Noise(frames + _SETTLE_FRAMES), rate_hz=rate_hz)
    for forecast in session.stream(camera):
        if forecast.frame_index == _SETTLE_FRAMES:
            session.forget()
    summary = session.summary()
    return Overhead(
        frames=summary["frames"],
        overhead_ms=summary["overhead_ms"],
        age_ms=summary["frame_age_ms"],
        period_ms=1e3 / camera_hz,
        kept_bytes=kept,
        peak_bytes=peak,
    )


def loop_memory(height_px: int = 224, width_px: int = 224, frames: int = 1000) -> tuple[int, int]:
    """Stream `frames` pictures through a real camera thread and null engines, counting bytes.

    Args:
        height_px: frame height.
        width_px: frame width.
        frames: to measure.

    Returns:
        Bytes kept after the frames, and the peak that one frame allocated; what
        tracemalloc sees, so Python and NumPy, and not what an inference library keeps.
    """
    session = _null_session(height_px, width_px, camera_hz=30.0)
    camera = Camera(_Noise(frames + _SETTLE_FRAMES), rate_hz=0)
    before = now = peak = 0
    tracemalloc.start()
    try:
        for forecast in session.stream(camera):
            last = now
            now, top = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            if forecast.frame_index == _SETTLE_FRAMES:
                before = now
            elif forecast.frame_index > _SETTLE_FRAMES:
                peak = max(peak, top - last)
    finally:
        tracemalloc.stop()
    return now - before, peak


def _null_session(height_px: int, width_px: int, camera_hz: float) -> Session:
    spec = StreamSpec(
        height_px=height_px,
        width_px=width_px,
        camera_hz=camera_hz,
        history=3,
        horizon=5,
        action_block=5,
        latent_size=192,
        neutral=np.zeros(2, np.float32),
        latent_std=np.ones(192, np.float32),
    )
    # Engines that do nothing, so that all that is measured is the loop.
    null = {"encode": {"compute": None}, "forecast": {"compute": None}}
    backend = FakeBackend(spec, null)
    return Session(spec, backend.load(b"encode"), backend.load(b"forecast"))
