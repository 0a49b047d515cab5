"""Specs of planners and heads, shared by training, compiler, manifest and robot.

The constructors check, so no other module repeats the rules.

Shapes: N samples, E elites, Q kept elites, H horizon in action blocks, C context, a size of one
robot action.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jetsight.bundle.model_spec import length, vector, within
from jetsight.errors import ArtefactError

Kind = Literal["cem", "icem", "mppi"]
_GRAPH = re.compile(r"imagine_[a-z0-9_]{1,24}")
_MOST_SAMPLES = 1 << 16
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class HazardSpec:
    """One hazard head: a logit above `threshold` predicts harm by a block of actions.

    The threshold is conformal: at most the share `miss_rate` of the held-out blocks with harm had a
    lower logit.
    """

    name: str
    threshold: float
    miss_rate: float

    def __post_init__(self) -> None:
        vector("threshold", (self.threshold,), 1)
        if not 0 < self.miss_rate < 1:  # this way round NaN is refused too
            raise ArtefactError(f"miss_rate is {self.miss_rate}, expected between 0 and 1")


@dataclass(frozen=True)
class HeadSpec:
    """Heads that read a latent: quantities with units and spread, hazards, support.

    `scale` is the standard deviation of each quantity over the training set; costs divide by it.
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
    """Weights of a plan's costs: distance at its end, along it, and from the training data.

    Distances are squared and summed over the latent; `support` weighs the excess distance of the
    imagined latents from the training data.
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
    """One planner: the `imagine` graph that computes an iteration of it, and its use.

    The fields up to `rate_limited` are compiled into the graph; the others apply when it runs.

    Args:
        graph: name of the graph, `imagine_icem_256x5`; see `graph_name`.
        kind: optimiser that the graph is an iteration of.
        samples: N, 2 to 65536.
        horizon: H, 1 to 1024.
        elites: E, 2 to N; `mppi` weighs all candidates and ignores it.
        kept: Q elites that take part in the next iteration, 0 to E; 0 unless `icem`.
        momentum: share of the old mean and std that stays, 0 to below 1; 0 unless `icem`.
        context: C latents that a plan starts from, 1 to 1024.
        rate_limited: the graph limits the change per tick, with an input `rate`.
        start: mean of the first iteration, the last action held or the neutral one.
        noise_beta: exponent of the noise's power law over time (arXiv 2008.06389); 0 is white.
        iterations: largest number, 1 to 1000; a plan that has converged ends earlier.
        weights: of the latent costs.
        probe_weight: weights of the probe's quantities; 0 for those not listed.
        std_start: `[a]` standard deviation of the first iteration, in robot units.
        temperature: of `mppi`, in units of cost.
    """

    graph: str
    kind: Kind
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
        # The refit takes the unbiased std of the elites, which one elite does not have.
        within("elites", self.elites, 0 if self.kind == "mppi" else 2, self.samples)
        within(f"kept of {self.kind}", self.kept, 0, self.elites if self.kind == "icem" else 0)
        within("context", self.context, 1, 1024)
        within("iterations", self.iterations, 1, MOST_ITERATIONS)
        vector("std_start", self.std_start, len(self.std_start), positive=True)
        vector("temperature", (self.temperature,), 1, positive=True)
        if not 0 <= self.momentum < 1 or (self.momentum and self.kind != "icem"):
            expected = "0 to below 1" if self.kind == "icem" else "0"
            raise ArtefactError(f"momentum of {self.kind} is {self.momentum}, expected {expected}")
        if not 0 <= self.noise_beta <= 10:
            raise ArtefactError(f"noise_beta is {self.noise_beta}, expected 0 to 10")
        for name, weight in self.probe_weight.items():
            vector(f"probe_weight of {name!r}", (weight,), 1)
            if weight < 0:
                raise ArtefactError(f"probe_weight of {name!r} is {weight}, expected 0 or more")


def graph_name(kind: Kind, samples: int, horizon: int) -> str:
    """Return the name of a planner's graph, such as `imagine_icem_256x5`."""
    return f"imagine_{kind}_{samples}x{horizon}"


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
        planners: of one model.
        heads: that the graphs contain.
        history: K, latents in the model's input.
        horizon: H it was trained for.
        step_size: a, numbers in one robot action.
    """
    _unique("planners", tuple(planner.graph for planner in planners))
    known = () if heads is None else heads.quantities
    for planner in planners:
        if planner.horizon > horizon:
            raise ArtefactError(
                f"planner {planner.graph} looks {planner.horizon} blocks ahead, but the model was "
                f"trained for {horizon}; expected 1 to {horizon}"
            )
        within(f"context of planner {planner.graph}", planner.context, 1, history)
        length(f"std_start of planner {planner.graph}", planner.std_start, step_size)
        for name in planner.probe_weight:
            if name not in known:
                raise ArtefactError(
                    f"planner {planner.graph} weighs {name[:80]!r}, which is no quantity of the "
                    f"probe; it reads {', '.join(known) or 'nothing'}"
                )


def _unique(key: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise ArtefactError(f"{key} {list(names)} repeat themselves")
