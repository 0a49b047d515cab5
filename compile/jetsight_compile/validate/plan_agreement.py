"""Agreement of a planner's choices with a compiled forecast and with the float one.

A planner ranks candidate action sequences by the distance of the imagined end from a goal, so the
order of the candidates matters and not the latent's error. Candidates are recorded action
sequences, imagined from other cases; the goal of a case is its recorded end.

Shapes: M cases, N candidates, H horizon, D latent size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jetsight.bundle.parity import spearman
from jetsight_compile.calibration.data import CalibrationWindows, spread

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MOMENTS, CANDIDATES, ELITES = 6, 24, 6


@dataclass(frozen=True)
class PlannerQuery:
    """Inputs of a planning comparison.

    Attributes:
        samples: `M * N` inputs of `forecast`, the candidates of one starting point in a row.
        goals: `[M, D]` goal latent of each case.
    """

    samples: list[dict[str, npt.NDArray[Any]]]
    goals: F32


@dataclass(frozen=True)
class Agreement:
    """Agreement of two planners, as means over the cases.

    Attributes:
        rank: Spearman's rank correlation of the candidates' costs, 1 for the same order.
        elites: share of the best candidates that both have in common.
        first_action: share of cases where both rank the same candidate first.
    """

    rank: float
    elites: float
    first_action: float


def question(windows: CalibrationWindows) -> PlannerQuery:
    """Combine every starting point with every candidate."""
    cases = spread(len(windows), MOMENTS)
    candidates = spread(len(windows), CANDIDATES)
    # Case by case: `costs` folds the outputs to `[M, N]` in this order.
    samples = [
        {**windows.inputs(int(case)), "actions": windows.inputs(int(other))["actions"]}
        for case in cases
        for other in candidates
    ]
    return PlannerQuery(samples, windows.z[cases, -1])


def costs(z_future: F32, query: PlannerQuery) -> F64:
    """Squared distance `[M, N]` of each imagined end, of `z_future [M * N, H, D]`, to its goal."""
    ends = z_future[:, -1].reshape(len(query.goals), -1, z_future.shape[-1])
    # Ranks hang on small differences of large distances, hence float64.
    return np.asarray(np.square(ends.astype(np.float64) - query.goals[:, None]).sum(-1))


def agreement(found: F64, expected: F64) -> Agreement:
    """Compare the costs `[M, N]` of two forecasts."""
    pairs = list(zip(found, expected, strict=True))
    return Agreement(
        rank=float(np.mean([spearman(a, b) for a, b in pairs])),
        elites=float(np.mean([len(_best(a) & _best(b)) / ELITES for a, b in pairs])),
        first_action=float(np.mean([np.argmin(a) == np.argmin(b) for a, b in pairs])),
    )


def _best(cost: F64) -> set[int]:
    return set(np.argsort(cost)[:ELITES].tolist())
