"""What a planner's graph is given in practice, out of recorded windows: to calibrate and to judge.

Goals are where the recorded actions really led. The search is caught at several moments of a plan:
wide and far from the recorded actions at first, narrow and close to them at the end.

Shapes: W windows, K history, C context, H horizon, A action-block size, N samples, Q kept elites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetsight_compile.calibration.data import CalibrationWindows, spread
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec

F32 = npt.NDArray[np.float32]

# Each brings N candidates, so a few show more than all the windows of `forecast`.
SAMPLES = 12
# Std of the search in units of the actions' own over the training set, from first to last
# iteration; the mean has come as far from zero to the recorded actions.
_SPREADS = (1.0, 0.5, 0.25, 0.1)
_NO_LIMIT = 1e9


@dataclass(frozen=True)
class _Moment:
    """One window, and how far a plan has come."""

    z_hist: F32
    a_hist: F32
    actions: F32
    z_goal: F32
    left: float


def imagine_samples(
    windows: CalibrationWindows, spec: ImagineSpec, model: WorldModel, most: int = SAMPLES
) -> list[dict[str, F32]]:
    """Inputs of a planner's graph, evenly spread over windows and over the length of a plan.

    Args:
        windows: recorded, with the latents of the float model.
        spec: the planner; its horizon is at most that of the windows.
        model: whose limits and normaliser count.
        most: how many.
    """
    ports, rng = ImaginePorts.of(model, spec), np.random.default_rng(0)
    chosen = spread(len(windows), most)
    return [
        _inputs(ports, model, _moment(windows, int(index), ports, number), rng)
        for number, index in enumerate(chosen)
    ]


def _moment(windows: CalibrationWindows, index: int, ports: ImaginePorts, number: int) -> _Moment:
    spec, newest = ports.spec, windows.history
    z, blocks = windows.z[index], windows.blocks[index]
    return _Moment(
        z_hist=z[newest - spec.context : newest],
        a_hist=blocks[newest - spec.context : newest - 1],
        actions=blocks[newest - 1 : newest - 1 + spec.horizon],
        z_goal=z[newest - 1 + spec.horizon],
        left=_SPREADS[number % len(_SPREADS)],
    )


def _inputs(
    ports: ImaginePorts, model: WorldModel, moment: _Moment, rng: np.random.Generator
) -> dict[str, F32]:
    unit, spec = model.action_std.numpy(), ports.spec
    shapes = ports.inputs()
    noise = rng.standard_normal(shapes["noise"])
    noise[0] = 0.0
    far = moment.left * unit * rng.standard_normal((spec.horizon, ports.A))
    values: dict[str, npt.ArrayLike] = {
        "z_hist": moment.z_hist,
        "a_hist": moment.a_hist,
        "a_last": moment.actions[0, : ports.a],
        "z_goal": moment.z_goal,
        "mean": moment.actions + far,
        "std": np.broadcast_to(moment.left * unit, shapes["mean"]),
        "noise": noise,
        "incumbent": moment.actions,
        "kept": np.broadcast_to(moment.actions, (spec.kept, *moment.actions.shape)),
        "temperature": [1.0],
        "low": model.action.low,
        "high": model.action.high,
        "rate": np.full(ports.a, _NO_LIMIT),
        "weights": [1.0, 0.1, 0.0],
        "when": np.eye(spec.horizon)[-1],
        "probe_target": np.zeros(ports.P),
        "probe_given": np.zeros(ports.P),
        "probe_weight": np.zeros(ports.P),
        "hazard_limit": np.full(ports.G, _NO_LIMIT),
    }
    return {name: np.array(values[name], np.float32).reshape(shapes[name]) for name in shapes}
