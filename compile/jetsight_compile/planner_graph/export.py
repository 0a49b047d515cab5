"""One planner iteration as one ONNX graph, put together from parts that are exported once.

Shapes: N samples, M = N + 1 rollouts, C context, K history, H horizon, D latent size,
A action-block size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn

from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_part, finished
from jetsight_compile.planner_graph.assembler import Sheet
from jetsight_compile.planner_graph.candidates import Candidates
from jetsight_compile.planner_graph.costs import Asked, Score
from jetsight_compile.planner_graph.refit import Select
from jetsight_compile.planner_graph.signature import ImaginePorts, Shape
from jetsight_compile.planner_graph.tokens import Rollout, TokenParts
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec


class Judge(nn.Module):
    """Everything behind the rollout, from inputs in the order of `names`."""

    # Of the graph's inputs; the others come from the parts before.
    READ = frozenset({*Asked._fields[1:], "mean", "std", "kept", "temperature"})

    def __init__(self, model: WorldModel, spec: ImagineSpec, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.horizon = tuple(names), spec.horizon
        self.score, self.select = Score(model), Select(model, spec)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """To the graph's outputs."""
        given = dict(zip(self.names, tensors, strict=True))
        z_future = torch.stack([given[f"z_{step}"] for step in range(self.horizon)])
        asked = Asked(**{name: given[name] for name in Asked._fields if name in given})
        judged = self.score(given["proposals"], given["candidates"], z_future, asked)
        rest = [given[name] for name in ("kept", "temperature") if name in given]
        ends: tuple[Tensor, ...] = self.select(
            given["mean"], given["std"], given["candidates"], z_future, judged, *rest
        )
        return ends


class PlannerExporter:
    """The planner graphs of one model in one style; what they share is exported once."""

    def __init__(self, model: WorldModel, style: Style) -> None:
        self._model, self._style = model, style
        self._parts = TokenParts(model, style)

    def export(self, spec: ImagineSpec) -> onnx.ModelProto:
        """One iteration of a planner; inputs and outputs as `ImaginePorts` has them.

        Raises:
            UsageError: the planner does not fit the model.
            EngineError: the exported graph fails a check of `onnx_export`.
        """
        ports = ImaginePorts.of(self._model, spec)
        sheet = Sheet(ports)
        proposals, candidates, *blocks = self._lay_candidates(sheet, ports)
        rollout = Rollout(sheet, self._parts)
        latents = rollout.latents(blocks)
        made = {"proposals": proposals, "candidates": candidates, "z_newest": rollout.newest}
        made |= {f"z_{step}": latent for step, latent in enumerate(latents)}
        return finished(self._judged(sheet, ports, made), spec.graph, ports)

    def _lay_candidates(self, sheet: Sheet, ports: ImaginePorts) -> list[str]:
        """Names of the proposals, of the candidates and of these block by block."""
        shapes, spec = ports.inputs(), ports.spec
        order = ("mean", "std", "noise", "incumbent", "a_last", "low", "high", "kept", "rate")
        examples = {name: torch.zeros(shapes[name]) for name in order if name in shapes}
        made = ["proposals", "candidates", *(f"block_{step}" for step in range(spec.horizon))]
        part = export_part(Candidates(spec), _given(examples), made, self._style.opset)
        return sheet.add(part, list(examples), "candidates/", "candidates/")

    def _judged(
        self, sheet: Sheet, ports: ImaginePorts, made: Mapping[str, str]
    ) -> onnx.ModelProto:
        """The whole graph, once what comes behind the rollout is laid on the sheet."""
        spec = ports.spec
        tried, latents = (spec.samples + 1, spec.horizon, ports.A), (spec.samples + 1, ports.D)
        shapes: dict[str, Shape] = {
            name: latents if name.startswith("z_") else tried for name in made
        }
        shapes["z_newest"] = (1, ports.D)
        shapes |= {name: shape for name, shape in ports.inputs().items() if name in Judge.READ}
        # A tensor each: the exporter takes two inputs that are one object for one input.
        examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
        judge = Judge(self._model, spec, list(examples))
        part = export_part(judge, _given(examples), list(ports.outputs()), self._style.opset)
        return sheet.finished(part, [made.get(name, name) for name in examples], "judge/")


def _given(examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under names that no operator has; the exporter calls its own values `mean` or `std`."""
    return {f"given_{name}": tensor for name, tensor in examples.items()}
