"""Tokens of a rollout, each of them computed once.

Latents count from the oldest of the context: 0 to C-1 are given, C to C+H-1 imagined. A token is
that of one latent in a window; windows that begin at the same latent share their tokens, because
positions count from the window's start and attention is causal. So while the window fills, one
token is new per step; once it slides, all of its K tokens are.

Shapes: M rollouts, C context, K history, H horizon, D latent size, S inner attention size.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch

from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_part
from jetsight_compile.planner_graph.assembler import GraphAssembler
from jetsight_compile.planner_graph.token_layers import PARTS, Token, TokenModulation
from jetsight_train.model.world_model import WorldModel

# Rows of the exported example; nothing in a token depends on their number.
_ROWS = 4


class TokenParts:
    """Graphs of a model's tokens, each exported once for all planners."""

    def __init__(self, model: WorldModel, style: Style) -> None:
        self.model, self._style = model, style
        self._parts: dict[int | None, onnx.ModelProto] = {}

    def token(self, position: int) -> onnx.ModelProto:
        """Return the graph of every token at this position of a window."""
        if position not in self._parts:
            # Traced once, since every step of every planner reads the same part.
            self._parts[position] = self._token(position)
        return self._parts[position]

    def modulation(self) -> onnx.ModelProto:
        """Return the graph of an action block's shifts, scales and gates."""
        if None not in self._parts:
            module = TokenModulation(self.model, self._style)
            example = {"a": torch.zeros(_ROWS, self.model.action_size)}
            count = len(PARTS) * len(self.model.predictor.blocks)
            names = [f"modulation_{index}" for index in range(count)]
            self._parts[None] = export_part(module, example, names, self._style.opset)
        return self._parts[None]

    def _token(self, position: int) -> onnx.ModelProto:
        predictor, latent = self.model.predictor, self.model.config.latent_size
        token = Token(predictor, position, self._style)
        depth, inner = len(token.blocks), token.inner_size
        # Of the window's first token two latents are kept, of every other a key and a value.
        kept = [latent, latent, *(inner,) * (2 * position - 2)][: 2 * position]
        sizes = [latent] * len(PARTS) * depth + kept * depth
        example = {"z": torch.zeros(_ROWS, latent)}
        for index, size in enumerate(sizes):
            example[f"given_{index}"] = torch.zeros(_ROWS, size, dtype=self._style.dtype)
        names = ["z_next", *(f"kept_{index}" for index in range(2 * depth))]
        return export_part(token, example, names, self._style.opset)


class Rollout:
    """Tokens of a rollout, added to a graph.

    Args:
        assembler: of the graph; its inputs `z_hist` and `a_hist` are read.
        parts: of the model.

    Attributes:
        newest: name of the newest latent given, `[1, D]`.
    """

    def __init__(self, assembler: GraphAssembler, parts: TokenParts) -> None:
        self._assembler, self._parts = assembler, parts
        self._z, self._actions = assembler.rows("z_hist"), assembler.rows("a_hist")
        self.newest = self._z[-1]
        self._modulations: dict[int, list[str]] = {}
        self._tokens: dict[tuple[int, int], list[str]] = {}

    def latents(self, blocks: Sequence[str]) -> list[str]:
        """Add H action blocks `[M, A]`; return names of the latents `[M, D]` after each."""
        context, history = len(self._z), self._parts.model.config.history
        self._actions = [*self._actions, *blocks]
        for newest in range(context - 1, context - 1 + len(blocks)):
            first = max(0, newest - history + 1)
            self._z.append(self._token(newest, first)[0])
        return self._z[context:]

    def _token(self, index: int, first: int) -> list[str]:
        """Return the latent after a token, and what its blocks keep of it for later tokens."""
        if (index, first) not in self._tokens:
            # Only tokens of the same window: positions count from its start.
            before = [self._token(other, first)[1:] for other in range(first, index)]
            modulation, kept = self._modulation(index), []
            for block in range(0, 2 * len(modulation) // len(PARTS), 2):
                kept += [name for each in before for name in each[block : block + 2]]
            position, inputs = index - first, [self._z[index], *modulation, *kept]
            part, owner = self._parts.token(position), f"token{position}/"
            self._tokens[index, first] = self._assembler.add(part, inputs, self._step(), owner)
        return self._tokens[index, first]

    def _modulation(self, index: int) -> list[str]:
        if index not in self._modulations:
            part, action = self._parts.modulation(), [self._actions[index]]
            self._modulations[index] = self._assembler.add(
                part, action, self._step(), "modulation/"
            )
        return self._modulations[index]

    def _step(self) -> str:
        """Return a unique prefix; `onnx_graph` compares layer names without it."""
        return f"step{len(self._tokens) + len(self._modulations)}/"
