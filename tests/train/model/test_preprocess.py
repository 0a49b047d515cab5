from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from jetsight.bundle.model_spec import FrameSpec
from jetsight.errors import ArtefactError
from jetsight_train.model.preprocess import Preprocess, resize_matrix, whole_frame


@pytest.mark.parametrize(
    ("camera", "model"),
    [((120, 160), (56, 70)), ((96, 96), (224, 224)), ((480, 640), (96, 96)), ((97, 33), (31, 50))],
)
def test_equals_pytorch_antialias(camera: tuple[int, int], model: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (2, *camera, 3), dtype=torch.uint8)
    spec = whole_frame(camera, model)
    pixels = frames.permute(0, 3, 1, 2).float()
    resized = functional.interpolate(pixels, model, mode="bilinear", antialias=True)
    expected = (resized / 255 - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(
        spec.std
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(Preprocess(spec)(frames), expected, atol=5e-5, rtol=0)


def test_aliased_resize_would_be_noticed() -> None:
    frames = torch.randint(0, 256, (1, 120, 160, 3), dtype=torch.uint8)
    pixels = frames.permute(0, 3, 1, 2).float()
    aliased = functional.interpolate(pixels, (40, 40), mode="bilinear", antialias=False)
    ours = Preprocess(
        FrameSpec(120, 160, "rgb", (0, 0, 120, 160), (40, 40), (0.0,) * 3, (1 / 255,) * 3)
    )(frames)
    assert (ours - aliased).abs().max() > 10


def test_crop_is_taken_before_resize() -> None:
    frames = torch.randint(0, 256, (1, 50, 60, 3), dtype=torch.uint8)
    cropped = FrameSpec(50, 60, "rgb", (5, 7, 40, 44), (20, 22), (0.5,) * 3, (0.25,) * 3)
    alone = FrameSpec(40, 44, "rgb", (0, 0, 40, 44), (20, 22), (0.5,) * 3, (0.25,) * 3)
    torch.testing.assert_close(
        Preprocess(cropped)(frames), Preprocess(alone)(frames[:, 5:45, 7:51])
    )


def test_resize_weights_sum_to_one() -> None:
    np.testing.assert_allclose(resize_matrix(480, 96).sum(1), 1.0, atol=1e-6)


def test_crop_outside_the_frame_is_refused() -> None:
    with pytest.raises(ArtefactError, match="outside the 50x60 frame"):
        FrameSpec(50, 60, "rgb", (20, 0, 40, 60), (20, 20), (0.5,) * 3, (0.5,) * 3)
