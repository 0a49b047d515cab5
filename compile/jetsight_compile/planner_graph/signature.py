"""Inputs and outputs of an `imagine` graph; one whose size is 0 does not exist."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from jetsight.errors import UsageError
from jetsight_compile.export.onnx_export import Port
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ImaginePorts:
    """The static sizes of one planner's graph, one letter each.

    Attributes:
        spec: the planner.
        D: latent size.
        A: action-block size.
        a: action size.
        P: probe quantities.
        G: hazards.
    """

    spec: ImagineSpec
    D: int
    A: int
    a: int
    P: int
    G: int

    @classmethod
    def of(cls, model: WorldModel, spec: ImagineSpec) -> ImaginePorts:
        """Sizes of a planner of a model.

        Raises:
            UsageError: the planner starts from more latents than the model looks back, or
                imagines farther than it was trained for.
        """
        if spec.horizon > model.config.horizon:
            raise UsageError(
                f"{spec.graph} imagines {spec.horizon} action blocks, but the model was trained "
                f"for {model.config.horizon}; choose a horizon of 1 to {model.config.horizon}"
            )
        if spec.context > model.config.history:
            raise UsageError(
                f"{spec.graph} starts from {spec.context} latents, but the model looks back "
                f"{model.config.history}; choose a context of 1 to {model.config.history}"
            )
        heads = model.heads
        quantities = 0 if heads.probe_spec is None else len(heads.probe_spec.quantities)
        return cls(
            spec,
            model.config.latent_size,
            model.action_size,
            len(model.action.names),
            quantities,
            len(heads.hazards),
        )

    def inputs(self) -> dict[str, Shape]:
        """Every input there is and its shape, in order."""
        spec, plan = self.spec, (self.spec.horizon, self.A)
        shapes: dict[str, Shape] = {
            "z_hist": (spec.context, self.D),
            "a_hist": (spec.context - 1, self.A),
            "a_last": (self.a,),
            "z_goal": (self.D,),
            "mean": plan,
            "std": plan,
            "noise": (spec.samples, *plan),
            "incumbent": plan,
            "kept": (spec.kept, *plan),
            "temperature": (int(spec.kind == "mppi"),),
            "low": (self.a,),
            "high": (self.a,),
            "rate": (self.a * spec.rate_limited,),
            "weights": (3,),
            "when": (spec.horizon,),
            "probe_target": (self.P,),
            "probe_given": (self.P,),
            "probe_weight": (self.P,),
            "hazard_limit": (self.G,),
        }
        return {name: shape for name, shape in shapes.items() if all(shape)}

    def outputs(self) -> dict[str, Shape]:
        """Every output there is and its shape, in order."""
        spec, plan = self.spec, (self.spec.horizon, self.A)
        shapes: dict[str, Shape] = {
            "mean_next": plan,
            "std_next": plan,
            "actions": plan,
            "cost": (1,),
            "violation": (1,),
            "costs": (spec.samples,),
            "violations": (spec.samples * bool(self.G),),
            "z_future": (spec.horizon, self.D),
            "invalid": (1,),
            "kept_next": (spec.kept, *plan),
        }
        return {name: shape for name, shape in shapes.items() if all(shape)}

    def signature(self, graph: str) -> tuple[dict[str, Port], dict[str, Port]]:
        """Inputs and outputs of the graph: name to element type and shape."""
        if graph != self.spec.graph:
            raise ValueError(f"these are the ports of {self.spec.graph!r}, not of {graph!r}")
        kind = onnx.TensorProto.FLOAT
        inputs = {name: (kind, shape) for name, shape in self.inputs().items()}
        return inputs, {name: (kind, shape) for name, shape in self.outputs().items()}
