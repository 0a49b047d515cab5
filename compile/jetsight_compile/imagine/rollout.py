"""The rollout of all candidates, one token at a time, nothing computed twice.

Exact rewrites of `WorldModel.rollout` (equal up to float rounding; each has a test):

- a token is everything the predictor does at one frame of one window: `[M, D]` for all candidates,
  `[1, D]` where its action is history and so the same for all;
- while the window fills, its first token and with it every position stays: a token is computed once
  and what later ones need of it is kept;
- scores are taken relative to the first key and values relative to the first value, which softmax
  allows: `sum_j p_j v_j = v_0 + sum_j p_j (v_j - v_0)`. So the window's first token needs no query
  and no key, and its value only ever meets the output matrix, with which it is folded into one;
- products, sums over a head and what is spread over a head again are all `[M, size]`, so nothing is
  ever transposed or split;
- shifts, scales and gates are computed once per candidate and action block.

Shapes: M rollouts, D latent size, S inner attention size, R rows (M or 1), p position in a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_compile.dense import Affine, Dense, Layer, Norm, Style, as_a
from jetsight_compile.forecast_graph import (
    ActionEmbedding,
    Mlp,
    _modulation,
    _norms,
    _projection,
    _query_key_value,
)
from jetsight_train.model.predictor import ConditionalBlock, Predictor
from jetsight_train.model.world_model import WorldModel

PARTS = 6  # shift, scale, gate of the attention branch, then of the MLP branch


class Modulation(nn.Module):
    """One action block of all candidates to every block's shift, scale and gate."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, model: WorldModel, style: Style) -> None:
        super().__init__()
        self.action_embedding = ActionEmbedding(model.predictor.actions)
        size = model.config.latent_size
        each = [_modulation(as_a(ConditionalBlock, block)) for block in model.predictor.blocks]
        self.modulation = nn.ModuleList(
            Dense(affine.columns(part * size, (part + 1) * size))
            for affine in each
            for part in range(PARTS)
        )
        self.dtype = style.dtype
        self.to(self.dtype)
        self.register_buffer("action_mean", model.action_mean.clone())
        self.register_buffer("action_std", model.action_std.clone())

    def forward(self, a: Tensor) -> tuple[Tensor, ...]:
        """`[R, A]` in robot units to `6 * depth` pieces `[R, D]`."""
        normal = (a - self.action_mean) / self.action_std
        condition = functional.silu(self.action_embedding(normal.to(self.dtype)))
        return tuple(piece(condition) for piece in self.modulation)


class Token(nn.Module):
    """Everything that happens at position p of a window.

    Of what it returns only the last token's latent is read; what leads to nothing is dropped from
    the graph.
    """

    def __init__(
        self, predictor: Predictor, position: int, style: Style, form: str = "matmul"
    ) -> None:
        super().__init__()
        self.position = f"position_{position}"
        self.register_buffer(
            self.position, predictor.positions.detach()[0, position : position + 1].clone()
        )
        kind = First if position == 0 else Later
        self.blocks = nn.ModuleList(
            kind(as_a(ConditionalBlock, b), style, form) for b in predictor.blocks
        )
        self.norm = Norm(predictor.norm.eps)
        self.project = _projection(predictor, style)
        self.kept = 2 * position
        self.dtype = style.dtype
        self.to(self.dtype)

    def sizes(self) -> list[tuple[str, int]]:
        """Name and size of every input after the first."""
        latent, depth = self.get_buffer(self.position).shape[1], len(self.blocks)
        pieces = [(f"modulation_{i}", latent) for i in range(PARTS * depth)]
        inner = getattr(self.blocks[0], "inner", 0)
        for block in range(depth):
            for i in range(self.kept):
                pieces.append((f"before_{block}_{i}", latent if i < 2 else inner))
        return pieces

    def forward(self, z: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Latent `[R, D]`, modulations, then what each block kept of the tokens before.

        Returns:
            The latent that follows, then two tensors per block for the tokens to come.
        """
        pieces, kept = iter(rest), []
        depth = len(self.blocks)
        modulations = [[next(pieces) for _ in range(PARTS)] for _ in range(depth)]
        before = [[next(pieces) for _ in range(self.kept)] for _ in range(depth)]
        x = z.to(self.dtype) + self.get_buffer(self.position)
        for block, parts, earlier in zip(self.blocks, modulations, before, strict=True):
            x, *keep = block(x, *parts, *earlier)
            kept += keep
        return self.project(self.norm(x)).float(), *kept


class First(nn.Module):
    """A block at the first position, which attends to itself alone."""

    def __init__(self, block: ConditionalBlock, style: Style, form: str) -> None:
        super().__init__()
        self.norms_attention = _norms(block.norm_attention, block.attention.norm)
        v, out = _of(block, 2), Affine.of(block.attention.out[0])
        self.value_out = Dense(Affine(v.weight @ out.weight, v.bias @ out.weight + out.bias))
        self.mlp = Mlp(block, style)

    def forward(
        self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, *mlp: Tensor
    ) -> tuple[Tensor, ...]:
        first, second = self.norms_attention
        h = second(first(x) * scale + shift)
        out = self.value_out(h)
        return self.mlp(x + gate * out, *mlp), h, out


class Later(nn.Module):
    """A block at any later position."""

    def __init__(self, block: ConditionalBlock, style: Style, form: str) -> None:
        super().__init__()
        self.norms_attention = _norms(block.norm_attention, block.attention.norm)
        self.q, self.k, self.v = (
            Dense(_of(block, 0)),
            Product(_of(block, 1)),
            Product(_of(block, 2)),
        )
        self.inner = len(self.q.bias)
        self.attention = {"matmul": ByMatmul, "reduce": ByReduce, "batch": ByBatch}[form](
            block.attention.heads, len(self.q.bias)
        )
        self.out = Product(Affine.of(block.attention.out[0]))
        self.mlp = Mlp(block, style)

    def forward(
        self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        mlp, (h_0, out_0, *before) = rest[:3], rest[3:]
        first, second = self.norms_attention
        h = second(first(x) * scale + shift)
        moved = h - h_0
        k, v = self.k(moved), self.v(moved)
        mixed = self.attention(self.q(h), *before, k, v)
        return self.mlp(x + gate * (out_0 + self.out(mixed)), *mlp), k, v


class Product(Layer):
    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.register_buffer("weight", affine.weight.float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class ByMatmul(Layer):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.register_buffer("over_head", torch.eye(heads).repeat_interleave(size // heads, 0))
        self.register_buffer("to_head", self.over_head.T.contiguous())

    def forward(self, q: Tensor, *keys_values: Tensor) -> Tensor:
        scores = [(q * k) @ self.over_head for k in keys_values[::2]]
        shares = _shares(scores)
        mixed = [(p @ self.to_head) * v for p, v in zip(shares, keys_values[1::2], strict=True)]
        return sum(mixed[1:], mixed[0])


def _shares(scores):
    if len(scores) == 1:
        return [torch.sigmoid(scores[0])]
    top = functional.relu(scores[0])
    for s in scores[1:]:
        top = torch.maximum(top, s)
    each = [torch.exp(s - top) for s in scores]
    total = torch.exp(-top)
    for e in each:
        total = total + e
    return [e / total for e in each]


class ByReduce(Layer):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size

    def forward(self, q: Tensor, *keys_values: Tensor) -> Tensor:
        def cut(x):
            return x.view(-1, self.heads, self.size // self.heads)

        q = cut(q)
        scores = [(q * cut(k)).sum(-1, keepdim=True) for k in keys_values[::2]]
        shares = _shares(scores)
        mixed = [p * cut(v) for p, v in zip(shares, keys_values[1::2], strict=True)]
        return sum(mixed[1:], mixed[0]).view(-1, self.size)


class ByBatch(Layer):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size

    def forward(self, q: Tensor, *keys_values: Tensor) -> Tensor:
        def cut(x):
            return x.view(-1, self.heads, 1, self.size // self.heads)

        q = cut(q)
        k = torch.cat([cut(k) for k in keys_values[::2]], 2)
        v = torch.cat([cut(v) for v in keys_values[1::2]], 2)
        s = q @ k.transpose(2, 3)
        p = torch.softmax(torch.cat([torch.zeros_like(s[..., :1]), s], -1), -1)[..., 1:]
        return (p @ v).view(-1, self.size)


def _of(block: ConditionalBlock, part: int) -> Affine:
    qkv = _query_key_value(block)
    size = qkv.weight.shape[1] // 3
    return qkv.columns(part * size, (part + 1) * size)
