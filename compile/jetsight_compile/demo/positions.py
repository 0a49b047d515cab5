"""Forecasts in the robot's own units: positions, read out of latents by a linear probe.

Shapes: F frames of the stream, H horizon, L frames of the library, D latent size, s state size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.bundle.model_spec import ActionSpec
from jetsight.engine import NDArray
from jetsight_compile.demo.forecast_images import Marker
from jetsight_compile.demo.metrics import HorizonErrors
from jetsight_compile.demo.watch import Watched

_BETTER = 0.95  # of the error of persistence; above that, it is called no better
_RIDGE = 1e-3  # relative to the mean squared feature, as in `jetsight report`


@dataclass(frozen=True)
class Places:
    """Mean distance to where a thing really was k blocks later, per step `[H]`, in state units.

    Args:
        thing: what is located, e.g. `"block"`.
        model: read from the forecast.
        persistence: read from the latent at the time of forecasting, as if nothing moved.
        floor: read from the latent of the frame that came; no forecast can be read better.
    """

    thing: str
    model: list[float]
    persistence: list[float]
    floor: list[float]

    @property
    def better(self) -> bool:
        """At the longest horizon the forecast is closer than the assumption that nothing moves."""
        return self.model[-1] < _BETTER * self.persistence[-1]


@dataclass(frozen=True)
class Probe:
    """An affine map from latents to states, fitted by ridge regression."""

    weights: NDArray  # [D,s]
    offset: NDArray  # [s]

    @classmethod
    def fit(cls, z: NDArray, states: NDArray) -> Probe:
        """Fit to `z [L, D]` and `states [L, s]`."""
        x, y = z.astype(np.float64), states.astype(np.float64)
        centred = x - x.mean(axis=0)
        gram = centred.T @ centred
        gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        weights = np.linalg.solve(gram, centred.T @ (y - y.mean(axis=0)))
        return cls(weights, y.mean(axis=0) - x.mean(axis=0) @ weights)

    def read(self, z: NDArray) -> NDArray:
        """States of latents `[..., D] -> [..., s]`."""
        return np.asarray(z.astype(np.float64) @ self.weights + self.offset)


def located_things(state_names: Sequence[str]) -> dict[str, list[int]]:
    """Things the state gives a position of: `agent_x, agent_y` at 0, 1 is `{"agent": [0, 1]}`."""
    names = list(state_names)
    return {
        name[:-2]: [names.index(name), names.index(f"{name[:-2]}_y")]
        for name in names
        if name.endswith("_x") and f"{name[:-2]}_y" in names
    }


def picture_marker(probe: Probe, state_names: Sequence[str], action: ActionSpec) -> Marker | None:
    """Return a function that locates objects in the picture, or None if none is known.

    Positions are places in the picture only if the robot is steered in pixels; the bounds of its
    actions are then the edges of the picture.
    """
    things = located_things(state_names)
    if not things or set(action.units) != {"px"} or len({*action.low}) + len({*action.high}) != 2:
        return None
    low, span = action.low[0], action.high[0] - action.low[0]

    def mark(z: NDArray) -> list[tuple[float, float]]:
        state = (probe.read(z) - low) / span * 100.0
        return [(float(state[x]), float(state[y])) for x, y in things.values()]

    return mark


def locate(watched: Watched, errors: HorizonErrors, probe: Probe) -> list[Places]:
    """Judge every forecast that `errors` judged, for every thing whose position was recorded."""
    states = np.stack([watched.replay.state(int(i)) for i in watched.index])  # [F,s]
    forecast, encoded = probe.read(watched.z_future), probe.read(watched.z)
    judged = [np.flatnonzero(np.isfinite(column)) for column in errors.model.T]
    pairs = [(now, watched.rows_ahead(k)[now]) for k, now in enumerate(judged)]
    return [
        Places(
            thing,
            [_mean(forecast[now, k], states[then], xy) for k, (now, then) in enumerate(pairs)],
            [_mean(encoded[now], states[then], xy) for now, then in pairs],
            [_mean(encoded[then], states[then], xy) for _, then in pairs],
        )
        for thing, xy in located_things(watched.replay.state_names).items()
    ]


def _mean(found: NDArray, truth: NDArray, columns: list[int]) -> float:
    return float(np.linalg.norm(found[:, columns] - truth[:, columns], axis=-1).mean())
