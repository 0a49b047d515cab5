"""Which tokens a rollout is made of, each of them once.

Latents count from the oldest of the context: 0 to C-1 are given, C to C+H-1 imagined. A token is
that of one latent in a window; windows that begin at the same latent share their tokens, because
positions count from the window's start and attention only looks back.

Shapes: M rollouts, C context, K history, H horizon, D latent size, S inner attention size.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch

from jetsight_compile.dense import Style
from jetsight_compile.graphs import export_part
from jetsight_compile.imagine.rollout import Modulation, Token
from jetsight_compile.imagine.sheet import Sheet
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec


class Tokens:
    """Lays the tokens of a rollout on a sheet."""

    def __init__(self, sheet: Sheet, model: WorldModel, spec: ImagineSpec, style: Style) -> None:
        self._sheet, self._model, self._spec, self._style = sheet, model, spec, style
        self._z, self._actions = sheet.rows("z_hist"), sheet.rows("a_hist")
        self.newest = self._z[-1]
        self._parts: dict[int | None, onnx.ModelProto] = {}
        self._modulations: dict[int, list[str]] = {}
        self._tokens: dict[tuple[int, int], list[str]] = {}

    def rollout(self, blocks: Sequence[str]) -> list[str]:
        """Imagine H action blocks `[M, A]`; names of the latents `[M, D]` after each."""
        context, keep = self._spec.context, self._model.config.history
        self._actions += blocks
        for newest in range(context - 1, context - 1 + self._spec.horizon):
            first = max(0, newest - keep + 1)
            for index in range(first, newest + 1):
                self._token(index, first)
            self._z.append(self._token(newest, first)[0])
        return self._z[context:]

    def _token(self, index: int, first: int) -> list[str]:
        """The latent after a token, and what its blocks keep for the tokens to come."""
        if (index, first) not in self._tokens:
            before = [self._token(other, first)[1:] for other in range(first, index)]
            depth = len(self._model.predictor.blocks)
            kept = [
                n for block in range(depth) for b in before for n in b[2 * block : 2 * block + 2]
            ]
            inputs = [self._z[index], *self._modulation(index), *kept]
            part, owner = self._part(index - first), f"token{index - first}/"
            self._tokens[index, first] = self._sheet.add(part, inputs, self._step(), owner)
        return self._tokens[index, first]

    def _modulation(self, index: int) -> list[str]:
        if index not in self._modulations:
            part, action = self._part(None), [self._actions[index]]
            self._modulations[index] = self._sheet.add(part, action, self._step(), "modulation/")
        return self._modulations[index]

    def _step(self) -> str:
        """A prefix of its own, of the form that names of layers are compared without."""
        return f"step{len(self._tokens) + len(self._modulations)}/"

    def _part(self, position: int | None) -> onnx.ModelProto:
        """The graph of all tokens at a position, or of all modulations."""
        if position not in self._parts:
            build = self._export_modulation if position is None else self._export_token
            self._parts[position] = build(position or 0)
        return self._parts[position]

    def _export_modulation(self, _: int) -> onnx.ModelProto:
        module = Modulation(self._model, self._style)
        example = {"a": torch.zeros(self._spec.samples + 1, self._model.action_size)}
        names = [f"modulation_{i}" for i in range(len(module.modulation))]
        return export_part(module, example, names, self._style.opset)

    def _export_token(self, position: int) -> onnx.ModelProto:
        predictor, rows = self._model.predictor, self._spec.samples + 1
        token = Token(predictor, position, self._style)
        example = {"z": torch.zeros(rows, self._model.config.latent_size)}
        for name, size in token.sizes():
            example[name] = torch.zeros(rows, size, dtype=self._style.dtype)
        kept = [f"kept_{i}" for i in range(2 * len(token.blocks))]
        return export_part(token, example, ["z_next", *kept], self._style.opset)
