"""Calibration inputs of a planner's graph, derived from recorded windows.

Goals are the latents that the recorded actions reached. The samples cover several stages of a
search: wide and far from the recorded actions at first, narrow and close to them at the end.

Shapes: W windows, K history, C context, H horizon, A action-block size, N samples, Q kept elites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight_compile.calibration.data import CalibrationWindows, spread
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.model.world_model import WorldModel

F32 = npt.NDArray[np.float32]

# Each has N candidates, so a few hold more rollouts than all the windows of `forecast`.
SAMPLES = 12
# Std of the search in units of the actions' std over the training set, from first to last
# iteration; the mean's distance to the recorded actions shrinks with it.
_SPREADS = (1.0, 0.5, 0.25, 0.1)
# The runtime's stand-in for no limit, as inputs of a graph are never infinite.
_NO_LIMIT = 1e9


@dataclass(frozen=True)
class _SearchState:
    """State of a search in one window; `width` is its std in units of the actions' std."""

    z_hist: F32
    a_hist: F32
    actions: F32
    z_goal: F32
    width: float


def imagine_samples(
    windows: CalibrationWindows, spec: PlannerSpec, model: WorldModel, most: int = SAMPLES
) -> list[dict[str, F32]]:
    """Build inputs of a planner's graph, evenly spread over windows and stages of a search.

    Args:
        windows: recorded, with the latents of the float model.
        spec: the planner; its horizon is at most that of the windows.
        model: whose action limits and normaliser are used.
        most: largest number of samples.
    """
    # A fixed seed, so that a compile can be repeated.
    ports, rng = ImaginePorts.of(model, spec), np.random.default_rng(0)
    chosen = spread(len(windows), most)
    return [
        _inputs(ports, model, _state(windows, int(index), spec, number), rng)
        for number, index in enumerate(chosen)
    ]


def _state(windows: CalibrationWindows, index: int, spec: PlannerSpec, number: int) -> _SearchState:
    newest = windows.history
    z, blocks = windows.z[index], windows.blocks[index]
    return _SearchState(
        z_hist=z[newest - spec.context : newest],
        a_hist=blocks[newest - spec.context : newest - 1],
        actions=blocks[newest - 1 : newest - 1 + spec.horizon],
        z_goal=z[newest - 1 + spec.horizon],
        width=_SPREADS[number % len(_SPREADS)],
    )


def _inputs(
    ports: ImaginePorts, model: WorldModel, state: _SearchState, rng: np.random.Generator
) -> dict[str, F32]:
    unit, shapes = model.action_std.numpy(), ports.tensors.inputs
    noise = rng.standard_normal(shapes["noise"])
    # As the runtime does, so that the mean itself is a candidate.
    noise[0] = 0.0
    far = state.width * unit * rng.standard_normal(shapes["mean"])
    low, high = model.action.planned_range
    values: dict[str, npt.ArrayLike] = {
        "z_hist": state.z_hist,
        "a_hist": state.a_hist,
        "a_last": state.actions[0, : len(model.action.names)],
        "z_goal": state.z_goal,
        "mean": state.actions + far,
        "std": state.width * unit,
        "noise": noise,
        "incumbent": state.actions,
        "kept": state.actions,
        "temperature": 1.0,
        "low": low,
        "high": high,
        "rate": _NO_LIMIT,
        "weights": (1.0, 0.1, 0.0),
        "when": np.eye(len(state.actions))[-1],
        **dict.fromkeys(("probe_target", "probe_given", "probe_weight"), 0.0),
        "hazard_limit": _NO_LIMIT,
    }
    return {
        # A copy, because a broadcast view repeats its memory and is read-only.
        name: np.array(np.broadcast_to(values[name], shape), np.float32)
        for name, shape in shapes.items()
    }
