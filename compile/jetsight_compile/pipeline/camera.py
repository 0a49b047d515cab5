"""A camera of another size for a trained model: `jetsight compile --camera 640x480`.

The checkpoint stays as it is; `encode` gets the crop and both resizes. Its gate compares the model
behind the larger frame with the trained one behind PyTorch's own antialiased resize to 8 bits. Both
differ by the rounding alone, whose cost is measured in the same run and gives the limit. Frames
moved by one pixel of training are the control.

Shapes: N frames, C cameras, D latent size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jetsight.bundle.manifest import Gate
from jetsight.bundle.model_spec import FrameSpec
from jetsight.errors import UsageError
from jetsight_compile.calibration.data import Side, spread
from jetsight_compile.validate.metrics import F32, sqnr_db
from jetsight_train.model.preprocess import Preprocess, of_camera
from jetsight_train.model.world_model import WorldModel

GATE = "camera_path"
# Room for float32: where all resized pixels happen to be whole numbers, rounding costs nothing.
_MOST_DB, _ROOM_DB = 60.0, 1.0
_FRAMES, _BATCH = 64, 16
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True)
class CameraRequest:
    """Camera to compile for.

    Args:
        height: of its frames, px.
        width: of its frames, px.
        crop: `center` for the largest centred region with the aspect ratio of training, `full` for
            the whole frame, or `(top, left, height, width)`.
    """

    height: int
    width: int
    crop: tuple[int, ...] | str = "center"

    @classmethod
    def parse(cls, size: str, crop: str = "center") -> CameraRequest:
        """Parse `640x480` (width x height) and `center`, `full` or `TOP,LEFT,HEIGHT,WIDTH`.

        Raises:
            UsageError: another form.
        """
        match = _SIZE.fullmatch(size)
        if match is None:
            raise UsageError(f"--camera {size!r} is no size; write WIDTHxHEIGHT, like 640x480")
        width, height = int(match[1]), int(match[2])
        if crop in ("center", "full"):
            return cls(height, width, crop)
        parts = crop.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(
                f"--crop {crop!r} is not usable; write center, full or TOP,LEFT,HEIGHT,WIDTH in "
                "pixels of the camera, like 0,80,480,480"
            )
        return cls(height, width, tuple(int(part) for part in parts))

    def frame(self, trained: FrameSpec) -> FrameSpec:
        """Describe its frames for a model that was trained on others.

        Raises:
            UsageError: it is smaller than the frames of training.
            ArtefactError: the crop leaves its frame, or a size is out of range.
        """
        size = (self.height, self.width)
        if self.crop == "center":
            return of_camera(trained, size)
        crop = (0, 0, *size) if self.crop == "full" else self.crop
        return of_camera(trained, size, tuple(int(value) for value in crop))


@torch.inference_mode()
def camera_gate(model: WorldModel, trained: FrameSpec, held_out: Side) -> Gate:
    """Compare a model behind its larger camera with the trained one, on held-out frames.

    Args:
        model: with the camera's frame.
        trained: frame of training.
        held_out: frames of the camera.

    Returns:
        The gate, of no family yet.
    """
    rows = spread(len(held_out.frames_u8), _FRAMES)
    states = None if held_out.states is None else torch.from_numpy(held_out.states[rows])
    frames = torch.from_numpy(held_out.frames_u8[rows])
    levels = torch.cat([_resized(part, model.frame) for part in torch.split(frames, _BATCH)])

    def encoded(preprocess: Preprocess, pixels: Tensor) -> F32:
        return _encoded(model, preprocess, pixels, states)

    before, here = Preprocess(trained), model.preprocess
    expected = encoded(before, levels.round())
    found = encoded(here, frames)
    unrounded = encoded(before, levels)
    limit = min(sqnr_db(unrounded, expected), _MOST_DB) - _ROOM_DB
    step = max(1, round(model.frame.crop[3] / trained.width_px))
    moved = encoded(here, frames.roll(step, dims=-2))
    value, control = sqnr_db(found, expected), sqnr_db(moved, expected)
    return Gate(
        family="",
        name=GATE,
        value=value,
        limit=limit,
        direction="min",
        passed=value >= limit,
        control_value=control,
        control_failed=control < limit,
        detail=(
            f"{len(rows)} frames of {model.frame.width_px}x{model.frame.height_px}; "
            f"{sqnr_db(found, unrounded):.0f} dB without rounding to 8 bits"
        ),
    )


def _resized(frames_u8: Tensor, frame: FrameSpec) -> Tensor:
    """Crop and resize with PyTorch's own operator: float levels `[N, ..., H, W, 3]`."""
    assert frame.via is not None
    top, left, height, width = frame.crop
    cropped = frames_u8[..., top : top + height, left : left + width, :].movedim(-1, -3).float()
    flat = cropped.reshape(-1, *cropped.shape[-3:])
    small = functional.interpolate(flat, tuple(frame.via), mode="bilinear", antialias=True)
    return small.reshape(*cropped.shape[:-2], *small.shape[-2:]).movedim(-3, -1).clamp(0, 255)


def _parts(values: Tensor) -> list[Tensor]:
    return [values[i : i + _BATCH] for i in range(0, len(values), _BATCH)]


def _encoded(
    model: WorldModel, preprocess: Preprocess, pixels: Tensor, states: Tensor | None
) -> F32:
    own, model.preprocess = model.preprocess, preprocess
    try:
        parts = torch.split(pixels, _BATCH)
        beside = (
            [()] * len(parts) if states is None else [(s,) for s in torch.split(states, _BATCH)]
        )
        z = [model.encode(part, *state) for part, state in zip(parts, beside, strict=True)]
    finally:
        model.preprocess = own
    return np.asarray(torch.cat(z).numpy())
