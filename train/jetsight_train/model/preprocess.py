"""Preprocessing of camera frames, shared by training, every graph and every backend.

Camera pixels are cast first, then cropped, resized, and normalised. The resize is antialiased
bilinear interpolation written as two products with constant matrices, `R_h @ x @ R_w^T`: any
compiler runs these as GEMMs, and the result equals `F.interpolate(..., antialias=True)`.

Shapes: N frames, h w camera pixels, H W model pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jetsight.bundle.model_spec import FrameSpec
from jetsight.datasets.resample import resize_matrix

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def whole_frame(camera_hw: Sequence[int], model_hw: Sequence[int]) -> FrameSpec:
    """Describe a frame that is resized as a whole, with ImageNet's normalisation.

    Args:
        camera_hw: height and width of a camera frame, px.
        model_hw: height and width of the encoder's input, px.

    Raises:
        ArtefactError: a size is out of range.
    """
    height, width = camera_hw
    crop, resize = (0, 0, height, width), tuple(model_hw)
    return FrameSpec(
        height, width, "rgb", crop=crop, resize=resize, mean=IMAGENET_MEAN, std=IMAGENET_STD
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
