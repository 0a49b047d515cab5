"""The rollout of all candidates as tokens, nothing in it computed twice.

Exact rewrites of `WorldModel.rollout` (equal up to float rounding; each has a test):

- a token is everything the predictor does at one frame of one window: `[M, D]` for all candidates,
  `[1, D]` where its latent and action are history and so the same for all;
- shifts, scales and gates are computed once per candidate and action block, and read again by every
  window that the block is in;
- scores are taken relative to the first key and values relative to the first value, which softmax
  allows: `sum_j p_j v_j = v_0 + sum_j p_j (v_j - v_0)`. So a window's first token needs no query
  and no key, its value and the output matrix are folded into one, and position p attends to p keys
  and not to p + 1;
- everything is `[rows, size]`: nothing is transposed, split or gathered.

`jetsight_compile.planner_graph.tokens` lists the tokens of a rollout.

Shapes: R rows (M or 1), D latent size, S inner attention size, A action-block size, p position in a
window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_compile.export.layers import Affine, Dense, Layer, Norm, Product, Style, as_a
from jetsight_compile.export.predictor import (
    ActionEmbedding,
    PredictorMlp,
    modulation_of,
    norms_of,
    projection_of,
    query_key_value,
)
from jetsight_train.model.predictor import ConditionalBlock, Predictor
from jetsight_train.model.world_model import WorldModel

PARTS = ("shift_a", "scale_a", "gate_a", "shift_m", "scale_m", "gate_m")


class Several(nn.Module):
    """A module with several outputs; this base declares its call for the type checker."""

    if TYPE_CHECKING:

        def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
            ...


class TokenModulation(Several):
    """One action block of all candidates to every block's shifts, scales and gates."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, model: WorldModel, style: Style) -> None:
        super().__init__()
        predictor, size = model.predictor, model.config.latent_size
        self.action_embedding = ActionEmbedding(predictor.actions)
        each = [modulation_of(as_a(ConditionalBlock, block)) for block in predictor.blocks]
        # One product per piece, so that each is contiguous without a split.
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {n: Dense(a.columns(i * size, (i + 1) * size)) for i, n in enumerate(PARTS)}
            )
            for a in each
        )
        self.dtype = style.dtype
        self.to(self.dtype)
        # Robot units can be large: they are normalised before any rounding to half precision.
        self.register_buffer("action_mean", model.action_mean.clone())
        self.register_buffer("action_std", model.action_std.clone())

    def forward(self, a: Tensor) -> tuple[Tensor, ...]:
        """Map `[R, A]` in robot units to 6 pieces `[R, D]` per block."""
        normal = ((a - self.action_mean) / self.action_std).to(self.dtype)
        condition = functional.silu(self.action_embedding(normal))
        return tuple(
            piece(condition)
            for block in self.blocks
            for piece in as_a(nn.ModuleDict, block).values()
        )


class Token(Several):
    """The predictor at position p of a window.

    The assembler drops what no output depends on: of all but a window's last token the query, the
    MLP, the norm and the head behind the last block's keys and values.
    """

    def __init__(self, predictor: Predictor, position: int, style: Style) -> None:
        super().__init__()
        here = predictor.positions.detach()[0, position : position + 1]
        self._place, self._kept = f"position_{position}", 2 * position
        self.register_buffer(self._place, here.clone())
        kind = Later if position else First
        self.blocks = nn.ModuleList(
            kind(as_a(ConditionalBlock, block), style) for block in predictor.blocks
        )
        self.inner_size = _inner_size(predictor)
        self.norm = Norm(predictor.norm.eps)
        self.project = projection_of(predictor, style)
        self.dtype = style.dtype
        self.to(self.dtype)

    def forward(self, z: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Map a latent to the next one.

        Args:
            z: `[R, D]`.
            rest: 6 pieces of modulation `[R, D]` per block, then, for each block, what it kept of
                the window's tokens before: two tensors of each.

        Returns:
            `[R, D]` next latent, then the two tensors that each block keeps of this token.
        """
        pieces, keep = iter(rest), []
        parts = [[next(pieces) for _ in PARTS] for _ in self.blocks]
        before = [[next(pieces) for _ in range(self._kept)] for _ in self.blocks]
        x = z.to(self.dtype) + self.get_buffer(self._place)
        for block, modulation, kept in zip(self.blocks, parts, before, strict=True):
            x, *new = block(x, *modulation, *kept)
            keep += new
        return self.project(self.norm(x)).float(), *keep


class First(Several):
    """A conditional block at the window's first position, which attends only to itself."""

    def __init__(self, block: ConditionalBlock, style: Style) -> None:
        super().__init__()
        self.norms_attention = norms_of(block.norm_attention, block.attention.norm)
        value, out = _columns(block, 2), Affine.of(block.attention.out[0])
        # Attention to a single key has weight 1, which leaves one product of two matrices.
        self.value_out = Dense(
            Affine(value.weight @ out.weight, value.bias @ out.weight + out.bias)
        )
        self.mlp = PredictorMlp(block, style)

    def forward(
        self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, *mlp: Tensor
    ) -> tuple[Tensor, ...]:
        """Keep `h_0 [R, D]`, its attention's input, and `out_0 [R, D]`, its attention's output."""
        first, second = self.norms_attention
        h = second(first(x) * scale + shift)
        out = self.value_out(h)
        return self.mlp(x + gate * out, *mlp), h, out


class Later(Several):
    """A conditional block at any later position."""

    def __init__(self, block: ConditionalBlock, style: Style) -> None:
        super().__init__()
        self.norms_attention = norms_of(block.norm_attention, block.attention.norm)
        # The biases of keys and values cancel in the differences; that of the output is in out_0.
        self.q, self.k, self.v = (
            Dense(_columns(block, 0)),
            Product(_columns(block, 1)),
            Product(_columns(block, 2)),
        )
        self.attention = Relative(block.attention.heads)
        self.out = Product(Affine.of(block.attention.out[0]))
        self.mlp = PredictorMlp(block, style)

    def forward(
        self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """Keep its key and value relative to the window's first, `[R, S]` each."""
        mlp, (h_0, out_0, *before) = rest[:3], rest[3:]
        first, second = self.norms_attention
        h = second(first(x) * scale + shift)
        # Subtracted before the products, which are linear: one each, and not two.
        moved = h - h_0
        k, v = self.k(moved), self.v(moved)
        mixed = self.attention(self.q(h), *before, k, v)
        # out_0 has the bias of the output and the first token's whole share.
        return self.mlp(x + gate * (out_0 + self.out(mixed)), *mlp), k, v


class Relative(Layer):
    """Attention over keys and values that are relative to those of the window's first token.

    A window is a few tokens: products and sums per head are faster than products of matrices with
    a few rows, and need no transpose.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, *keys_values: Tensor) -> Tensor:
        """Attend with `q [R, S]` to `k [R, S], v [R, S]` of each position from 1 to p: `[R, S]`."""
        size, q, keys = q.shape[1], self._by_head(q), keys_values[::2]
        scores = [(q * self._by_head(k)).sum(-1, keepdim=True) for k in keys]
        shares = _shares(scores)
        mixed = [p * self._by_head(v) for p, v in zip(shares, keys_values[1::2], strict=True)]
        total = mixed[0]
        for each in mixed[1:]:
            total = total + each
        return total.view(-1, size)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(-1, self.heads, x.shape[1] // self.heads)


def _shares(scores: list[Tensor]) -> list[Tensor]:
    """Return the softmax of 0 and the scores, without the share of the 0."""
    if len(scores) == 1:
        # The softmax of 0 and x is a sigmoid.
        return [torch.sigmoid(scores[0])]
    # The largest of 0 and all scores, subtracted so that exp() cannot overflow.
    top = functional.relu(scores[0])
    for score in scores[1:]:
        top = torch.maximum(top, score)
    powers = [torch.exp(score - top) for score in scores]
    total = torch.exp(-top)
    for power in powers:
        total = total + power
    return [power / total for power in powers]


def _columns(block: ConditionalBlock, part: int) -> Affine:
    """Return the map to queries, keys or values of a block after its norm: part 0, 1 or 2."""
    fused = query_key_value(block)
    size = fused.weight.shape[1] // 3
    return fused.columns(part * size, (part + 1) * size)


def _inner_size(predictor: Predictor) -> int:
    """Return S, the size of a query, key or value of all heads."""
    out = as_a(ConditionalBlock, predictor.blocks[0]).attention.out[0]
    return as_a(nn.Linear, out).in_features
