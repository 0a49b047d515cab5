"""Preprocessing of frames and states, shared by training, every graph and every backend.

Camera pixels are cast first, then cropped, resized, and normalised. The resize is antialiased
bilinear interpolation written as two products with constant matrices, `R_h @ x @ R_w^T`: any
compiler runs these as GEMMs, and the result equals `F.interpolate(..., antialias=True)`.

Shapes: N frames, h w camera pixels, H W model pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from jetsight.bundle.model_spec import FrameSpec, StateSpec
from jetsight.datasets.resample import resize_matrix

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def whole_frame(
    camera_hw: Sequence[int], model_hw: Sequence[int], cameras: Sequence[str] = ()
) -> FrameSpec:
    """Describe a frame that is resized as a whole, with ImageNet's normalisation.

    Args:
        camera_hw: height and width of a camera frame, px.
        model_hw: height and width of the encoder's input, px.
        cameras: names of the cameras in order; empty for one without a name.

    Raises:
        ArtefactError: a size is out of range.
    """
    height, width = camera_hw
    crop, resize = (0, 0, height, width), tuple(model_hw)
    return FrameSpec(
        height,
        width,
        "rgb",
        crop=crop,
        resize=resize,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        cameras=tuple(cameras),
    )


class Preprocess(nn.Module):
    """Camera frames `uint8 [N, h, w, 3]` to model input `float32 [N, 3, H, W]`."""

    rows: Tensor
    columns: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(self, spec: FrameSpec) -> None:
        super().__init__()
        self.spec = spec
        top, left, height, width = spec.crop
        self._rows_used = slice(top, top + height)
        self._columns_used = slice(left, left + width)
        self._resizes = spec.resize != (height, width)
        std = torch.tensor(spec.std)
        # Derived from the recipe, so they are rebuilt rather than stored with the weights.
        for name, value in (
            ("rows", torch.from_numpy(resize_matrix(height, spec.resize[0]))),
            ("columns", torch.from_numpy(resize_matrix(width, spec.resize[1]))),
            # Division by 255 and normalisation are one product and one sum in the graph.
            ("gain", (1.0 / (255.0 * std)).view(1, 3, 1, 1)),
            ("offset", (-torch.tensor(spec.mean) / std).view(1, 3, 1, 1)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, frames_u8: Tensor) -> Tensor:
        """Cast, crop, resize, normalise."""
        # TensorRT lets nothing but a Cast touch a uint8 input.
        x = frames_u8.to(self.gain.dtype)
        x = x[:, self._rows_used, self._columns_used].permute(0, 3, 1, 2)
        if self._resizes:
            x = self.rows @ x @ self.columns.T
        return x * self.gain + self.offset


class NormaliseState(nn.Module):
    """States in the robot's units `[N, s]` to zero mean and unit spread.

    Unlike the other normalisers it is stored with the weights, so that an encoder which trains on,
    or stays frozen, on other data keeps the one it was trained behind.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: StateSpec) -> None:
        super().__init__()
        self._spec = spec
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    @property
    def spec(self) -> StateSpec:
        """The state spec, with the normaliser in use."""
        mean, std = tuple(self.mean.tolist()), tuple(self.std.tolist())
        return replace(self._spec, mean=mean, std=std)

    def forward(self, state: Tensor) -> Tensor:
        """Subtract the mean, divide by the spread."""
        return (state - self.mean) / self.std
