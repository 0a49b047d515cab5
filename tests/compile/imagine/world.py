"""A tiny problem for the planner tests, and a graph run beside its reference."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import onnx
import torch
from torch import Tensor

from jetsight.engine import Backend
from jetsight_compile.engines import loaded
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning import cem, icem, mppi
from jetsight_train.planning.problem import ImagineSpec, Problem, State

PLANNERS: dict[str, ModuleType] = {"cem": cem, "icem": icem, "mppi": mppi}
OUTPUTS = {"mean_next": "mean", "std_next": "std", "kept_next": "kept"}


def problem_of(model: WorldModel, spec: ImagineSpec, seed: int = 0, **changes: Tensor) -> Problem:
    """Somewhere to start, somewhere that can be reached, and every input of the planner at some value."""
    rng = torch.Generator().manual_seed(seed)
    size, latent = len(model.action.names), model.config.latent_size
    z_hist = torch.randn(spec.context, latent, generator=rng)
    a_hist = torch.randn(spec.context - 1, model.action_size, generator=rng)
    there = torch.randn(spec.horizon, model.action_size, generator=rng)
    with torch.no_grad():
        z_goal = model.rollout(z_hist[None], a_hist[None], there[None])[0, -1]
    given = {
        "z_hist": z_hist,
        "a_hist": a_hist,
        "a_last": torch.randn(size, generator=rng),
        "z_goal": z_goal,
        "low": torch.tensor(model.action.low),
        "high": torch.tensor(model.action.high),
        "rate": torch.full((size,), 0.9) if spec.rate_limited else None,
        "weights": torch.tensor([1.0, 0.3, 0.7]),
        "temperature": torch.tensor([0.5]) if spec.kind == "mppi" else None,
    }
    return Problem(spec, **{**given, **changes})


def start(model: WorldModel, problem: Problem) -> State:
    """A wide search from rest."""
    plan = torch.zeros(problem.spec.horizon, model.action_size)
    return State.first(problem, plan, plan + 1.5, plan + 0.1)


def draws(model: WorldModel, spec: ImagineSpec, count: int, seed: int = 1) -> list[Tensor]:
    """Noise of `count` iterations; the first sample is the mean."""
    rng = torch.Generator().manual_seed(seed)
    shape = (spec.samples, spec.horizon, model.action_size)
    noises = [torch.randn(shape, generator=rng) for _ in range(count)]
    for noise in noises:
        noise[0] = 0.0
    return noises


def inputs_of(problem: Problem, state: State, noise: Tensor) -> dict[str, np.ndarray]:
    """What the graph is given; more than it takes."""
    values = {
        **{name: value for name, value in vars(problem).items() if isinstance(value, Tensor)},
        "mean": state.mean, "std": state.std, "noise": noise, "incumbent": state.actions,
        "kept": state.kept,
    }  # fmt: skip
    return {name: value.numpy() for name, value in values.items()}


def run_graph(
    backend: Backend, graph: onnx.ModelProto, problem: Problem, state: State, noises: list[Tensor]
) -> State:
    """The graph once per draw, its outputs fed back; as a state, to compare with the reference."""
    with loaded(backend, graph.SerializeToString()) as engine:
        for noise in noises:
            given = inputs_of(problem, state, noise)
            for name, array in engine.inputs.items():
                array.write(given[name])
            engine.run()
            found = {n: torch.from_numpy(a.read().copy()) for n, a in engine.outputs.items()}
            state = state.following(**{OUTPUTS.get(n, n): v for n, v in found.items()})
    return state


def largest_difference(found: State, expected: State) -> float:
    """Over every field of two states, relative to the larger of 1 and what was expected."""
    pairs = [(getattr(found, name), value) for name, value in vars(expected).items()]
    return max(float(((a - b).abs() / b.abs().clamp(min=1.0)).max()) for a, b in pairs if b.numel())
