"""Compiled form of the vision transformer; `encoder` says which foldings are exact.

Shapes: H W model input, P tokens (patches + 1), S token size, D latent size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from jetsight_compile.export.layers import (
    Affine,
    Attention,
    Dense,
    Gelu,
    Layer,
    Norm,
    Style,
    as_a,
)
from jetsight_train.model.encoder import Projector, ViTBlock, ViTEncoder
from jetsight_train.model.preprocess import Preprocess


class VisionTransformer(Layer):
    """A `ViTEncoder` with its preprocessing folded in: pixels `-> [1, D]`."""

    class_token: Tensor
    positions: Tensor

    def __init__(
        self, encoder: ViTEncoder, preprocess: Preprocess, channels_last: bool, style: Style
    ) -> None:
        super().__init__()
        self.patch, self.channels_last = encoder.patch_embed.kernel_size[0], channels_last
        self.embed = Dense(_patch_embedding(encoder.patch_embed, preprocess, channels_last))
        self.register_buffer("class_token", encoder.class_token.detach()[0].clone())
        self.register_buffer("positions", encoder.positions.detach()[0].clone())
        *blocks, last = encoder.blocks
        self.blocks = nn.ModuleList(EncoderBlock(as_a(ViTBlock, block), style) for block in blocks)
        self.last = LastEncoderBlock(as_a(ViTBlock, last), style)
        self.norm = Norm(encoder.norm.eps)
        self.projector = ProjectorGraph(encoder.projector, encoder.norm, style)

    def forward(self, pixels: Tensor) -> Tensor:
        """Cut patches, embed, mix, read the class token."""
        x = torch.cat([self.class_token, self.embed(self._patches(pixels))]) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.projector(self.norm(self.last(x)))

    def _patches(self, pixels: Tensor) -> Tensor:
        """Pixels to `[P - 1, 3 * patch * patch]`, by one transpose."""
        side = self.patch
        # A remainder beyond whole patches is cut off, as by an unpadded convolution.
        height, width = pixels.shape[:2] if self.channels_last else pixels.shape[1:]
        rows, columns = height // side, width // side
        if self.channels_last:
            x = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side * 3)
            return x.permute(0, 2, 1, 3).reshape(rows * columns, -1)
        x = pixels[:, : rows * side, : columns * side].reshape(3, rows, side, columns, side)
        return x.permute(1, 3, 0, 2, 4).reshape(rows * columns, -1)


class EncoderBlock(Layer):
    """One pre-norm transformer block over all tokens: `[P, S] -> [P, S]`."""

    def __init__(self, block: ViTBlock, style: Style) -> None:
        super().__init__()
        q, k, v = _query_key_value(block)
        self.norm_attention = Norm(block.norm_attention.eps)
        self.q, self.k, self.v = Dense(q), Dense(_unbiased(k)), Dense(_unbiased(v))
        self.attention = Attention(block.heads, style)
        self.out = Dense(_absorb_value_bias(block, v))
        self.mlp = EncoderMlp(block, style)

    def forward(self, x: Tensor) -> Tensor:
        """Attention branch, then MLP branch."""
        h = self.norm_attention(x)
        x = x + self.out(self.attention(self.q(h), self.k(h), self.v(h)))
        return x + self.mlp(x)


class LastEncoderBlock(EncoderBlock):
    """The last block for the class token alone: `[P, S] -> [1, S]`."""

    def __init__(self, block: ViTBlock, style: Style) -> None:
        # One query: TensorRT has no fused kernel for it and then refuses the graph.
        super().__init__(block, replace(style, attention="parts"))

    def forward(self, x: Tensor) -> Tensor:
        """Keys and values of all tokens, everything else of the first."""
        h = self.norm_attention(x)
        x = x[:1] + self.out(self.attention(self.q(h[:1]), self.k(h), self.v(h)))
        return x + self.mlp(x)


class EncoderMlp(Layer):
    """The MLP branch of a block, norm included."""

    def __init__(self, block: ViTBlock, style: Style) -> None:
        super().__init__()
        up, down = block.mlp[0], block.mlp[2]
        self.norm = Norm(block.norm_mlp.eps)
        self.up = Dense(Affine.of(up).after_norm(block.norm_mlp))
        self.gelu = Gelu(style)
        self.down = Dense(Affine.of(down))

    def forward(self, x: Tensor) -> Tensor:
        """`[P, S] -> [P, S]`, without the residual."""
        return self.down(self.gelu(self.up(self.norm(x))))


class ProjectorGraph(Layer):
    """A `Projector` with BatchNorm, and the affine part of a norm before it, folded."""

    def __init__(self, projector: Projector, norm: nn.LayerNorm | None, style: Style) -> None:
        super().__init__()
        up = Affine.of(projector.up)
        up = (up if norm is None else up.after_norm(norm)).before_batch_norm(projector.norm)
        self.up, self.gelu, self.down = Dense(up), Gelu(style), Dense(Affine.of(projector.down))

    def forward(self, x: Tensor) -> Tensor:
        """`[1, S] -> [1, D]`."""
        return self.down(self.gelu(self.up(x)))


def _patch_embedding(embed: nn.Conv2d, preprocess: Preprocess, channels_last: bool) -> Affine:
    """Embed one patch of raw pixels, in the pixel order of `_patches`."""
    weight = embed.weight.detach().double()
    bias = torch.zeros(len(weight)) if embed.bias is None else embed.bias.detach()
    # Before the gain goes into the weight: w (g x + o) = (w g) x + w o.
    bias = bias.double() + (weight * preprocess.offset.double()).sum(dim=(1, 2, 3))
    weight = weight * preprocess.gain.double()
    order = (2, 3, 1, 0) if channels_last else (1, 2, 3, 0)
    return Affine(weight.permute(order).reshape(-1, len(weight)), bias)


def _query_key_value(block: ViTBlock) -> tuple[Affine, Affine, Affine]:
    """Split the fused projection behind the bare norm; queries include the attention scale."""
    qkv = Affine.of(block.qkv).after_norm(block.norm_attention)
    size = qkv.weight.shape[0]
    q, k, v = (qkv.columns(i * size, (i + 1) * size) for i in range(3))
    # Before the product and not after it, which is where TensorRT's fusion expects the scale.
    return q.scaled((size // block.heads) ** -0.5), k, v


def _unbiased(affine: Affine) -> Affine:
    # Exact for keys and values: see the docstring of `encoder`.
    return Affine(affine.weight, torch.zeros_like(affine.bias))


def _absorb_value_bias(block: ViTBlock, v: Affine) -> Affine:
    """Fold the value bias into the output projection."""
    out = Affine.of(block.out)
    return Affine(out.weight, out.bias + v.bias @ out.weight)
