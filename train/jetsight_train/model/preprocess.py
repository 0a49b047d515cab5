"""Preprocessing of frames and states, shared by training, every graph and every backend.

Camera pixels are cast first, then cropped, resized, and normalised. The resize is antialiased
bilinear interpolation written as two products with constant matrices, `R_h @ x @ R_w^T`: any
compiler runs these as GEMMs, and the result equals `F.interpolate(..., antialias=True)`. Frames of
a larger camera than that of training take two resizes, which are one product all the same.

Shapes: N frames, h w camera pixels, H W model pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from jetsight.bundle.model_spec import FrameSpec, StateSpec
from jetsight.datasets.resample import centred_crop, resize_through
from jetsight.errors import UsageError

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


def of_camera(
    trained: FrameSpec, camera_hw: Sequence[int], crop: Sequence[int] | None = None
) -> FrameSpec:
    """Describe frames of a larger camera, brought to those that a model was trained on.

    Args:
        trained: frames in training.
        camera_hw: height and width of the camera's frames, px.
        crop: `(top, left, height, width)` of the region in use; None for the largest centred one
            with the aspect ratio of training.

    Raises:
        UsageError: the region is smaller than the frames in training, or those are cropped.
        ArtefactError: a size is out of range, or the region leaves the camera's frame.
    """
    size = (trained.height_px, trained.width_px)
    height, width = camera_hw
    region = tuple(centred_crop(camera_hw, size) if crop is None else crop)
    if trained.crop != (0, 0, *size) or trained.via is not None:
        raise UsageError(
            f"the model crops its {size[1]}x{size[0]} frames itself, so no other camera can take "
            "their place; train for this camera"
        )
    adapted = replace(trained, height_px=height, width_px=width, crop=region, via=size)
    if region[2] < size[0] or region[3] < size[1]:
        raise UsageError(
            f"the region {region[3]}x{region[2]} of the camera is smaller than the {size[1]}x"
            f"{size[0]} frames of training (width x height); use a larger camera or crop, or train "
            "for this camera"
        )
    return trained if (height, width) == size else adapted


class Preprocess(nn.Module):
    """Camera frames `uint8 [..., h, w, 3]` to model input `float32 [..., 3, H, W]`."""

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
        std = torch.tensor(spec.std)
        steps = [(height, width), *([spec.via] if spec.via else []), spec.resize]
        heights, widths = zip(*steps, strict=True)
        # Derived from the recipe, so they are rebuilt rather than stored with the weights.
        for name, value in (
            ("rows", torch.from_numpy(resize_through(heights))),
            ("columns", torch.from_numpy(resize_through(widths))),
            # Division by 255 and normalisation are one product and one sum in the graph.
            ("gain", (1.0 / (255.0 * std)).view(1, 3, 1, 1)),
            ("offset", (-torch.tensor(spec.mean) / std).view(1, 3, 1, 1)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, frames_u8: Tensor) -> Tensor:
        """Cast, crop, resize, normalise."""
        # TensorRT lets nothing but a Cast touch a uint8 input.
        x = frames_u8.to(self.gain.dtype)
        x = x[..., self._rows_used, self._columns_used, :].movedim(-1, -3)
        if self.spec.resizes:
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
