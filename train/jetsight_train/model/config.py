"""Configuration of a world model: frozen values, checked on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jetsight.bundle.model_spec import MOST_LATENT, MOST_STEPS, ModelSpec, within

MOST_WIDTH = 1 << 16  # of a layer; wider ones are typing errors at the sizes of this project


@dataclass(frozen=True)
class ConvConfig:
    """Strided convolutions, then one hidden layer.

    Attributes:
        widths (channels): of each convolution.
        kernels (px): size of each convolution.
        strides (px): stride of each convolution.
        hidden: width of the hidden layer; 0 for one linear layer to the latent.
        points: positions that a spatial softmax reads from the last map; 0 flattens the map.
    """

    widths: tuple[int, ...] = (32, 64, 128, 128)
    kernels: tuple[int, ...] = (8, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 1)
    hidden: int = 256
    points: int = 0

    def __post_init__(self) -> None:
        """Refuse layer lists of different lengths, and sizes out of range."""
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError(
                f"conv widths, kernels and strides have {len(self.widths)}, {len(self.kernels)} "
                f"and {len(self.strides)} entries, expected one per layer in each"
            )
        for key in ("widths", "kernels", "strides"):
            for value in getattr(self, key):
                within(key, value, 1, MOST_WIDTH)
        within("hidden", self.hidden, 0, MOST_WIDTH)
        within("points", self.points, 0, MOST_WIDTH)

    def check_input(self, size_hw: Sequence[int]) -> None:
        """Refuse an input that a layer reduces to less than one pixel."""
        for side in size_hw:
            for kernel, stride in zip(self.kernels, self.strides, strict=True):
                # The output size of torch.nn.Conv2d with the padding that ConvEncoder gives it.
                side = (side + 2 * ((kernel - 1) // 2) - kernel) // stride + 1
                if side < 1:
                    raise ValueError(
                        f"frame.resize {list(size_hw)} is too small for the model's convolutions "
                        f"of kernels {list(self.kernels)} and strides {list(self.strides)}; give a "
                        "larger input or smaller kernels"
                    )


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer; the defaults are ViT-tiny as LeWorldModel uses it.

    Attributes:
        width: numbers per token; a multiple of `heads`.
        depth: transformer blocks.
        heads: attention heads.
        mlp: hidden width of a block's MLP.
        patch (px): side of the square patch of a token.
        projector: hidden width of the MLP from class token to latent.
        norm_eps: epsilon of the layer norms.
    """

    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp: int = 768
    patch: int = 14
    projector: int = 2048
    norm_eps: float = 1e-12  # that of the ViT LeWorldModel builds on

    def __post_init__(self) -> None:
        """Refuse sizes out of range, and a width that is no multiple of `heads`."""
        for key in ("width", "depth", "heads", "mlp", "patch", "projector"):
            within(key, getattr(self, key), 1, MOST_WIDTH)
        if not 0.0 < self.norm_eps < 1.0:
            raise ValueError(f"norm_eps is {self.norm_eps}, expected between 0 and 1")
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not divisible by {self.heads} heads; change one of them"
            )

    def check_input(self, size_hw: Sequence[int]) -> None:
        """Refuse an input smaller than one patch."""
        if min(size_hw) < self.patch:
            raise ValueError(
                f"frame.resize {list(size_hw)} is smaller than the model's patch of {self.patch} "
                "px; give a larger input or a smaller patch"
            )


@dataclass(frozen=True)
class PredictorConfig:
    """Windowed autoregressive transformer; the defaults are LeWorldModel's predictor.

    Attributes:
        depth: transformer blocks.
        heads: attention heads.
        head_size: numbers per head.
        mlp: hidden width of a block's MLP.
        action_hidden: hidden width of the MLP that embeds an action block.
        projector: hidden width of the output MLP; 0 makes the output one linear layer.
        dropout: share of activations dropped in training.
    """

    depth: int = 6
    heads: int = 16
    head_size: int = 64
    mlp: int = 2048
    action_hidden: int = 768
    projector: int = 2048
    dropout: float = 0.1  # success on PushT 96 %, without dropout 78 % (arXiv 2603.19312)

    def __post_init__(self) -> None:
        """Refuse sizes and a dropout out of range."""
        for key in ("depth", "heads", "head_size", "mlp", "action_hidden"):
            within(key, getattr(self, key), 1, MOST_WIDTH)
        within("projector", self.projector, 0, MOST_WIDTH)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, expected 0 to below 1")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a world model; exactly one of `conv` and `vit` is given.

    Attributes:
        latent_size: numbers in a latent, D; effective rank near D means that more would help.
        history (steps): latents that the predictor sees, K.
        horizon (steps): model steps that a forecast and a plan reach, H.
        predictor: transformer that predicts the next latent.
        conv: convolutional encoder, fast on CPUs and Jetsons.
        vit: vision transformer as encoder.
        shared_trunk: encode all cameras with the same weights; else each camera has its own.
    """

    latent_size: int
    history: int
    horizon: int
    predictor: PredictorConfig
    conv: ConvConfig | None = None
    vit: ViTConfig | None = None
    shared_trunk: bool = True

    def __post_init__(self) -> None:
        """Refuse no or two encoders, and windows that cannot be rolled out."""
        if (self.conv is None) == (self.vit is None):
            raise ValueError("a model needs exactly one encoder: give either conv or vit")
        within("latent_size", self.latent_size, 1, MOST_LATENT)
        within("history", self.history, 1, MOST_STEPS)
        within("horizon", self.horizon, 1, MOST_STEPS)

    def check_input(self, size_hw: Sequence[int]) -> None:
        """Raise ValueError for an input `(height, width)` that is too small for the encoder."""
        for encoder in (self.conv, self.vit):
            if encoder is not None:
                encoder.check_input(size_hw)

    def spec(self, action_size: int, parameters: int) -> ModelSpec:
        """Make the model section of a bundle's manifest."""
        return ModelSpec(
            architecture=self.architecture,
            parameters=parameters,
            latent_size=self.latent_size,
            history=self.history,
            horizon=self.horizon,
            action_size=action_size,
        )

    @property
    def architecture(self) -> str:
        """Name of the encoder and predictor family."""
        return f"{'conv' if self.conv else 'vit'}-windowed-ar"
