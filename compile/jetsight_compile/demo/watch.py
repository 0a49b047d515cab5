"""A stream, kept: every number a session published, row by row.

Shapes: F forecasts, H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.cameras import Camera
from jetsight.cameras.source import Source
from jetsight.engine import NDArray
from jetsight.session import Session
from jetsight.stream.frames import Forecast


@dataclass(frozen=True)
class Watched:
    """What a session said of each frame; NaN where it said nothing.

    Args:
        index: `[F]` number of the frame; a jump means frames were dropped.
        tick: `[F]` its place on the model's time grid.
        encode_ms: `[F]` time of the encoder.
        forecast_ms: `[F]` time of the forecast graph; NaN where nothing was forecast.
        age_ms: `[F]` age of the frame when its forecast was published.
        surprise: `[F]` distance from what was expected, 1 is typical.
        surprising: `[F]` whether it was above the bundle's limit.
        valid: `[F]` whether the session vouched for the forecast.
        z: `[F, D]` latents.
        z_future: `[F, H, D]` forecasts.
        summary: of the session.
    """

    index: NDArray
    tick: NDArray
    encode_ms: NDArray
    forecast_ms: NDArray
    age_ms: NDArray
    surprise: NDArray
    surprising: NDArray
    valid: NDArray
    z: NDArray
    z_future: NDArray
    summary: dict[str, Any]


def watch(
    session: Session,
    source: Source,
    rate_hz: float,
    progress: Callable[[Forecast], None] = lambda forecast: None,
) -> Watched:
    """Stream a source to its end and keep everything.

    Args:
        session: open.
        source: not started.
        rate_hz: frames per second; 0 for as fast as they are taken, dropping none.
        progress: told of every forecast.

    Raises:
        CameraError: the source delivered nothing the model can take.
        EngineError: an engine failed several times in a row.
    """
    camera = Camera(source, clock=session.clock, rate_hz=rate_hz)
    kept: list[Forecast] = []
    for forecast in session.stream(camera):
        if forecast.z is not None:  # else there was no usable frame
            kept.append(forecast.copy())
        progress(forecast)
    return _rows(kept, session)


def _rows(kept: list[Forecast], session: Session) -> Watched:
    spec = session.spec
    nothing = np.full((spec.horizon, spec.latent_size), np.nan, np.float32)

    def column(values: list[Any], dtype: type) -> NDArray:
        return np.asarray([np.nan if value is None else value for value in values], dtype)

    return Watched(
        index=column([f.frame_index for f in kept], np.int64),
        tick=column([f.tick for f in kept], np.int64),
        encode_ms=column([f.encode_ms for f in kept], np.float64),
        forecast_ms=column(
            [None if f.z_future is None else f.forecast_ms for f in kept], np.float64
        ),
        age_ms=column([f.age_ms for f in kept], np.float64),
        surprise=column([f.surprise for f in kept], np.float64),
        surprising=column([f.surprising for f in kept], np.bool_),
        valid=column([f.valid for f in kept], np.bool_),
        z=np.stack([f.z for f in kept if f.z is not None]),
        z_future=np.stack([nothing if f.z_future is None else f.z_future for f in kept]),
        summary=session.summary(),
    )
