"""Geometry of a world model: plain frozen values, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvConfig:
    """Strided convolutions, then one hidden layer; one entry per layer in the first three.

    With `points`, the last map is read by a spatial softmax of that many channels, else flattened;
    with `hidden` 0, what was read becomes the latent by one linear layer.
    """

    widths: tuple[int, ...] = (32, 64, 128, 128)
    kernels: tuple[int, ...] = (8, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 1)
    hidden: int = 256
    points: int = 0

    def __post_init__(self) -> None:
        """Refuse layer lists of different lengths."""
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError("conv widths, kernels and strides must have one entry per layer")


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer; the defaults are ViT-tiny as LeWorldModel uses it."""

    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp: int = 768
    patch: int = 14
    projector: int = 2048
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        """Refuse heads that do not divide the width."""
        if self.width % self.heads:
            raise ValueError(f"vit width {self.width} is not divisible by {self.heads} heads")


@dataclass(frozen=True)
class PredictorConfig:
    """Windowed autoregressive transformer; the defaults are LeWorldModel's predictor.

    `projector` is the hidden size of the output MLP; 0 leaves the last linear layer alone.
    """

    depth: int = 6
    heads: int = 16
    head_size: int = 64
    mlp: int = 2048
    action_hidden: int = 768
    projector: int = 2048
    dropout: float = 0.1


@dataclass(frozen=True)
class ModelConfig:
    """A whole world model: exactly one of `conv` and `vit` is given."""

    latent_size: int
    history: int
    horizon: int
    predictor: PredictorConfig
    conv: ConvConfig | None = None
    vit: ViTConfig | None = None

    def __post_init__(self) -> None:
        """Refuse none or two encoders, and windows that cannot be rolled out."""
        if (self.conv is None) == (self.vit is None):
            raise ValueError("a model needs exactly one encoder: give either conv or vit")
        if self.history < 1 or self.horizon < 1 or self.latent_size < 1:
            raise ValueError("history, horizon and latent_size must be at least 1")

    @property
    def architecture(self) -> str:
        """Name of the encoder and predictor family."""
        return f"{'conv' if self.conv else 'vit'}-windowed-ar"
