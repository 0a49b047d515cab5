"""Alignment of actions with what they move: copies of the state, and actions some ticks off.

Row t holds observation t and the action taken at t, which leads to observation t+1. So the change
of the state from t to t+1 must be explained best by the action of row t, neither by one of
another row. The same holds for the motion in the pictures.

Shapes: T rows of an episode, a action size, s state size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import Rows

_LEAST_ROWS = 60  # fewer say nothing about a lag
_RIDGE = 1e-3  # of the standardised regressors: many joints move together
_MOST_ROWS = 20_000
# A lag is reported where it leaves a third less unexplained than no lag does, and is no accident.
_BETTER, _LEAST_GAIN = 1.5, 0.1
_LAGS_S = 0.4  # longer than any controller waits


@dataclass(frozen=True)
class ActionLag:
    """Lag at which actions explain the change of the state best.

    Attributes:
        ticks: rows from an action to its effect; 0 is right, 1 is one tick late, -1 early.
        gain: by lag from `-most` to `most`, the share of the change of the state that actions
            explain beyond what the motion so far does; on episodes held out from the fit, over
            the dimensions that actions move.
    """

    ticks: int
    gain: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """True if `ticks` is far better than no lag, not a matter of smooth motion."""
        none = self.gain[len(self.gain) // 2]
        best = max(self.gain)
        return self.ticks != 0 and best >= _LEAST_GAIN and (1 - none) >= _BETTER * (1 - best)


def shared_dimensions(
    action_names: Sequence[str], state_names: Sequence[str]
) -> list[tuple[int, int]]:
    """Pair the action dimensions with the state dimensions of the same name, or of the same place.

    Names decide where any agree; else the places do, if there are equally many.
    """
    named = [(i, state_names.index(n)) for i, n in enumerate(action_names) if n in state_names]
    if named or len(action_names) != len(state_names):
        return named
    return [(i, i) for i in range(len(action_names))]


def copied_state(
    episodes: Sequence[Rows], pairs: Sequence[tuple[int, int]]
) -> Literal["this", "next"] | None:
    """Return whether actions are only the state of the same row, or of the next one.

    Args:
        episodes: of the recording.
        pairs: action and state dimensions that may be the same quantity.
    """
    usable = [rows for rows in episodes if len(rows.actions) > 1]
    if not pairs or not usable:
        return None
    left, right = (list(side) for side in zip(*pairs, strict=True))
    # In float64: a wrong unit may exceed what float32 can square.
    actions = np.concatenate([rows.actions[:-1][:, left] for rows in usable]).astype(np.float64)
    scale = np.maximum(actions.std(axis=0), 1e-6)
    moving = actions.std(axis=0) > 1e-6
    kinds: tuple[tuple[Literal["this", "next"], slice], ...] = (
        ("this", slice(None, -1)),
        ("next", slice(1, None)),
    )
    for kind, span in kinds:
        states = np.concatenate([rows.states[span][:, right] for rows in usable])
        error = np.abs(actions - states) / scale
        # Some rows may differ, where an episode was cut or a stop was inserted.
        if moving.any() and np.quantile(error[:, moving], 0.95) < 1e-4:
            return kind
    return None


def action_lag(
    episodes: Sequence[Rows], pairs: Sequence[tuple[int, int]], hz: float
) -> ActionLag | None:
    """Find the lag from actions to changes of the state; None where too little is recorded.

    A linear model of the next change of each state dimension, from its value, its last change and
    the action at each lag, is fitted to every other episode (or to the first half of a single one)
    and scored on the rest.

    Args:
        episodes: of the recording.
        pairs: action and state dimensions of the same quantity, which are compared alone; all
            actions may move every state dimension if empty.
        hz: rate of the recording.
    """
    most = max(2, round(_LAGS_S * hz))
    parts = [_Regression.of(rows, most) for rows in _halves(episodes)]
    known = [part for part in parts if part is not None]
    fit, score = _Regression.join(known[::2]), _Regression.join(known[1::2])
    if fit is None or score is None or min(len(fit.change), len(score.change)) < _LEAST_ROWS:
        return None
    curves = []
    for i in range(fit.change.shape[1]):
        used = [a for a, s in pairs if s == i] if pairs else list(range(fit.actions.shape[2]))
        if used and fit.change[:, i].std() > 1e-9 and score.change[:, i].std() > 1e-9:
            base = _residual(fit, score, i, None, used)
            rest = [_residual(fit, score, i, lag, used) for lag in range(2 * most + 1)]
            curves.append([1.0 - each / max(base, 1e-30) for each in rest])
    # A dimension that no action moves, such as an obstacle, has nothing to say.
    moved = [curve for curve in curves if max(curve) >= _LEAST_GAIN]
    if not moved:
        return None
    gain = np.mean(moved, axis=0)
    return ActionLag(int(np.argmax(gain)) - most, tuple(round(float(each), 4) for each in gain))


@dataclass(frozen=True)
class _Regression:
    """Regressors at the rows where every lag exists; s = state size, a = action size."""

    state: NDArray[np.float64]  # [N, s]
    speed: NDArray[np.float64]  # [N, s] last change
    actions: NDArray[np.float64]  # [lags, N, a]
    change: NDArray[np.float64]  # [N, s] next change

    @classmethod
    def of(cls, rows: Rows, most: int) -> _Regression | None:
        states, actions = rows.states.astype(np.float64), rows.actions.astype(np.float64)
        at = np.arange(most + 1, len(states) - most - 1)
        if len(at) < 2:
            return None
        lagged = np.stack([actions[at - lag] for lag in range(-most, most + 1)])
        return cls(states[at], states[at] - states[at - 1], lagged, states[at + 1] - states[at])

    @classmethod
    def join(cls, parts: Sequence[_Regression]) -> _Regression | None:
        if not parts:
            return None
        every = max(1, sum(len(part.change) for part in parts) // _MOST_ROWS)
        return cls(
            np.concatenate([part.state for part in parts])[::every],
            np.concatenate([part.speed for part in parts])[::every],
            np.concatenate([part.actions for part in parts], axis=1)[:, ::every],
            np.concatenate([part.change for part in parts])[::every],
        )

    def inputs(self, dimension: int, lag: int | None, used: Sequence[int]) -> NDArray[np.float64]:
        past = [self.state[:, dimension], self.speed[:, dimension]]
        acting = [] if lag is None else [self.actions[lag][:, i] for i in used]
        return np.stack([*past, *acting], axis=1)


def _halves(episodes: Sequence[Rows]) -> list[Rows]:
    usable = [rows for rows in episodes if rows.states.shape[1] and rows.actions.shape[1]]
    if len(usable) != 1:
        return usable
    rows, middle = usable[0], len(usable[0].actions) // 2
    return [
        Rows(rows.actions[half], rows.states[half], rows.timestamps_s[half])
        for half in (slice(None, middle), slice(middle, None))
    ]


def _residual(
    fit: _Regression, score: _Regression, dimension: int, lag: int | None, used: Sequence[int]
) -> float:
    """Mean squared error of one dimension's change, with the actions at `lag` or without any."""
    x, y = fit.inputs(dimension, lag, used), fit.change[:, dimension]
    centre, scale, mean = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9), y.mean()
    x = (x - centre) / scale
    square = x.T @ x / len(x) + _RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(square, x.T @ (y - mean) / len(x))
    x = (score.inputs(dimension, lag, used) - centre) / scale
    return float(np.mean((x @ weights + mean - score.change[:, dimension]) ** 2))
