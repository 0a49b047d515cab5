"""Pictures of every kind of environment: the scene to the last bit, or the reason why not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.simulators.adapter import drive, first, opened, refused
from helpers.simulators.base import H, W, scene
from helpers.simulators.environments import odd

from jetsight.datasets.pyav import resize
from jetsight.errors import DataError

GREY = np.repeat(scene(0)[..., :1], 3, axis=2)


@pytest.mark.parametrize(
    "name",
    [
        *("Odd", "Chw", "Padded", "Unit", "Signed", "FloatByte", "Deep", "Wider", "Pair"),
        *(
            "DepthAndPixels",
            "Nested",
            "WithoutRenderMode",
            "Vector",
            "FloatRender",
            "RgbaRender",
            "OwnSpaces",
        ),
    ],
)
def test_the_scene_arrives_to_the_last_bit(name: str) -> None:
    frame = first(name).frame_hwc_u8
    assert (frame.dtype, frame.shape) == (np.uint8, (H, W, 3))
    assert np.array_equal(frame, scene(0))
    # Control: the scene has no symmetry that would hide a flip or swapped channels.
    for other in (frame[::-1], frame[:, ::-1], frame[..., ::-1]):
        assert not np.array_equal(other, scene(0))


@pytest.mark.parametrize("name", ["Grey", "GreyFirst", "GreyRender"])
def test_one_grey_channel_becomes_three(name: str) -> None:
    assert np.array_equal(first(name).frame_hwc_u8, GREY)


@pytest.mark.parametrize(("name", "size"), [("Large", (120, 160)), ("WideRender", (240, 320))])
def test_another_size_is_resized_as_recordings_are(name: str, size: tuple[int, int]) -> None:
    assert np.array_equal(first(name).frame_hwc_u8, resize(scene(0, *size), H, W))


def test_a_picture_of_other_proportions_is_said(caplog: pytest.LogCaptureFixture) -> None:
    first("WideRender", size_hw=(H, H))
    assert (
        "pictures of 'render' are 320x240, so a frame of 32x32 shows them squeezed" in caplog.text
    )
    caplog.clear()
    first("WideRender", size_hw=(24, 32))
    assert not caplog.records


def test_an_observation_stays_what_it_was() -> None:
    with opened("SharedMemory") as environment:
        before = environment.reset(0)
        after, _, _ = environment.step(np.zeros(2, np.float32))
    assert np.array_equal(before.frame_hwc_u8, scene(0))
    assert np.array_equal(after.frame_hwc_u8, scene(1))
    assert (before.state[0], after.state[0]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Codes", "'image' is 7x7x3, too small for a picture"),
        ("LowCodes", "holds uint8 from 0 to 10, codes and not brightness"),
        ("MaskOnly", "'mask' is a segmentation by its name"),
        ("Stack", "is a stack of 4 frames [4, 32, 48, 3]; name one of them with [-1]"),
        ("GreyStack", "has 4 channels [4, 32, 48]"),
    ],
)
def test_what_is_no_picture_gives_way_to_the_render_and_it_is_said(
    name: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(name) as environment:
        environment.probe()
        assert environment.cameras == ("render",)
        assert np.array_equal(environment.reset(0).frame_hwc_u8, scene(0))
    (record,) = caplog.records
    assert why in record.getMessage()
    assert record.getMessage().endswith("so the frame is the render")


def test_two_pictures_are_two_choices() -> None:
    line = refused("TwoViews")
    assert "several observations are pictures (pixels.top, pixels.wrist)" in line
    assert "--camera pixels.top" in line


@pytest.mark.parametrize("name", ["pixels.wrist", "wrist"])
def test_a_name_chooses_one(name: str) -> None:
    assert np.array_equal(first("TwoViews", cameras=(name,)).frame_hwc_u8, scene(0)[::-1])


def test_several_names_give_one_frame_of_all_in_order() -> None:
    names = ("wrist", "top", "render")
    frame = first("TwoViews", cameras=names).frame_hwc_u8
    assert frame.shape == (3, H, W, 3)
    for found, wanted in zip(frame, (scene(0)[::-1], scene(0), scene(0)), strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("name", "camera", "tick"),
    [("Stack", "observation[-1]", 3), ("Stack", "observation[0]", 0)],
)
def test_one_frame_of_a_stack_is_named_by_its_place(name: str, camera: str, tick: int) -> None:
    with opened(name, cameras=(camera,)) as environment:
        environment.reset(0)
        frames = [environment.step(np.zeros(2, np.float32))[0].frame_hwc_u8 for _ in range(3)]
    assert np.array_equal(frames[-1], scene(tick))


@pytest.mark.parametrize(
    ("name", "camera", "words"),
    [
        ("TwoViews", "front", ["no one observation 'front'", "--camera pixels.top"]),
        ("TwoViews", "agent_pos", ["has shape [2]", "--camera pixels.wrist"]),
        ("Codes", "image", ["'image' is 7x7x3", "choose --camera render"]),
        ("Codes", "mission", ["Text", "choose --camera render"]),
        ("MaskOnly", "mask", ["is a segmentation by its name"]),
        ("Stack", "observation[7]", ["no one observation 'observation[7]'"]),
        ("Stack", "observation", ["is a stack of 4 frames"]),
        (
            "NoRender",
            "render",
            ["its render is None", "render_mode 'rgb_array'"],
        ),
        ("ListRender", "render", ["its render is a list of pictures"]),
        ("TinyRender", "render", ["its render is 9x9x3, too small"]),
    ],
)
def test_a_name_that_is_no_camera_is_refused_with_the_choices(
    name: str, camera: str, words: list[str]
) -> None:
    line = refused(name, cameras=(camera,))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("WrongScale", "holds 20 to 230, but its scale is 0 to 1"),
        ("WrongType", "is float32, expected integers"),
        ("BlackRender", "black or codes (largest value 0 of 255)"),
    ],
)
def test_pictures_unlike_their_space_or_black_are_refused_at_the_start(
    name: str, words: str
) -> None:
    assert words in refused(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ChangingRender", "step 3: its render has shape [3, 32, 48], unlike the first one"),
        ("NanPixel", "step 4: its picture 'observation' holds NaN or infinity"),
        ("NanState", "step 3: state 'state_1' is nan"),
        ("NanReward", "step 3: reward is nan"),
        ("MissingPart", "step 2: the observation has no 'agent_pos'"),
        ("FailsLater", "failed in step 4 (RuntimeError: the wheel fell off)"),
        ("GoesBlack", "black or codes"),
    ],
)
def test_what_goes_wrong_later_ends_in_one_line(name: str, words: str) -> None:
    cameras = ("top",) if name == "MissingPart" else ()
    with opened(name, cameras=cameras) as environment, pytest.raises(DataError) as caught:
        drive(environment, 60)
    assert words in str(caught.value)
    assert odd(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_black_camera_of_several_is_found() -> None:
    assert "pictures of 'pixels.wrist' are black" in refused(
        "OneBlackView", cameras=("top", "wrist")
    )


@pytest.mark.parametrize(("name", "ticks"), [("Odd", 3), ("Vector", 3)])
def test_the_exact_state_follows_from_what_was_done(name: str, ticks: int) -> None:
    found = []
    for done in (ticks, ticks, ticks + 1):
        with opened(name) as environment:
            drive(environment, done)
            found.append(environment.exact_state())
    assert found[0] == found[1] != found[2]


def test_a_black_first_picture_is_a_picture() -> None:
    assert not first("BlackStart").frame_hwc_u8.any()
