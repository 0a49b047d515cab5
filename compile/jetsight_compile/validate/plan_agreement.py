"""Whether a planner would choose the same actions with a compiled forecast as with the float one.

A planner ranks candidate action sequences by how far the imagined end is from a goal, so what
matters is not the latent's error but whether the order of the candidates survives it. Candidates
are action sequences that were really recorded, imagined from other moments; the goal of a moment is
where it really led.

Shapes: M moments, N candidates, H horizon, D latent size.
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
    """What the planner is asked, moment by moment.

    Attributes:
        samples: `M * N` inputs of `forecast`, the candidates of one moment in a row.
        goals: `[M, D]` the latent each moment should reach.
    """

    samples: list[dict[str, npt.NDArray[Any]]]
    goals: F32


@dataclass(frozen=True)
class Agreement:
    """How alike two planners choose, as means over the moments.

    Attributes:
        rank: Spearman's rank correlation of the candidates' costs, 1 for the same order.
        elites: share of the best candidates that both have among theirs.
        first_action: how often both put the same candidate first, so that the robot moves the same.
    """

    rank: float
    elites: float
    first_action: float


def question(windows: CalibrationWindows) -> PlannerQuery:
    """Every moment asked about with every candidate."""
    moments = spread(len(windows), MOMENTS)
    candidates = spread(len(windows), CANDIDATES)
    samples = [
        {**windows.inputs(int(moment)), "actions": windows.inputs(int(other))["actions"]}
        for moment in moments
        for other in candidates
    ]
    return PlannerQuery(samples, windows.z[moments, -1])


def costs(z_future: F32, asked: PlannerQuery) -> F64:
    """`[M, N]` squared distance of each imagined end `z_future [M * N, H, D]` from its goal."""
    ends = z_future[:, -1].reshape(len(asked.goals), -1, z_future.shape[-1])
    return np.asarray(np.square(ends.astype(np.float64) - asked.goals[:, None]).sum(-1))


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
