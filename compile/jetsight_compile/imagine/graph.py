"""One planner iteration as one ONNX graph, put together from parts that are exported once.

Shapes: N samples, M = N + 1 rollouts, C context, K history, H horizon, D latent size,
A action-block size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn

from jetsight_compile.dense import Style
from jetsight_compile.graphs import export_part, finished
from jetsight_compile.imagine.candidates import Candidates
from jetsight_compile.imagine.ports import ImaginePorts
from jetsight_compile.imagine.score import Asked, Score
from jetsight_compile.imagine.select import Select
from jetsight_compile.imagine.sheet import Sheet
from jetsight_compile.imagine.tokens import Tokens
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec


class Judge(nn.Module):
    """Everything behind the rollout, from inputs in the order of `names`."""

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
        return self.select(
            given["mean"], given["std"], given["candidates"], z_future, judged, *rest
        )


def export_imagine(model: WorldModel, spec: ImagineSpec, style: Style) -> onnx.ModelProto:
    """One iteration of a planner; inputs and outputs as `ImaginePorts` has them.

    Raises:
        UsageError: the planner does not fit the model.
        EngineError: the exported graph breaks a promise of `jetsight_compile.graphs`.
    """
    ports = ImaginePorts.of(model, spec)
    shapes, sheet = ports.inputs(), Sheet(ports)
    rollouts, blocks = spec.samples + 1, [f"actions_{step}" for step in range(spec.horizon)]
    order = ("mean", "std", "noise", "incumbent", "a_last", "low", "high", "kept", "rate")
    examples = {name: torch.zeros(shapes[name]) for name in order if name in shapes}
    front = export_part(
        Candidates(spec), _given(examples), ["proposals", "candidates", *blocks], style.opset
    )
    made = sheet.add(front, list(examples), "candidates/", "candidates/")
    tokens = Tokens(sheet, model, spec, style)
    ends = tokens.rollout(made[2:])
    tried = torch.zeros(rollouts, spec.horizon, ports.A)
    unread = ("z_hist", "a_hist", "noise", "incumbent", "low", "high", "rate")
    examples = {"proposals": tried, "candidates": tried, "z_newest": torch.zeros(1, ports.D)}
    examples |= {name: torch.zeros(s) for name, s in shapes.items() if name not in unread}
    examples |= {f"z_{step}": torch.zeros(rollouts, ports.D) for step in range(spec.horizon)}
    judge = Judge(model, spec, list(examples))
    back = export_part(judge, _given(examples), list(ports.outputs()), style.opset)
    sources = [*made[:2], tokens.newest, *list(examples)[3 : -spec.horizon], *ends]
    return finished(sheet.finished(back, sources, "judge/"), spec.graph, ports)


def _given(examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under names that no operator has; the exporter calls its own values `mean` or `std`."""
    return {f"given_{name}": tensor for name, tensor in examples.items()}
