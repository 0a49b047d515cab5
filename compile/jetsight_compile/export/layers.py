"""Building blocks of a compiled graph, and the exact foldings that produce them.

Everything is one frame or one window, so activations are matrices `[tokens, size]` and every
linear layer becomes one ONNX `Gemm` with its weight stored `[in, out]`. Foldings are computed in
float64 and stored in float32.

Shapes: P tokens, I input size, O output size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight.errors import UsageError

M = TypeVar("M", bound=nn.Module)
Compute = Literal["fp32", "fp16", "bf16"]


class Layer(nn.Module):
    """A module from tensors to one tensor; the base class exists for the type checker."""

    if TYPE_CHECKING:

        def __call__(self, *tensors: Tensor) -> Tensor:  # noqa: D102
            ...


def as_a(kind: type[M], module: nn.Module) -> M:
    """Return `module`, checked to be of `kind`; a folding is exact only for its own layer type.

    Raises:
        UsageError: the module is of another type.
    """
    if not isinstance(module, kind):
        raise UsageError(
            f"no compiled form for {type(module).__name__}; expected {kind.__name__}: "
            "extend jetsight_compile.export.encoder or jetsight_compile.export.predictor"
        )
    return module


@dataclass(frozen=True)
class Style:
    """Form of a family's graphs: opset, operators and number format.

    Attributes:
        opset: ONNX opset of the graph.
        attention: `"fused"` for ONNX's `Attention` operator (opset 23), else its parts.
        gelu: `"op"` for ONNX's `Gelu` (opset 20), `"erf"` for its parts.
        compute: number format inside; the formats of inputs and outputs do not change.
    """

    opset: int
    attention: Literal["parts", "fused"] = "parts"
    gelu: Literal["op", "erf"] = "op"
    compute: Compute = "fp32"

    def computing(self, compute: Compute) -> Style:
        """Return this style with another number format."""
        return replace(self, compute=compute)

    @property
    def dtype(self) -> torch.dtype:
        """Number format as a torch type."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.compute]


@dataclass(frozen=True)
class Affine:
    """`x @ weight + bias` in float64; `weight [I, O]`, `bias [O]`."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, module: nn.Module) -> Affine:
        """Copy weight and bias of a torch `Linear`."""
        layer = as_a(nn.Linear, module)
        weight = layer.weight.detach().double().T
        # Zeros for a missing bias: the foldings add to it, and a Gemm takes one anyway.
        bias = torch.zeros(weight.shape[1]) if layer.bias is None else layer.bias.detach()
        return cls(weight, bias.double())

    def after_norm(self, module: nn.Module) -> Affine:
        """Fold in the affine part of the LayerNorm before this layer."""
        norm = as_a(nn.LayerNorm, module)
        gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
        # Gain on the rows, because the norm acts on the inputs of `x @ weight`.
        return Affine(gamma[:, None] * self.weight, self.bias + beta @ self.weight)

    def before_batch_norm(self, module: nn.Module) -> Affine:
        """Fold in the evaluation-mode BatchNorm after this layer."""
        gain, offset = batch_norm_affine(as_a(nn.BatchNorm1d, module))
        return Affine(self.weight * gain, self.bias * gain + offset)

    def after_batch_norm(self, module: nn.Module) -> Affine:
        """Fold in the evaluation-mode BatchNorm before this layer."""
        gain, offset = batch_norm_affine(as_a(nn.BatchNorm1d, module))
        return Affine(gain[:, None] * self.weight, self.bias + offset @ self.weight)

    def scaled(self, factor: float) -> Affine:
        """Multiply the output by `factor`."""
        return Affine(self.weight * factor, self.bias * factor)

    def columns(self, start: int, stop: int) -> Affine:
        """Keep only the outputs `start` to `stop`."""
        return Affine(self.weight[:, start:stop], self.bias[start:stop])


def batch_norm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Per-channel gain and offset of an evaluation-mode BatchNorm, in float64."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    gain = norm.weight.detach().double() / torch.sqrt(variance.double() + norm.eps)
    return gain, norm.bias.detach().double() - mean.double() * gain


class Dense(Layer):
    """One `Gemm`: `[P, I] -> [P, O]`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.register_buffer("weight", affine.weight.float().contiguous())
        self.register_buffer("bias", affine.bias.float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Product and bias in one node."""
        # `x @ w + b` would be exported as a MatMul and an Add.
        return torch.addmm(self.bias, x, self.weight)


class Product(Layer):
    """One `MatMul`: `[P, I] -> [P, O]`, used if a bias has no effect or is added elsewhere."""

    weight: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.register_buffer("weight", affine.weight.float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply without a bias."""
        return x @ self.weight


class Gelu(Layer):
    """Exact GELU, as one operator or written out for parsers that lack it."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self.written_out = style.gelu == "erf"

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise `x * Phi(x)`."""
        if self.written_out:
            # By erf, as in training; the tanh form would change LeWM's latents by 3e-5.
            return 0.5 * x * (1.0 + torch.erf(x * math.sqrt(0.5)))
        return functional.gelu(x)


class Norm(Layer):
    """LayerNorm whose affine part is folded into the layer after it.

    It stays one operator, so that half-precision backends keep its statistics in float32.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance per token."""
        return functional.layer_norm(x, x.shape[-1:], None, None, self.eps)


class Attention(Layer):
    """Multi-head attention over one window; the queries already include the scale.

    Args:
        heads: number of heads.
        style: decides between one operator and its parts.
        mask: `[P_query, P_key]` to add to the scores, or None.
    """

    mask: Tensor | None

    def __init__(self, heads: int, style: Style, mask: Tensor | None = None) -> None:
        super().__init__()
        self.heads, self.fused = heads, style.attention == "fused"
        self.register_buffer("mask", mask)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`q [P_q, W], k v [P, W] -> [P_q, W]`."""
        if self.fused:
            # The operator wants a batch axis; its default scale would be one too many.
            heads, query, key, value = self.heads, q[None], k[None], v[None]
            mixed, *_ = torch.onnx.ops.attention(
                query, key, value, self.mask, scale=1.0, q_num_heads=heads, kv_num_heads=heads
            )
            return mixed.view(len(q), -1)
        q, k, v = (x.view(len(x), self.heads, -1).transpose(0, 1) for x in (q, k, v))
        # Product, mask, softmax, product: the pattern that TensorRT up to 10.13 fuses.
        scores = q @ k.transpose(1, 2)
        if self.mask is not None:
            scores = scores + self.mask
        mixed = torch.softmax(scores, dim=-1) @ v
        return mixed.transpose(0, 1).reshape(mixed.shape[1], -1)
