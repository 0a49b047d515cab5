from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from jetsight.bundle.model_spec import FrameSpec
from jetsight.datasets.resample import FrameResize, centred_crop
from jetsight.errors import ArtefactError, UsageError
from jetsight_train.model.preprocess import Preprocess, of_camera, whole_frame

Crop = tuple[int, int, int, int]


def frame_spec(
    height: int, width: int, crop: Crop, resize: tuple[int, int], *, mean: float = 0.5, std: float
) -> FrameSpec:
    colour = {"mean": (mean,) * 3, "std": (std,) * 3}
    return FrameSpec(height, width, "rgb", crop=crop, resize=resize, **colour)


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


@pytest.mark.parametrize(
    ("camera", "size"), [((120, 160), (56, 70)), ((480, 640), (96, 96)), ((97, 33), (25, 19))]
)
def test_numpy_frames_equal_pytorch_antialias(
    camera: tuple[int, int], size: tuple[int, int]
) -> None:
    frames = torch.randint(0, 256, (2, *camera, 3), dtype=torch.uint8)
    top, left, height, width = centred_crop(camera, size)
    pixels = frames[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    ours = torch.from_numpy(FrameResize(size, (top, left, height, width))(frames.numpy())).int()

    def reference(values: torch.Tensor, *, antialias: bool) -> torch.Tensor:
        resized = functional.interpolate(values, size, mode="bilinear", antialias=antialias)
        return resized.permute(0, 2, 3, 1)

    # Half a level of rounding in float32; PyTorch's own uint8 kernel rounds its weights as well.
    assert (ours - reference(pixels.float(), antialias=True)).abs().max() <= 0.501
    assert (ours - reference(pixels, antialias=True).int()).abs().max() <= 1
    assert (ours - reference(pixels.float(), antialias=False)).abs().max() > 10


def test_aliased_resize_would_be_noticed() -> None:
    frames = torch.randint(0, 256, (1, 120, 160, 3), dtype=torch.uint8)
    pixels = frames.permute(0, 3, 1, 2).float()
    aliased = functional.interpolate(pixels, (40, 40), mode="bilinear", antialias=False)
    spec = frame_spec(120, 160, (0, 0, 120, 160), (40, 40), mean=0.0, std=1 / 255)
    ours = Preprocess(spec)(frames)
    assert (ours - aliased).abs().max() > 10


def test_crop_is_taken_before_resize() -> None:
    frames = torch.randint(0, 256, (1, 50, 60, 3), dtype=torch.uint8)
    cropped = frame_spec(50, 60, (5, 7, 40, 44), (20, 22), std=0.25)
    alone = frame_spec(40, 44, (0, 0, 40, 44), (20, 22), std=0.25)
    torch.testing.assert_close(
        Preprocess(cropped)(frames), Preprocess(alone)(frames[:, 5:45, 7:51])
    )


def test_crop_outside_the_frame_is_refused() -> None:
    with pytest.raises(ArtefactError, match="outside the 50x60 frame"):
        frame_spec(50, 60, (20, 0, 40, 60), (20, 20), std=0.5)


def test_two_resizes_of_a_larger_camera_are_one_product() -> None:
    trained = frame_spec(96, 96, (0, 0, 96, 96), (64, 56), mean=0.0, std=1 / 255)
    spec = of_camera(trained, (240, 320))
    assert (spec.crop, spec.via) == ((0, 40, 240, 240), (96, 96))
    frames = torch.randint(0, 256, (2, 3, 240, 320, 3), dtype=torch.uint8)
    pixels = frames.flatten(0, 1).permute(0, 3, 1, 2)[..., 40:280].float()

    def resized(*sizes: tuple[int, int]) -> torch.Tensor:
        x = pixels
        for size in sizes:
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        return x.unflatten(0, (2, 3))

    ours = Preprocess(spec)(frames)
    torch.testing.assert_close(ours, resized((96, 96), (64, 56)), atol=2e-2, rtol=0)
    assert (ours - resized((64, 56))).abs().max() > 5


def test_a_camera_that_only_enlarges_again_is_no_identity() -> None:
    trained = frame_spec(24, 24, (0, 0, 24, 24), (48, 48), std=1.0)
    assert trained.resizes
    spec = of_camera(trained, (48, 48))
    assert spec.crop[2:] == spec.resize
    assert spec.resizes
    assert not frame_spec(24, 24, (0, 0, 24, 24), (24, 24), std=1.0).resizes


def test_model_with_a_crop_of_its_own_takes_no_other_camera() -> None:
    with pytest.raises(UsageError, match="crops its 60x50 frames itself"):
        of_camera(frame_spec(50, 60, (5, 7, 40, 44), (20, 22), std=0.25), (480, 640))
