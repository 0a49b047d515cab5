"""Metrics of a stream: skill against persistence, surprise with its control, parity.

Shapes: F frames that were forecast, H horizon, B action block, K history, D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.engine import Engine, NDArray
from jetsight.errors import DataError
from jetsight.histogram import Histogram
from jetsight_compile.demo.watch import Watched

Parity = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class HorizonErrors:
    """Squared latent distances `[F, H]` to the frame that came k blocks later; NaN where none did.

    `model` is from the forecast, `persistence` from the latent at the time of forecasting.
    """

    model: NDArray
    persistence: NDArray

    @property
    def skill(self) -> NDArray:
        """`1 - E model / E persistence` per step `[H]`: 0 copies the last latent, 1 is perfect."""
        return np.asarray(
            1.0 - np.nanmean(self.model, axis=0) / np.nanmean(self.persistence, axis=0)
        )

    @property
    def counts(self) -> list[int]:
        """Number of forecasts that each step is measured on, `[H]`."""
        return [int(n) for n in np.isfinite(self.model).sum(axis=0)]


def horizon_errors(watched: Watched) -> HorizonErrors:
    """Compare every forecast with what was encoded later.

    Forecasts whose history or future reaches across a change of scene are left out: no model could
    predict it.

    Raises:
        DataError: no forecast of some step can be judged.
    """
    spec, z = watched.spec, watched.z.astype(np.float64)
    piece = np.asarray([watched.replay.scenario.piece_of(int(i)) for i in watched.index])
    oldest = watched.rows_at(watched.tick - spec.span_ticks)
    forecast = np.isfinite(watched.z_future[:, 0, 0]) & (oldest >= 0)
    model, persistence = (np.full((len(z), spec.horizon), np.nan) for _ in range(2))
    for k in range(spec.horizon):
        ahead = watched.rows_ahead(k)
        rows = np.flatnonzero(forecast & (ahead >= 0) & (piece[oldest] == piece[ahead]))
        came = z[ahead[rows]]
        model[rows, k] = np.square(watched.z_future[rows, k] - came).sum(axis=-1)
        persistence[rows, k] = np.square(z[rows] - came).sum(axis=-1)
    errors = HorizonErrors(model, persistence)
    if min(errors.counts) == 0:
        raise DataError(
            f"no forecast could be compared with the frame {spec.horizon} blocks later "
            f"({watched.summary['drops']} frames were dropped); close other programs, or show more "
            "frames of longer episodes"
        )
    return errors


@dataclass(frozen=True)
class SurpriseReport:
    """Surprise without and with the planted change, and without it at the same frame.

    Args:
        normal_p50: median of frames that no change touches.
        normal_p99: their 99th percentile.
        normal_max: their maximum.
        normal_frames: how many they are.
        false_alarms: how many of them were flagged.
        change_frame: index of the first changed frame.
        at_change: largest surprise within one action block of the change; None when it is not known
            because frames around it were dropped.
        flagged_frame: first frame flagged within that block; None when it was missed.
        caught: it was flagged.
        control_at_change: the same as `at_change`, in the same episode without the change.
        control_flagged: the control was flagged at that frame, which it must not be.
        limit: above which a frame is flagged.
    """

    normal_p50: float
    normal_p99: float
    normal_max: float
    normal_frames: int
    false_alarms: int
    change_frame: int
    at_change: float | None
    flagged_frame: int | None
    caught: bool
    control_at_change: float | None
    control_flagged: bool
    limit: float

    @property
    def frames_until_flagged(self) -> int | None:
        """Frames between the first changed frame and the first flagged one."""
        return None if self.flagged_frame is None else self.flagged_frame - self.change_frame


def surprise_report(watched: Watched, control: Watched) -> SurpriseReport:
    """Judge the surprise of a stream with a planted change, beside `control` without it.

    Raises:
        DataError: nothing was planted, or surprise is known for no normal frame.
    """
    spec, scenario = watched.spec, watched.replay.scenario
    change = scenario.change
    if change is None:
        raise DataError("the scenario has no planted change; plan one with plan_scenario")
    at, flagged = _around(watched, change, spec.action_block)
    same_frame = change - scenario.starts[-2]
    control_at, control_flagged = _around(control, same_frame, spec.action_block)
    normal = normal_rows(watched, change)
    values = Histogram()
    for value in watched.surprise[normal]:
        values.add(float(value))
    if values.count == 0:
        raise DataError(
            f"surprise is not known for any normal frame: {watched.summary['drops']} frames were "
            "dropped; close other programs, or stream at a lower rate"
        )
    return SurpriseReport(
        normal_p50=values.percentile(50),
        normal_p99=values.percentile(99),
        normal_max=values.max,
        normal_frames=values.count,
        false_alarms=int(watched.surprising[normal].sum()),
        change_frame=change,
        at_change=at,
        flagged_frame=flagged,
        caught=flagged is not None,
        control_at_change=control_at,
        control_flagged=control_flagged is not None,
        limit=spec.surprise_limit,
    )


def normal_rows(watched: Watched, change: int) -> NDArray:
    """`bool [F]`: surprise is known, and nothing it was computed from saw the change."""
    until = change + watched.spec.history * watched.spec.action_block
    touched = (watched.index >= change) & (watched.index < until)
    return np.asarray(np.isfinite(watched.surprise) & ~touched)


def _around(watched: Watched, change: int, block: int) -> tuple[float | None, int | None]:
    """Largest surprise in the block from frame `change` on, and the first flagged frame in it."""
    rows = np.flatnonzero((watched.index >= change) & (watched.index < change + block))
    known = [row for row in rows if np.isfinite(watched.surprise[row])]
    if not known:
        return None, None
    flagged = [int(watched.index[row]) for row in known if watched.surprising[row]]
    return float(watched.surprise[known].max()), flagged[0] if flagged else None


def engine_parity(bundle: Bundle, family: str, threads: int | None = None) -> Parity:
    """Compare the outputs of each installed backend with the bundle's float32 reference data.

    Returns:
        `{backend: {graph: {cosine_min, max_abs, control_cosine_max}}}`; the control compares each
        output with the reference of *another* sample, and must be worse.

    Raises:
        EngineError: a backend cannot load a graph.
    """
    golden = bundle.golden()
    return {
        info.name: {
            graph: _against(
                registry.open_backend(info.name, family, threads=threads).load(
                    bundle.graph(family, graph)
                ),
                golden,
                output,
            )
            for graph, output in (("encode", "z"), ("forecast", "z_future"))
        }
        for info in registry.available()
        if info.reason is None and info.runs(family)
    }


def _against(engine: Engine, golden: Mapping[str, NDArray], output: str) -> dict[str, float]:
    found = []
    for i in range(len(golden[output])):
        for name, array in engine.inputs.items():
            array.write(golden[name][i])
        engine.run()
        found.append(engine.outputs[output].read().copy())
    engine.close()
    computed, expected = np.stack(found), golden[output]
    return {
        "cosine_min": float(_cosines(computed, expected).min()),
        "max_abs": float(np.abs(computed - expected).max()),
        "control_cosine_max": float(_cosines(computed, np.roll(expected, 1, axis=0)).max()),
    }


def _cosines(a: NDArray, b: NDArray) -> NDArray:
    """Cosine of every latent of `a` with the one at the same place in `b`."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(norms, 1e-12))
