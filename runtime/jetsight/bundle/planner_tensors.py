"""Tensors of a planner's graph, for exporter, manifest, robot and fakes.

Shapes: N samples, Q kept elites, H horizon, C context, D latent size, a size of one robot action,
A size of an action block, P probe quantities, G hazards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jetsight.bundle.planner_spec import PlannerSpec

Shape = tuple[int, ...]
# Cost and violation of a candidate that is not finite; itself finite, so that it sorts and is JSON.
INVALID_COST = 3e38


@dataclass(frozen=True, slots=True)
class PlannerTensors:
    """Name and shape of each input and output, in the order of the graph; all are float32.

    A tensor of size 0 is left out: backends differ in their treatment of empty ones.
    """

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]

    @classmethod
    def of(
        cls,
        planner: PlannerSpec,
        *,
        latent_size: int,
        action_size: int,
        step_size: int,
        quantities: int = 0,
        hazards: int = 0,
    ) -> PlannerTensors:
        """List the tensors of a planner of a model.

        Args:
            planner: spec of the planner.
            latent_size: D.
            action_size: A.
            step_size: a.
            quantities: P.
            hazards: G.
        """
        plan, step = (planner.horizon, action_size), (step_size,)
        inputs: dict[str, Shape] = {
            "z_hist": (planner.context, latent_size),
            "a_hist": (planner.context - 1, action_size),
            "a_last": step,
            "z_goal": (latent_size,),
            "mean": plan,
            "std": plan,
            "noise": (planner.samples, *plan),
            "incumbent": plan,
            "kept": (planner.kept, *plan),
            "temperature": (int(planner.kind == "mppi"),),
            "low": step,
            "high": step,
            "rate": (step_size * planner.rate_limited,),
            "weights": (3,),
            "when": (planner.horizon,),
            "probe_target": (quantities,),
            "probe_given": (quantities,),
            "probe_weight": (quantities,),
            "hazard_limit": (hazards,),
        }
        outputs: dict[str, Shape] = {
            "mean_next": plan,
            "std_next": plan,
            "actions": plan,
            "cost": (1,),
            "violation": (1,),
            "costs": (planner.samples,),
            "violations": (planner.samples * bool(hazards),),
            "z_future": (planner.horizon, latent_size),
            "invalid": (1,),
            "kept_next": (planner.kept, *plan),
        }
        return cls(_present(inputs), _present(outputs))


def _present(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if 0 not in shape}
