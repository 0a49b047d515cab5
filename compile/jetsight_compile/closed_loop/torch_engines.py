"""PyTorch arm: the same session and planner, with engines that run the eager torch model.

Only the engines differ from the deployed arm, so a difference in success is caused by compilation
and quantization alone.

Shapes: K history, H horizon, C context, A action block size, D latent, N samples, Q kept elites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jetsight.backends.host_arrays import HostArray
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.engine import Array
from jetsight.errors import EngineError
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning import cem, icem, mppi
from jetsight_train.planning.problem import Problem, State

Shapes = Mapping[str, tuple[int, ...]]
Compute = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
_STEP = {"cem": cem.step, "icem": icem.step, "mppi": mppi.step}
# Inputs that only some planners have, and outputs whose field of `State` has another name.
_OPTIONAL = ("rate", "probe_target", "probe_given", "probe_weight", "hazard_limit", "temperature")
_FIELDS = {"mean_next": "mean", "std_next": "std", "kept_next": "kept"}


class EagerEngine:
    """Engine that runs a function of torch tensors.

    Args:
        inputs: name and shape.
        outputs: name and shape.
        compute: from tensors that share memory with the inputs to the outputs.
        dtypes: types of the inputs that are not float32.
    """

    def __init__(
        self,
        inputs: Shapes,
        outputs: Shapes,
        compute: Compute,
        dtypes: Mapping[str, Any] | None = None,
    ) -> None:
        kinds = dtypes or {}
        self._in = {name: _array(shape, kinds.get(name)) for name, shape in inputs.items()}
        self._out = {name: _array(shape, None) for name, shape in outputs.items()}
        self._compute = compute

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Input arrays by name."""
        return self._in

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Output arrays by name."""
        return self._out

    def bind(self, name: str, array: Array) -> None:
        """Refuse: eager engines are not chained."""
        raise EngineError(f"{name!r} of an eager engine cannot be bound; copy with array.write")

    def run(self) -> None:
        """Compute every output."""
        with torch.inference_mode():
            results = self._compute({name: array.handle for name, array in self._in.items()})
            for name, array in self._out.items():
                array.handle.copy_(results[name].reshape(array.shape))

    def close(self) -> None:
        """Do nothing: Python releases the arrays."""


def encode_engine(model: WorldModel, spec: StreamSpec) -> EagerEngine:
    """`frame_hwc_u8, state -> z`; no `state` for a model without."""
    inputs: dict[str, tuple[int, ...]] = {"frame_hwc_u8": spec.frame_shape}
    if spec.state_names:
        inputs["state"] = (len(spec.state_names),)

    def compute(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"z": model.encode(*(value[None] for value in x.values()))}

    return EagerEngine(inputs, {"z": (spec.latent_size,)}, compute, {"frame_hwc_u8": np.uint8})


def forecast_engine(model: WorldModel, spec: StreamSpec) -> EagerEngine:
    """`z_hist, a_hist, actions -> z_future`."""
    size = spec.action_block * spec.step_size
    inputs = {"z_hist": (spec.history, spec.latent_size), "actions": (spec.horizon, size)}
    if spec.history > 1:
        inputs["a_hist"] = (spec.history - 1, size)
    no_actions = torch.zeros(0, size)

    def compute(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        a_hist = x.get("a_hist", no_actions)
        future = model.rollout(x["z_hist"][None], a_hist[None], x["actions"][None])
        return {"z_future": future}

    return EagerEngine(inputs, {"z_future": (spec.horizon, spec.latent_size)}, compute)


def imagine_engine(model: WorldModel, spec: PlanSpec, planner: PlannerSpec) -> EagerEngine:
    """Build an engine of one iteration of `planner`, from its PyTorch reference."""
    tensors, size = spec.tensors[planner.graph], spec.stream.action_block * spec.stream.step_size
    no_actions, no_kept = torch.zeros(0, size), torch.zeros(0, planner.horizon, size)

    def compute(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        problem = Problem(
            spec=planner,
            z_hist=x["z_hist"],
            a_hist=x.get("a_hist", no_actions),
            z_goal=x["z_goal"],
            low=x["low"],
            high=x["high"],
            weights=x["weights"],
            a_last=x["a_last"],
            when=x["when"],
            **{name: x.get(name) for name in _OPTIONAL},
        )
        before = State.first(problem, x["mean"], x["std"], x["incumbent"])
        before = before.following(kept=x.get("kept", no_kept))
        after = _STEP[planner.kind](model, problem, before, x["noise"])
        return {name: getattr(after, _FIELDS.get(name, name)) for name in tensors.outputs}

    return EagerEngine(tensors.inputs, tensors.outputs, compute)


class EagerBackend:
    """Backend that loads a bundle's planners as their PyTorch references; a graph is a name.

    Args:
        model: world model with its heads.
        spec: plan spec with the planners.
    """

    name = "torch"

    def __init__(self, model: WorldModel, spec: PlanSpec) -> None:
        self._model, self._spec = model, spec

    def load(self, graph: bytes) -> EagerEngine:
        """Load the planner named `graph`."""
        name = graph.decode()
        planner = next(each for each in self._spec.planners if each.graph == name)
        return imagine_engine(self._model, self._spec, planner)


def _array(shape: tuple[int, ...], dtype: Any) -> HostArray:
    return HostArray(shape, np.dtype(dtype or np.float32), torch.from_numpy)
