"""The record of one stream: every forecast of a session, column by column.

Shapes: F frames of the stream, H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras import Camera
from jetsight.engine import NDArray
from jetsight.session import Session
from jetsight.stream.frames import Forecast
from jetsight_compile.demo.scenario import Replay, ReplaySource

Progress = Callable[[Forecast], None]


@dataclass(frozen=True)
class Watched:
    """The forecasts of one stream; NaN where a value is not known.

    Args:
        spec: of the model.
        replay: what the camera showed.
        index: `[F]` number of the frame; a jump means frames were dropped.
        tick: `[F]` its place on the model's time grid.
        encode_ms: `[F]` time of the encoder.
        forecast_ms: `[F]` time of the forecast graph; NaN where nothing was forecast.
        age_ms: `[F]` age of the frame when its forecast was published.
        surprise: `[F]` distance from what was expected, 1 is typical.
        surprising: `[F]` whether it was above the bundle's limit.
        valid: `[F]` whether the session marked the forecast valid.
        z: `[F, D]` latents.
        z_future: `[F, H, D]` forecasts.
        summary: of the session.
    """

    spec: StreamSpec
    replay: Replay
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

    def rows_at(self, ticks: NDArray) -> NDArray:
        """Rows of the frames at `ticks`; -1 where the frame was dropped or does not exist."""
        row_of = {int(tick): row for row, tick in enumerate(self.tick)}
        return np.asarray([row_of.get(int(tick), -1) for tick in ticks], np.int64)

    def rows_ahead(self, k: int) -> NDArray:
        """`[F]` for each row that of the frame k + 1 action blocks later, or -1."""
        return self.rows_at(self.tick + (k + 1) * self.spec.action_block)


def watch(
    session: Session,
    replay: Replay,
    rate_hz: float,
    progress: Progress = lambda forecast: None,
) -> Watched:
    """Stream a replay to its end and keep every forecast.

    Args:
        session: open.
        replay: to show.
        rate_hz: frames per second; 0 for as fast as they are taken, dropping none.
        progress: called with every forecast.

    Raises:
        CameraError: the source delivered nothing the model can take.
        EngineError: an engine failed several times in a row.
    """
    camera = Camera(ReplaySource(replay), clock=session.clock, rate_hz=rate_hz)
    kept: list[Forecast] = []
    for forecast in session.stream(camera):
        if forecast.z is not None:  # else there was no usable frame
            kept.append(forecast.copy())
        progress(forecast)
    nothing = np.full((session.spec.horizon, session.spec.latent_size), np.nan, np.float32)
    futures = [f.z_future for f in kept]
    return Watched(
        spec=session.spec,
        replay=replay,
        index=_column([f.frame_index for f in kept], np.int64),
        tick=_column([f.tick for f in kept], np.int64),
        encode_ms=_column([f.encode_ms for f in kept]),
        forecast_ms=_column([None if f.z_future is None else f.forecast_ms for f in kept]),
        age_ms=_column([f.age_ms for f in kept]),
        surprise=_column([f.surprise for f in kept]),
        surprising=_column([f.surprising for f in kept], np.bool_),
        valid=_column([f.valid for f in kept], np.bool_),
        z=np.stack([f.z for f in kept if f.z is not None]),
        z_future=np.stack([nothing if z is None else z for z in futures]),
        summary=session.summary(),
    )


def _column(values: list[Any], dtype: type = np.float64) -> NDArray:
    return np.asarray([np.nan if value is None else value for value in values], dtype)
