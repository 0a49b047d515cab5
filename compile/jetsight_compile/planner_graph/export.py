"""One planner iteration as one ONNX graph, assembled from parts that are exported once.

Shapes: N samples, M = N + 1 rollouts, C context, K history, H horizon, D latent size,
A action-block size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.planner_tensors import Shape
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_part, finished
from jetsight_compile.planner_graph.assembler import GraphAssembler
from jetsight_compile.planner_graph.candidates import Candidates
from jetsight_compile.planner_graph.costs import CostInputs, Score
from jetsight_compile.planner_graph.refit import Select
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_compile.planner_graph.tokens import Rollout, TokenParts
from jetsight_train.model.world_model import WorldModel


class Judge(nn.Module):
    """Scores and refit after the rollout, from inputs in the order of `names`."""

    # Of the graph's inputs; the parts before this one produce the others.
    READ = frozenset({*CostInputs._fields[1:], "mean", "std", "kept", "temperature"})

    def __init__(self, model: WorldModel, spec: PlannerSpec, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.horizon = tuple(names), spec.horizon
        self.score, self.select = Score(model), Select(model, spec)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's outputs."""
        # The exporter passes tensors by position, so names are restored here.
        given = dict(zip(self.names, tensors, strict=True))
        z_future = torch.stack([given[f"z_{step}"] for step in range(self.horizon)])
        cost_inputs = CostInputs(
            **{name: given[name] for name in CostInputs._fields if name in given}
        )
        judged = self.score(given["proposals"], given["candidates"], z_future, cost_inputs)
        rest = [given[name] for name in ("kept", "temperature") if name in given]
        ends: tuple[Tensor, ...] = self.select(
            given["mean"], given["std"], given["candidates"], z_future, judged, *rest
        )
        return ends


class PlannerExporter:
    """Exporter of the planner graphs of one model in one style; shared parts are exported once."""

    def __init__(self, model: WorldModel, style: Style) -> None:
        self._model, self._style = model, style
        self._parts = TokenParts(model, style)

    def export(self, spec: PlannerSpec) -> onnx.ModelProto:
        """Export one iteration of a planner, with the tensors of `PlannerTensors`.

        Raises:
            UsageError: the planner does not fit the model.
            EngineError: the exported graph fails a check of `onnx_export`.
        """
        ports = ImaginePorts.of(self._model, spec)
        assembler = GraphAssembler(ports)
        proposals, candidates, *blocks = self._add_candidates(assembler, ports)
        rollout = Rollout(assembler, self._parts)
        latents = rollout.latents(blocks)
        made = {"proposals": proposals, "candidates": candidates, "z_newest": rollout.newest}
        made |= {f"z_{step}": latent for step, latent in enumerate(latents)}
        return finished(self._judged(assembler, ports, made), spec.graph, ports)

    def _add_candidates(self, assembler: GraphAssembler, ports: ImaginePorts) -> list[str]:
        """Add the candidates; return names of proposals, candidates and each block of these."""
        shapes, spec = ports.tensors.inputs, ports.spec
        order = ("mean", "std", "noise", "incumbent", "a_last", "low", "high", "kept", "rate")
        examples = {name: torch.zeros(shapes[name]) for name in order if name in shapes}
        made = ["proposals", "candidates", *(f"block_{step}" for step in range(spec.horizon))]
        # Float32 in every style, as for the judge below: rounding must not move a limit.
        part = export_part(Candidates(spec), _given(examples), made, self._style.opset)
        return assembler.add(part, list(examples), "candidates/", "candidates/")

    def _judged(
        self, assembler: GraphAssembler, ports: ImaginePorts, made: Mapping[str, str]
    ) -> onnx.ModelProto:
        """Add the part after the rollout and return the whole graph."""
        spec, inputs = ports.spec, ports.tensors.inputs
        rollouts, (latent_size,) = spec.samples + 1, inputs["z_goal"]
        tried, latents = (rollouts, *inputs["mean"]), (rollouts, latent_size)
        shapes: dict[str, Shape] = {
            name: latents if name.startswith("z_") else tried for name in made
        }
        shapes["z_newest"] = (1, latent_size)
        shapes |= {name: shape for name, shape in inputs.items() if name in Judge.READ}
        # A tensor each: the exporter merges two inputs that are the same object.
        examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
        judge = Judge(self._model, spec, list(examples))
        part = export_part(judge, _given(examples), list(ports.tensors.outputs), self._style.opset)
        return assembler.finished(part, [made.get(name, name) for name in examples], "judge/")


def _given(examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename inputs; the exporter itself calls values `mean` and `std`, after its operators."""
    return {f"given_{name}": tensor for name, tensor in examples.items()}
