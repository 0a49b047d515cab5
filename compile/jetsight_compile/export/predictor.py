"""Compiled form of `forecast`: H autoregressive steps unrolled, nothing computed twice.

Exact rewrites of `WorldModel.rollout` (equal up to float rounding; each has a test):

- actions are embedded, and turned into every block's shift, scale and gate, once for all steps;
- the `1 +` of the scale goes into the modulation's bias, LayerNorm's affine part into the layer
  after it, attention's scale into the query weights, BatchNorm into the layer before it;
- of the last block, of the norm and of the head only the newest token is computed.

The window slides one latent per step and its position embedding counts from the window's start, so
every token of a window is new at every step: a key/value cache would have nothing to keep.

Shapes: K history, H horizon, A action-block size, D latent size, S inner attention size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_compile.export.layers import Affine, Attention, Dense, Gelu, Layer, Norm, Style, as_a
from jetsight_compile.export.transformer import ProjectorGraph
from jetsight_train.model.encoder import Projector
from jetsight_train.model.predictor import ActionEmbedder, ConditionalBlock, Predictor
from jetsight_train.model.world_model import WorldModel

PARTS = 6  # shift, scale, gate of the attention branch, then of the MLP branch
_SCALES = (1, 4)
# Added to masked scores: exp() of it is zero, and it is finite even in float16.
_HIDDEN = -1e4


class ForecastGraph(Layer):
    """`z_hist [K, D], a_hist [K-1, A], actions [H, A] -> z_future [H, D]`, in robot units.

    It is exported as its two parts, and the step is repeated in ONNX: tracing two modules takes a
    third of the time of tracing H steps.
    """

    def __init__(self, model: WorldModel, style: Style) -> None:
        super().__init__()
        self.modulation = Modulation(model, style)
        self.step = Step(model.predictor, model.config.history, style)
        self.horizon = model.config.horizon

    def forward(self, z_hist: Tensor, *blocks: Tensor) -> Tensor:
        """H steps, each from the newest K latents; `blocks`: `a_hist`, if K > 1, and `actions`."""
        pieces = self.modulation(*blocks)
        each, window, future = len(pieces) // self.horizon, z_hist, []
        for step in range(self.horizon):
            z, *window_next = self.step(window, *pieces[step * each : (step + 1) * each])
            window = window_next[0] if window_next else z
            future.append(z)
        return torch.cat(future)


class Step(nn.Module):
    """One step: window `[K, D]` and its modulations to the next latent and the next window.

    Latents stay in float32 between steps, in every style.
    """

    positions: Tensor

    def __init__(self, predictor: Predictor, history: int, style: Style) -> None:
        super().__init__()
        self.register_buffer("positions", predictor.positions.detach()[0].clone())
        *blocks, last = (as_a(ConditionalBlock, block) for block in predictor.blocks)
        # A window is a few tokens: no backend has a fused attention kernel for it.
        style = replace(style, attention="parts")
        self.blocks = nn.ModuleList(PredictorBlock(block, history, style) for block in blocks)
        self.last = LastPredictorBlock(last, style)
        self.norm = Norm(predictor.norm.eps)
        self.project = projection_of(predictor, style)
        self.dtype = style.dtype
        self.to(self.dtype)

    def forward(self, window: Tensor, *modulations: Tensor) -> tuple[Tensor, ...]:
        """`[K, D] -> [1, D], [K, D]`; with K = 1 both are the same, and there is one output."""
        pieces = iter(modulations)
        x = window.to(self.dtype) + self.positions
        for block in (*self.blocks, self.last):
            x = block(x, *(next(pieces) for _ in range(PARTS)))
        # Float32, because a rounded latent would carry its error into every later step.
        z = self.project(self.norm(x)).float()
        return (z,) if len(window) == 1 else (z, torch.cat([window[1:], z]))


class Modulation(nn.Module):
    """All shifts, scales and gates of a forecast, in the order the steps need them.

    One Gemm for all blocks over the K-1+H action blocks; then one gather lays out each window's
    rows, and one split returns them: `[K, D]` each, `[1, D]` if the last block needs only its
    newest token.
    """

    order: Tensor
    action_mean: Tensor
    action_std: Tensor

    def __init__(self, model: WorldModel, style: Style) -> None:
        super().__init__()
        predictor = model.predictor
        self.action_embedding = ActionEmbedding(predictor.actions)
        each = [modulation_of(as_a(ConditionalBlock, block)) for block in predictor.blocks]
        self.all = Dense(
            Affine(torch.cat([m.weight for m in each], 1), torch.cat([m.bias for m in each]))
        )
        self.size = each[0].weight.shape[0]
        self.dtype = style.dtype
        self.to(self.dtype)
        # Robot units can be large: they are normalised before any rounding to half precision.
        self.register_buffer("action_mean", model.action_mean.clone())
        self.register_buffer("action_std", model.action_std.clone())
        order, self.sizes = _layout(len(each), model.config.history, model.config.horizon)
        self.register_buffer("order", torch.tensor(order))

    def forward(self, *blocks: Tensor) -> tuple[Tensor, ...]:
        """`[K-1, A]`, if K > 1, and `[H, A]` to the pieces, in the order of use."""
        joined = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        a = (joined - self.action_mean) / self.action_std
        condition = self.action_embedding(a.to(self.dtype))
        rows = self.all(functional.silu(condition)).view(-1, self.size)
        return torch.split(rows.index_select(0, self.order), self.sizes)


class ActionEmbedding(Layer):
    """An `ActionEmbedder`: normalised action blocks `[T, A] -> [T, D]`."""

    def __init__(self, embedder: ActionEmbedder) -> None:
        super().__init__()
        self.squeeze = Dense(Affine.of(embedder.code))
        self.up = Dense(Affine.of(embedder.embed[0]))
        self.down = Dense(Affine.of(embedder.embed[2]))

    def forward(self, a: Tensor) -> Tensor:
        """Apply the three layers."""
        return self.down(functional.silu(self.up(self.squeeze(a))))


class PredictorBlock(Layer):
    """One conditional block over a window: `[K, D] -> [K, D]`."""

    def __init__(self, block: ConditionalBlock, history: int, style: Style) -> None:
        super().__init__()
        inner = block.attention
        self.norms_attention = norms_of(block.norm_attention, inner.norm)
        self.qkv = Dense(query_key_value(block))
        # Causal, as in training: above the diagonal is the future.
        mask = torch.full((history, history), _HIDDEN).triu(1)
        self.attention = Attention(inner.heads, style, mask)
        self.out = Dense(Affine.of(inner.out[0]))
        self.mlp = PredictorMlp(block, style)

    def forward(
        self, x: Tensor, shift_a: Tensor, scale_a: Tensor, gate_a: Tensor, *mlp: Tensor
    ) -> Tensor:
        """Attention branch, then MLP branch, each shifted, scaled and gated."""
        first, second = self.norms_attention
        q, k, v = self.qkv(second(first(x) * scale_a + shift_a)).chunk(3, dim=-1)
        x = x + gate_a * self.out(self.attention(q, k, v))
        return self.mlp(x, *mlp)


class LastPredictorBlock(Layer):
    """The last block, computed for the newest token alone: `[K, D] -> [1, D]`."""

    def __init__(self, block: ConditionalBlock, style: Style) -> None:
        super().__init__()
        inner = block.attention
        self.norms_attention = norms_of(block.norm_attention, inner.norm)
        qkv = query_key_value(block)
        size = qkv.weight.shape[1] // 3
        self.q = Dense(qkv.columns(0, size))
        self.kv = Dense(qkv.columns(size, 3 * size))
        # The newest token sees the whole window, so there is nothing to mask.
        self.attention = Attention(inner.heads, style)
        self.out = Dense(Affine.of(inner.out[0]))
        self.mlp = PredictorMlp(block, style)

    def forward(
        self, x: Tensor, shift_a: Tensor, scale_a: Tensor, gate_a: Tensor, *mlp: Tensor
    ) -> Tensor:
        """Keys and values of all tokens, everything else of the newest."""
        first, second = self.norms_attention
        h = second(first(x) * scale_a + shift_a)
        k, v = self.kv(h).chunk(2, dim=-1)
        x = x[-1:] + gate_a * self.out(self.attention(self.q(h[-1:]), k, v))
        return self.mlp(x, *mlp)


class PredictorMlp(Layer):
    """The MLP branch of a conditional block, residual included."""

    def __init__(self, block: ConditionalBlock, style: Style) -> None:
        super().__init__()
        norm, up, down = block.mlp[0], block.mlp[1], block.mlp[4]
        self.norms = norms_of(block.norm_mlp, norm)
        self.up = Dense(Affine.of(up).after_norm(norm))
        self.gelu = Gelu(style)
        self.down = Dense(Affine.of(down))

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """`[P, D] -> [P, D]`."""
        first, second = self.norms
        return x + gate * self.down(self.gelu(self.up(second(first(x) * scale + shift))))


def norms_of(bare: nn.Module, affine: nn.Module) -> nn.ModuleList:
    """Build the two norms of a branch, without the affine part of the second."""
    # Two norms in series with a modulation between: LeWM's structure, not to be merged.
    return nn.ModuleList(Norm(as_a(nn.LayerNorm, norm).eps) for norm in (bare, affine))


def projection_of(predictor: Predictor, style: Style) -> Layer:
    """Build the projection of the last token to the next latent, its norm's affine part folded."""
    if isinstance(predictor.project, nn.Linear):
        return Dense(Affine.of(predictor.project).after_norm(predictor.norm))
    projector = as_a(Projector, predictor.project)
    return ProjectorGraph(projector, predictor.norm, style)


def query_key_value(block: ConditionalBlock) -> Affine:
    """Fuse the projection behind the bare norm; queries include the attention scale."""
    qkv = Affine.of(block.attention.qkv).after_norm(block.attention.norm)
    size = qkv.weight.shape[1] // 3
    q, kv = qkv.columns(0, size), qkv.columns(size, 3 * size)
    q = q.scaled((size // block.attention.heads) ** -0.5)
    return Affine(torch.cat([q.weight, kv.weight], 1), torch.cat([q.bias, kv.bias]))


def modulation_of(block: ConditionalBlock) -> Affine:
    """Fold the `1 +` of the two scales into the bias of a block's modulation."""
    affine = Affine.of(block.modulation[1])
    # A copy: a view of a model that is float64 already would change the model.
    bias = affine.bias.reshape(PARTS, -1).clone()
    bias[list(_SCALES)] += 1.0
    return Affine(affine.weight, bias.reshape(-1))


def _layout(blocks: int, history: int, horizon: int) -> tuple[list[int], list[int]]:
    """List the rows of the modulations `[(K-1+H) * blocks * 6, D]` by piece, and their counts.

    Row `(t * blocks + block) * 6 + part` is that part for the action block t.
    """
    order: list[int] = []
    sizes: list[int] = []
    for step in range(horizon):
        for block in range(blocks):
            for part in range(PARTS):
                # The last block's parts 0 and 1 act on the keys and values of all tokens, the
                # others on the newest token alone.
                newest_only = block == blocks - 1 and part >= 2
                window = range(step + history - 1 if newest_only else step, step + history)
                order += [(t * blocks + block) * PARTS + part for t in window]
                sizes.append(len(window))
    return order, sizes
