"""Signature of a planner's graph for a model: what the exporter promises and checks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx

from jetsight.bundle.planner_spec import HazardSpec, HeadSpec, PlannerSpec, check_planners
from jetsight.bundle.planner_tensors import PlannerTensors
from jetsight.errors import ArtefactError, UsageError
from jetsight_compile.export.onnx_export import Port
from jetsight_train.model.world_model import WorldModel


@dataclass(frozen=True)
class ImaginePorts:
    """Inputs and outputs of one planner's graph.

    Attributes:
        spec: the planner.
        tensors: their names and shapes.
    """

    spec: PlannerSpec
    tensors: PlannerTensors

    @classmethod
    def of(cls, model: WorldModel, spec: PlannerSpec) -> ImaginePorts:
        """Return the tensors of a planner of a model.

        Raises:
            UsageError: the planner does not fit the model, as `check_planners` defines it.
        """
        heads, step_size = head_spec(model) or HeadSpec(), len(model.action.names)
        config = model.config
        try:
            check_planners(
                (spec,), heads, history=config.history, horizon=config.horizon, step_size=step_size
            )
        except ArtefactError as error:
            # The runtime's check blames a bundle; here the fault is an option of the command.
            raise UsageError(str(error)) from None
        tensors = PlannerTensors.of(
            spec,
            latent_size=config.latent_size,
            action_size=model.action_size,
            step_size=step_size,
            quantities=len(heads.quantities),
            hazards=len(heads.hazards),
        )
        return cls(spec, tensors)

    def signature(self, graph: str) -> tuple[dict[str, Port], dict[str, Port]]:
        """Return inputs and outputs of the graph: name to element type and shape."""
        if graph != self.spec.graph:
            raise ValueError(f"these are the ports of {self.spec.graph!r}, not of {graph!r}")
        inputs, outputs = (
            {name: (int(onnx.TensorProto.FLOAT), shape) for name, shape in side.items()}
            for side in (self.tensors.inputs, self.tensors.outputs)
        )
        return inputs, outputs


def head_spec(model: WorldModel) -> HeadSpec | None:
    """Return the specification of a model's heads for the manifest; None without any."""
    heads, spec = model.heads, model.heads.probe_spec
    if heads.is_empty:
        return None
    hazards = tuple(HazardSpec(h.name, h.threshold, h.miss_rate) for h in heads.hazards)
    read = {} if spec is None else dataclasses.asdict(spec)
    return HeadSpec(**read, hazards=hazards, support=heads.support is not None)
