"""A tiny world model with heads, problems for its planners, and graphs run beside references."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from helpers.compile.tiny_model import model_of
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight.engine import Engine
from jetsight_train.model.hazard_rules import ColumnRule
from jetsight_train.model.heads import (
    HazardHead,
    HazardHeadSpec,
    Heads,
    ProbeHead,
    ProbeHeadSpec,
    SupportHead,
)
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning import cem, icem, mppi
from jetsight_train.planning.candidates import within
from jetsight_train.planning.problem import Problem, State

PLANNERS: dict[str, ModuleType] = {"cem": cem, "icem": icem, "mppi": mppi}
OUTPUTS = {"mean_next": "mean", "std_next": "std", "kept_next": "kept"}


def imagining_model(*, heads: bool = True, horizon: int = 4) -> WorldModel:
    """Make a random model that can imagine `horizon` blocks, with every head or none."""
    model = model_of()
    model.config = replace(model.config, horizon=horizon)
    for block in model.predictor.blocks:
        block.modulation[1].weight.data *= 4.0  # actions that matter
    if heads:
        torch.manual_seed(1)
        latent, probe = (
            model.config.latent_size,
            ProbeHeadSpec(("x", "y"), ("px", "px"), (2.0, 0.5)),
        )
        hazards = tuple(HazardHeadSpec(name, 0.0, 0.1, ColumnRule(name)) for name in ("hit", "out"))
        model.heads = Heads(
            ProbeHead(latent, 2, (8,)),
            HazardHead(latent, model.action_size, 2, (8,)),
            SupportHead(latent),
            probe,
            hazards,
        )
    return model.eval()


def problem_of(model: WorldModel, spec: PlannerSpec, seed: int = 0, **changes: Tensor) -> Problem:
    """Make a problem whose goal can be reached, with some value for every input."""
    rng = torch.Generator().manual_seed(seed)
    size, latent = len(model.action.names), model.config.latent_size
    z_hist = torch.randn(spec.context, latent, generator=rng)
    a_hist = torch.randn(spec.context - 1, model.action_size, generator=rng)
    low, high = torch.tensor(model.action.low), torch.tensor(model.action.high)
    a_last = torch.randn(size, generator=rng)
    rate = torch.full((size,), 0.9) if spec.rate_limited else None
    there = torch.randn(spec.horizon, model.action_size, generator=rng)
    with torch.no_grad():
        way = within(there, low, high, a_last, rate)
        z_goal = model.rollout(z_hist[None], a_hist[None], way[None])[0, -1]
    given = {
        "z_hist": z_hist,
        "a_hist": a_hist,
        "a_last": a_last,
        "z_goal": z_goal,
        "low": low,
        "high": high,
        "rate": rate,
        "weights": torch.tensor([1.0, 0.3, 0.7]),
        "when": torch.linspace(0.1, 1.0, spec.horizon),
        "temperature": torch.tensor([0.5]) if spec.kind == "mppi" else None,
        "probe_target": torch.tensor([0.1, 9.0]),
        "probe_given": torch.tensor([1.0, 0.0]),
        "probe_weight": torch.tensor([0.02, 0.5]),
        "hazard_limit": torch.tensor([1e9, 1e9]),
    }
    return Problem(spec, **{**given, **changes})


def start(model: WorldModel, problem: Problem) -> State:
    """Start a wide search from rest."""
    plan = torch.zeros(problem.spec.horizon, model.action_size)
    return State.first(problem, plan, plan + 1.5, plan + 0.1)


def draws(model: WorldModel, spec: PlannerSpec, count: int, seed: int = 1) -> list[Tensor]:
    """Draw noise of `count` iterations; the first sample is the mean."""
    rng = torch.Generator().manual_seed(seed)
    shape = (spec.samples, spec.horizon, model.action_size)
    noises = [torch.randn(shape, generator=rng) for _ in range(count)]
    for noise in noises:
        noise[0] = 0.0
    return noises


def inputs_of(problem: Problem, state: State, noise: Tensor) -> dict[str, np.ndarray]:
    """Values of a graph's inputs; more than a graph without heads takes."""
    values = {
        **{name: value for name, value in vars(problem).items() if isinstance(value, Tensor)},
        "mean": state.mean,
        "std": state.std,
        "noise": noise,
        "incumbent": state.actions,
        "kept": state.kept,
    }
    return {name: value.numpy() for name, value in values.items()}


def run_graph(engine: Engine, problem: Problem, state: State, noises: list[Tensor]) -> State:
    """Run a graph once per draw, its outputs fed back; return the last state."""
    for noise in noises:
        given = inputs_of(problem, state, noise)
        for name, array in engine.inputs.items():
            array.write(given[name])
        engine.run()
        found = {n: torch.from_numpy(a.read().copy()) for n, a in engine.outputs.items()}
        state = state.following(**{OUTPUTS.get(n, n): v for n, v in found.items()})
    return state


def largest_difference(found: State, expected: State) -> float:
    """Compare every field of two states, relative to the largest number of the field."""
    pairs = [(getattr(found, name), value) for name, value in vars(expected).items()]
    return max(
        float((a - b).abs().max() / b[b.abs() < INVALID_COST].abs().max().clamp(min=0.1))
        for a, b in pairs
        if (b.abs() < INVALID_COST).any()
    )


# The cost of a goal that can be reached, and of nothing else: it falls to 0, so that the order of
# the candidates stays above rounding for as long as a plan goes on.
GOAL_ALONE = {
    "weights": torch.tensor([1.0, 0.0, 0.0]),
    "probe_given": torch.zeros(2),
    "when": None,  # at the last step
}
