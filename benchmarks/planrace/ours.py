"""Our compiled planner iteration on a backend, driven as the runtime does: one engine run each.

Shapes: N samples, H horizon, A action-block size, a action size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import torch

from jetsight.backends import registry
from jetsight.bundle.planner_spec import PlannerSpec, graph_name
from jetsight.clock import Clock
from jetsight.engine import Engine, NDArray
from jetsight.errors import EngineError
from jetsight_compile.config.targets import TARGETS
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.quantize.schemes import cpu_rows
from planrace.problem import Problem
from planrace.theirs import Solved

_FREE = 1e9  # a bound that binds nothing: their solver has none
_CALIBRATION_SEED, _CALIBRATION = 1000, 8


def spec(problem: Problem) -> PlannerSpec:
    """Return the planner whose iteration is compiled."""
    return PlannerSpec(
        graph=graph_name("cem", problem.samples, problem.horizon),
        kind="cem",
        samples=problem.samples,
        horizon=problem.horizon,
        elites=problem.elites,
        context=1,
        rate_limited=False,
        iterations=problem.iterations,
        std_start=(1.0,) * len(problem.model.action.names),
    )


def float_graph(problem: Problem) -> onnx.ModelProto:
    """Export the iteration in float32, as `cpu-fp32` ships it."""
    return PlannerExporter(problem.model, TARGETS["cpu"].style).export(spec(problem))


def fixed_inputs(problem: Problem) -> dict[str, NDArray]:
    """Make the inputs that stay the same over a plan: the terminal cost alone, and no limits."""
    size = len(problem.model.action.names)
    return {
        "z_hist": problem.z.numpy(),
        "z_goal": problem.goal[0].numpy(),
        "a_last": np.zeros(size, np.float32),
        "low": np.full(size, -_FREE, np.float32),
        "high": np.full(size, _FREE, np.float32),
        "weights": np.array([1.0, 0.0, 0.0], np.float32),
        "when": np.eye(problem.horizon, dtype=np.float32)[-1],
    }


def states(engine: Engine, problem: Problem, seed: int) -> Iterator[dict[str, NDArray]]:
    """Plan once; after each iteration its inputs `mean std noise` and outputs, as copies.

    The draws are made here, as their solver makes them inside its loop.

    Raises:
        EngineError: the graph reads something that is not given here.
    """
    inputs, outputs = engine.inputs, engine.outputs
    given = fixed_inputs(problem)
    unknown = set(inputs) - set(given) - {"mean", "std", "noise", "incumbent"}
    if unknown:
        raise EngineError(f"nothing is given for {sorted(unknown)}; extend planrace/ours.py")
    for name in given.keys() & inputs.keys():
        inputs[name].write(given[name])
    start = np.zeros((problem.horizon, problem.model.action_size), np.float32)
    state = {"mean": start, "std": np.ones_like(start), "incumbent": start}
    for draw in problem.draws(seed):
        draw[0] = 0.0  # candidate 0 is the mean
        for name, value in {**state, "noise": draw.numpy()}.items():
            inputs[name].write(value)
        engine.run()
        found = {name: outputs[name].read().copy() for name in ("mean_next", "std_next", "costs")}
        yield {**state, **found, "noise": draw.numpy()}
        state = {
            "mean": found["mean_next"],
            "std": found["std_next"],
            "incumbent": outputs["actions"].read().copy(),
        }


def planner(
    problem: Problem, graph: bytes, backend: str, family: str, threads: int, clock: Clock
) -> Callable[[int], Solved]:
    """Make a function from a seed to a plan by our graph on one backend."""
    engine = registry.open_backend(backend, family, threads=threads).load(graph)

    def plan(seed: int) -> Solved:
        costs, times, mean = [], [clock.now_ns()], np.zeros(0)
        for state in states(engine, problem, seed):
            mean = state["mean_next"]
            costs.append(torch.from_numpy(state["costs"]))
            times.append(clock.now_ns())
        return Solved(torch.from_numpy(mean), costs, (np.diff(times) / 1e6).tolist())

    return plan


def int8_graph(problem: Problem, graph: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize the iteration as `cpu-int8` ships it, calibrated on plans of other seeds."""
    return cpu_rows(graph, calibration(problem, graph)).model


def calibration(problem: Problem, graph: onnx.ModelProto) -> list[Mapping[str, NDArray]]:
    """Collect inputs of evenly spread iterations of float plans."""
    engine = registry.open_backend("onnxruntime", "cpu-fp32").load(graph.SerializeToString())
    known = {value.name for value in graph.graph.input}
    every = max(problem.iterations // (_CALIBRATION // 2), 1)
    samples: list[Mapping[str, NDArray]] = []
    for seed in (_CALIBRATION_SEED, _CALIBRATION_SEED + 1):
        for state in list(states(engine, problem, seed))[::every]:
            every_input = {**fixed_inputs(problem), **state}
            samples.append({k: v for k, v in every_input.items() if k in known})
    engine.close()
    return samples
