"""What a bundle says about planning: the heads its graphs read, and one entry per planner graph.

H horizon in action blocks, C context, N samples, E elites, Q kept elites, a size of one robot
action. Constructing one checks it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jetsight.bundle.model_spec import length, vector, within
from jetsight.errors import ArtefactError

_GRAPH = re.compile(r"imagine_[a-z0-9_]{1,24}")
_MOST_SAMPLES = 1 << 16
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class HazardSpec:
    """One hazard head: above `threshold` (a logit) it says that a block of actions does harm.

    The threshold is conformal: of held-out blocks that did harm, at most the share `miss_rate` had
    a lower logit.
    """

    name: str
    threshold: float
    miss_rate: float

    def __post_init__(self) -> None:
        vector("threshold", (self.threshold,), 1)
        if not 0 < self.miss_rate < 1:
            raise ArtefactError(f"miss_rate is {self.miss_rate}, expected between 0 and 1")


@dataclass(frozen=True)
class HeadSpec:
    """What can be read out of a latent: quantities with units and spread, hazards, support.

    `scale` is the standard deviation of each quantity over the training set, the unit that costs
    are counted in.
    """

    quantities: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    hazards: tuple[HazardSpec, ...] = ()
    support: bool = False

    def __post_init__(self) -> None:
        size = len(self.quantities)
        length("units", self.units, size)
        vector("scale", self.scale, size, positive=True)
        _unique("quantities", self.quantities)
        _unique("hazards", tuple(hazard.name for hazard in self.hazards))


@dataclass(frozen=True)
class CostWeights:
    """Factors of a plan's cost: distance at its end, along it, and how far off the known it goes.

    Distances are squared and summed over the latent; `support` weighs how much farther from the
    training data than usual the imagined latents are.
    """

    terminal: float = 1.0
    running: float = 0.0
    support: float = 0.0

    def __post_init__(self) -> None:
        values = (self.terminal, self.running, self.support)
        vector("weights", values, 3)
        if min(values) < 0:
            raise ArtefactError(f"weights are {list(values)}, expected none below 0")


@dataclass(frozen=True, kw_only=True)
class PlannerSpec:
    """One `imagine` graph, which is one planner iteration, and how it is meant to be used.

    Args:
        graph: its name, `imagine_icem_256x5`.
        kind: the planner it is an iteration of.
        samples: N.
        horizon: H; at most what the model was trained for.
        elites: E; for `mppi`, which weighs all candidates, without meaning.
        kept: Q elites handed on to the next iteration (`icem`).
        momentum: share of the old mean and std that stays; part of the graph, noted here (`icem`).
        context: C latents it starts from.
        rate_limited: it takes `rate`.
        start: the mean of the first iteration, the last action held or the neutral one.
        noise_beta: exponent of the noise's power law over time (arXiv 2008.06389); 0 is white.
        iterations: at most; a plan that has converged ends earlier.
        weights: of the latent costs.
        probe_weight: of the quantities of the probe, those without one count nothing.
        std_start: `[a]` standard deviation of the first iteration, in robot units.
        temperature: of `mppi`, in units of cost.
    """

    graph: str
    kind: Literal["cem", "icem", "mppi"]
    samples: int
    horizon: int
    elites: int
    kept: int = 0
    momentum: float = 0.0
    context: int
    rate_limited: bool
    start: Literal["hold", "neutral"] = "hold"
    noise_beta: float = 0.0
    iterations: int
    weights: CostWeights = dataclasses.field(default_factory=CostWeights)
    probe_weight: Mapping[str, float] = dataclasses.field(default_factory=dict)
    std_start: tuple[float, ...]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not _GRAPH.fullmatch(self.graph):
            raise ArtefactError(f"graph is {self.graph[:80]!r}, expected like imagine_icem_256x5")
        within("samples", self.samples, 2, _MOST_SAMPLES)
        within("horizon", self.horizon, 1, 1024)
        within("elites", self.elites, 0 if self.kind == "mppi" else 1, self.samples)
        within("kept", self.kept, 0, self.elites if self.kind == "icem" else 0)
        within("context", self.context, 1, 1024)
        within("iterations", self.iterations, 1, MOST_ITERATIONS)
        vector("std_start", self.std_start, len(self.std_start), positive=True)
        vector("temperature", (self.temperature,), 1, positive=True)
        if not 0 <= self.momentum < 1:
            raise ArtefactError(f"momentum is {self.momentum}, expected 0 to below 1")
        if not 0 <= self.noise_beta <= 10:
            raise ArtefactError(f"noise_beta is {self.noise_beta}, expected 0 to 10")
        for name, weight in self.probe_weight.items():
            vector(f"probe_weight of {name!r}", (weight,), 1)
            if weight < 0:
                raise ArtefactError(f"probe_weight of {name!r} is {weight}, expected 0 or more")


def check_planners(
    planners: tuple[PlannerSpec, ...],
    heads: HeadSpec | None,
    *,
    history: int,
    horizon: int,
    step_size: int,
) -> None:
    """Raise `ArtefactError` unless each planner fits the model it plans with.

    Args:
        planners: of one manifest.
        heads: that the graphs contain.
        history: K, latents the model looks back on.
        horizon: H it was trained for.
        step_size: a, numbers in one robot action.
    """
    _unique("planners", tuple(planner.graph for planner in planners))
    known = () if heads is None else heads.quantities
    for planner in planners:
        if planner.horizon > horizon:
            raise ArtefactError(
                f"planner {planner.graph} looks {planner.horizon} blocks ahead, but the model was "
                f"trained for {horizon}"
            )
        within(f"context of planner {planner.graph}", planner.context, 1, history)
        length(f"std_start of planner {planner.graph}", planner.std_start, step_size)
        for name in planner.probe_weight:
            if name not in known:
                raise ArtefactError(
                    f"planner {planner.graph} weighs {name[:80]!r}, which is no quantity of the "
                    "probe"
                )


def _unique(key: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise ArtefactError(f"{key} {list(names)} repeat themselves")
