"""Compiled form of `encode`: the camera's bytes in, one latent out, nothing computed twice.

The rewrites are exact (equal to `WorldModel.encode` up to float rounding; each has a test) and
leave a chain of `Gemm`s, the form all backends run and quantize best:

- pixel scaling goes into the first layer's weights and its offset into the bias, so what is
  quantized first is the camera's own `uint8`;
- BatchNorm goes into the layer before it, LayerNorm's affine part into the layer after it;
- patches are cut by one transpose and embedded by one Gemm;
- attention's scale goes into the query weights; the value bias passes through the softmax, whose
  rows sum to one, into the output bias; the key bias adds one number per query and cancels;
- of the last block only the class token is computed, beyond the keys and values it attends to.

Several cameras and a state are the same chains side by side, joined by one more: with a trunk that
all cameras share, its weights are stored once.

Shapes: h w camera, C cameras, H W model input, P tokens (patches + 1), S token size, s state size,
D latent size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jetsight.errors import UsageError
from jetsight_compile.export.layers import (
    Affine,
    Dense,
    Layer,
    Style,
    as_a,
    batch_norm_affine,
)
from jetsight_compile.export.transformer import ProjectorGraph, VisionTransformer
from jetsight_train.model.encoder import ConvEncoder, SpatialSoftmax, ViTEncoder
from jetsight_train.model.fusion import FusedEncoder, StateEncoder
from jetsight_train.model.preprocess import Preprocess
from jetsight_train.model.world_model import WorldModel

_BFLOAT16_CONVOLUTION = 22  # first ONNX opset whose Conv accepts bfloat16


def why_no_form(model: WorldModel, style: Style) -> str | None:
    """Return the reason why ONNX cannot express this encoder in that style, or None."""
    if model.config.conv is None or style.compute != "bf16":
        return None
    if style.opset >= _BFLOAT16_CONVOLUTION:
        return None
    return (
        f"ONNX has bfloat16 convolutions from opset {_BFLOAT16_CONVOLUTION}, and this family is "
        f"written in opset {style.opset}; compile the encoder in fp16: "
        "--precision encode=fp16,forecast=bf16"
    )


def float_layers(model: WorldModel) -> tuple[str, ...]:
    """Patterns of the layers that stay float because the latent depends on their precision.

    A spatial softmax turns an error of a score into an error of position, and the error of the
    first convolution passes through all of it; the few products behind it gain too little. The
    remaining layers, the other convolutions, are nearly all of the work.
    """
    fused = isinstance(model.encoder, FusedEncoder)
    # A state is a few numbers through a small MLP, where rounding costs much and saves nothing.
    state = ("trunk.state.*",) if model.state is not None else ()
    if model.config.conv is None or not model.config.conv.points:
        return state
    trunk = "trunk.cameras.*" if fused else "trunk"
    parts = [f"{trunk}.{part}[./]*" for part in ("layers.0", "points", "hidden", "out")]
    return (*parts, *(("trunk.fusion.*",) if fused else ()), *state)


class EncodeGraph(Layer):
    """`frame_hwc_u8 [h, w, 3] -> z [D]`, built from the weights of a `WorldModel`.

    With C > 1 cameras the frame is `[C, h, w, 3]`; a model with a state also takes it, `[s]`.

    Raises:
        UsageError: the encoder has no compiled form, or none in this style.
    """

    def __init__(self, model: WorldModel, style: Style) -> None:
        super().__init__()
        problem = why_no_form(model, style)
        if problem is not None:
            raise UsageError(problem)
        self.pixels = Pixels(model.preprocess)
        last = self.pixels.channels_last
        self.cameras = len(model.frame.cameras)
        self.trunk: Layer
        if isinstance(model.encoder, FusedEncoder):
            self.trunk = FusedTrunk(model.encoder, model.preprocess, last, style)
        else:
            self.trunk = _trunk(model.encoder, model.preprocess, last, style)
        self.dtype = style.dtype
        # Rounds every buffer, but not the mean colour of `Centre`, which is none on purpose.
        self.to(self.dtype)

    def forward(self, frame_hwc_u8: Tensor, state: Tensor | None = None) -> Tensor:
        """Cast, crop, resize, encode."""
        # TensorRT accepts no operator but Cast on a uint8 input.
        frame = frame_hwc_u8.to(self.dtype)
        if self.cameras > 1:
            each = [frame[i : i + 1].reshape(frame.shape[1:]) for i in range(self.cameras)]
        else:
            each = [frame]
        pixels = [self.pixels(camera) for camera in each]
        z = self.trunk(*pixels) if state is None else self.trunk(*pixels, state)
        # Float32 in every style: the signature of a bundle does not depend on its precision.
        return z.reshape(-1).float()


class Pixels(Layer):
    """Crop and antialiased resize in raw pixel units: `[h, w, 3] -> [H, W, 3]` or `[3, H, W]`.

    Attributes:
        channels_last: the output is `[H, W, 3]`; no transpose is added for the next layer alone.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.top, self.left, self.height, self.width = preprocess.spec.crop
        self.channels_last = not preprocess.spec.resizes
        self.register_buffer("rows", preprocess.rows.clone())
        self.register_buffer("columns", preprocess.columns.T.contiguous())

    def forward(self, frame_hwc: Tensor) -> Tensor:
        """Two products with constant matrices; weights of a row sum to one, so scaling commutes."""
        bottom, right = self.top + self.height, self.left + self.width
        x = frame_hwc[self.top : bottom, self.left : right]
        if self.channels_last:
            return x
        # Rows first: interleaved pixels `[h, w * 3]` are a matrix already; one transpose is enough.
        x = self.rows @ x.reshape(self.height, -1)
        x = x.view(-1, self.width, 3).permute(2, 0, 1)
        return x @ self.columns


class FusedTrunk(Layer):
    """A `FusedEncoder`: the pixels of each camera, then the state, `-> [1, D]`."""

    def __init__(
        self, encoder: FusedEncoder, preprocess: Preprocess, channels_last: bool, style: Style
    ) -> None:
        super().__init__()
        self.cameras = nn.ModuleList(
            _trunk(encoder.trunk_of(i), preprocess, channels_last, style)
            for i in range(encoder.cameras)
        )
        self.state = None if encoder.state is None else StateGraph(encoder.state, style)
        self.fusion = ProjectorGraph(encoder.fusion, None, style)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Encode each camera, then the state, then all features together."""
        features = [trunk(x) for trunk, x in zip(self.cameras, inputs, strict=False)]
        if self.state is not None:
            features.append(self.state(inputs[-1]))
        return self.fusion(torch.cat(features, dim=1))


class StateGraph(Layer):
    """A `StateEncoder`: state in the robot's units `[s] -> [1, S]`.

    The normaliser is computed in float32 in every style, as rounding a position of a thousand units
    that moves by one would leave nothing of the motion.
    """

    def __init__(self, encoder: StateEncoder, style: Style) -> None:
        super().__init__()
        # No buffers: those are rounded with the weights.
        self.mean, self.gain = encoder.normalise.mean.clone(), 1.0 / encoder.normalise.std
        self.dtype = style.dtype
        self.mlp = ProjectorGraph(encoder.mlp, None, style)

    def forward(self, state: Tensor) -> Tensor:
        """Normalise, round, embed."""
        x = (state - self.mean) * self.gain
        return self.mlp(x.to(self.dtype)[None])


class Convolutions(Layer):
    """A `ConvEncoder` with BatchNorm and pixel scaling folded: pixels `-> [1, D]`.

    Only the offset stays an operation: the first layer pads with zeros *after* normalisation, that
    is with the mean colour, which a bias cannot express at the border.
    """

    def __init__(self, encoder: ConvEncoder, preprocess: Preprocess, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.centre = Centre(preprocess)
        gain = preprocess.gain.double()
        self.layers = nn.ModuleList()
        trunk = list(encoder.trunk)
        # The trunk repeats convolution, BatchNorm, ReLU.
        for conv, norm in zip(trunk[0::3], trunk[1::3], strict=True):
            folded = _folded_convolution(as_a(nn.Conv2d, conv), as_a(nn.BatchNorm2d, norm), gain)
            self.layers.append(folded)
            # Only the first convolution reads pixels; the pixel gain must not enter twice.
            gain = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        self.points = PointsGraph(encoder.read) if encoder.config.points else None
        self.hidden: Layer | None = None
        if encoder.config.hidden:
            self.hidden = Dense(Affine.of(encoder.head[0]).before_batch_norm(encoder.head[1]))
            self.out = Dense(Affine.of(encoder.head[3]))
        else:
            self.out = Dense(Affine.of(encoder.head[1]).after_batch_norm(encoder.head[0]))

    def forward(self, pixels: Tensor) -> Tensor:
        """Convolve, flatten or find points, project."""
        x = pixels.permute(2, 0, 1) if self.channels_last else pixels
        x = self.centre(x)[None]
        for layer in self.layers:
            x = torch.relu(layer(x))
        if self.points is not None:
            x = self.points(x)
        x = x.reshape(1, -1)
        return self.out(x if self.hidden is None else torch.relu(self.hidden(x)))


class Centre(Layer):
    """Pixels minus the mean colour, `[3, H, W]`, subtracted in float32 in every style.

    Rounding the mean shifts every pixel of a plain background by the same amount, which does not
    average out: on pusht-nano a mean rounded to float16 cost 12 dB of the latent, more than
    everything else in float16 together.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        mean_px = -preprocess.offset.double() / preprocess.gain.double()
        self.mean_px = mean_px[0].float()  # [3, 1, 1]; a buffer would be rounded with the weights

    def forward(self, x: Tensor) -> Tensor:
        """Subtract, and round only the difference."""
        return (x.float() - self.mean_px).to(x.dtype)


class PointsGraph(Layer):
    """A `SpatialSoftmax` whose moments are one product: `[1, C, h, w] -> [1, 3 * points]`."""

    grid: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        spatial = as_a(SpatialSoftmax, module)
        # A copy, because `to(dtype)` would round the weights of the float model.
        self.score = copy.deepcopy(spatial.score)
        self.register_buffer("grid", spatial.grid.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Scores, softmax over positions, mean and spread."""
        moments = torch.softmax(self.score(x).flatten(2)[0], dim=-1) @ self.grid
        mean = moments[:, :2]
        spread = moments[:, 2:] - (mean * mean).sum(-1, keepdim=True)
        return torch.cat([mean, spread], dim=-1)


def _trunk(encoder: nn.Module, preprocess: Preprocess, channels_last: bool, style: Style) -> Layer:
    """Compile the encoder of one camera: pixels `-> [1, D]`."""
    if isinstance(encoder, ViTEncoder):
        return VisionTransformer(encoder, preprocess, channels_last, style)
    return Convolutions(as_a(ConvEncoder, encoder), preprocess, channels_last)


def _folded_convolution(conv: nn.Conv2d, norm: nn.BatchNorm2d, input_gain: Tensor) -> nn.Conv2d:
    """Fold `input gain -> conv -> BatchNorm` into one convolution."""
    gain, offset = batch_norm_affine(norm)
    weight = conv.weight.detach().double() * input_gain * gain[:, None, None, None]
    bias = offset if conv.bias is None else offset + conv.bias.detach().double() * gain
    # A copy keeps stride and padding, and the float model stays what the gates compare with.
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(weight.float(), requires_grad=False)
    folded.bias = nn.Parameter(bias.float(), requires_grad=False)
    return folded
