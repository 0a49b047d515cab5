"""The adapter to Gymnasium: what each kind of environment gives, and what is refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers.simulators.base import HZ, H, W, scene
from helpers.simulators.environments import odd

from jetsight.datasets.pyav import resize
from jetsight.errors import DataError, JetsightError, UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import EnvironmentSpec, Observation

GREY = np.repeat(scene(0)[..., :1], 3, axis=2)


@contextmanager
def opened(name: str, **options: Any) -> Iterator[Environment]:
    options.setdefault("size_hw", (H, W))
    environment = Environment.open(EnvironmentSpec(odd(name), **options))
    try:
        yield environment
    finally:
        environment.close()


def refused(name: str, **options: Any) -> str:
    """Return the one line with which an environment is refused at the start."""
    with pytest.raises(UsageError) as caught, opened(name, **options) as environment:
        environment.probe()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def drive(environment: Environment, ticks: int) -> None:
    environment.reset(0)
    for _ in range(ticks):
        environment.step(np.zeros(2, np.float32))


def first(name: str, **options: Any) -> Observation:
    with opened(name, **options) as environment:
        environment.probe()
        return environment.reset(0)


# Pictures


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


# Actions


@pytest.mark.parametrize(
    ("name", "names", "action", "taken"),
    [
        ("Odd", ["action_0", "action_1"], [0.5, -0.5], [0.5, -0.5]),
        (
            "Arm",
            ["arm_0", "arm_1", "gripper"],
            [0.1, 0.2, 0.3],
            {"arm": [0.1, 0.2], "gripper": 0.3},
        ),
        ("Both", ["action.0_0", "action.1_0", "action.1_1"], [0.1, 1.5, -2], ([0.1], [1.5, -2])),
        (
            "Matrix",
            [f"action_{i}_{j}" for i in range(2) for j in range(3)],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
        ),
    ],
)
def test_an_action_is_one_vector_with_a_way_back(
    name: str, names: list[str], action: list[float], taken: Any
) -> None:
    with opened(name) as environment:
        environment.probe()
        environment.reset(0)
        environment.step(np.array(action, np.float32))
        (_, found) = environment.unwrapped.taken
        assert environment.action_names == names
        assert environment.unwrapped.action_space.contains(found)
    pairs = [(found[key], taken[key]) for key in taken] if isinstance(taken, dict) else None
    pairs = pairs or list(zip(found, taken, strict=True))
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Choices", "it takes actions Discrete(4)"),
        ("ManyChoices", "MultiDiscrete([3 3])"),
        ("WholeNumbers", "int64"),
        ("ArmAndMode", "its part 'mode' is Discrete(3)"),
    ],
)
def test_choices_are_refused_at_once(name: str, words: str) -> None:
    line = refused(name)
    assert words in line
    assert "only continuous numbers can be planned" in line


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([0.0], "expected 2 numbers: action_0, action_1"),
        ([[0.0, 0.0]], "expected 2 numbers"),
        ([0.0, np.nan], "action 'action_1' is nan, expected -1 to 1"),
        ([0.0, np.inf], "'action_1' is inf"),
        ([-1.01, 0.0], "'action_0' is -1.01, expected -1 to 1"),
        ("left", "action is left"),
    ],
)
def test_an_unusable_action_never_reaches_the_simulator(action: Any, words: str) -> None:
    with opened("Odd") as environment:
        environment.reset(0)
        with pytest.raises(DataError, match=r"step 1: ") as caught:
            environment.step(action)
        assert words in str(caught.value)
        assert environment.unwrapped.taken == []
        environment.step(np.array([-1.000001, 1.0]))  # rounding is no fault, and is cut off
        assert environment.unwrapped.taken[0].min() == -1.0


# Names, units, rates, info


def test_names_units_and_kept_info_come_from_the_metadata() -> None:
    with opened("Rover") as environment:
        environment.probe()
        assert environment.action_names == ["v", "w"]
        assert environment.action_units == ["m/s", "rad/s"]
        assert (environment.state_names, environment.state_units) == (["x", "y"], ["m", "m"])
        assert environment.reset(0).kept == {"info.hit": None}
        assert environment.step(np.zeros(2))[0].kept == {"info.hit": False}


def test_options_win_over_the_metadata() -> None:
    options: dict[str, Any] = {
        "action_names": ("left", "right"),
        "action_units": ("V", "V"),
        "keep": ("info.wheels.left",),
    }
    with opened("Rover", **options) as environment:
        environment.probe()
        assert environment.action_names == ["left", "right"]
        assert environment.action_units == ["V", "V"]
        assert environment.reset(0).kept == {"info.wheels.left": 0.0}
    with opened("Rover", action_names=("a", "b")) as environment:
        assert environment.action_units == []  # those of the metadata belong to other names


def test_numbers_of_any_depth_are_the_state() -> None:
    with opened("Nested") as environment:
        assert environment.state_names == ["clock", "obj.held", "obj.pos_0", "obj.pos_1"]
        assert environment.reset(0).state.tolist() == [0.0, 1.0, 1.0, 2.0]
        assert environment.step(np.zeros(2))[0].state.tolist() == [1.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Odd", {"action_names": ("v",)}, ["2 action dimensions", "1 names", "--action-names"]),
        ("Odd", {"action_names": ("v", "v")}, ["repeat themselves", "--action-names"]),
        ("Odd", {"action_names": ("v", "a=b")}, ["'a=b'", "--action-names"]),
        ("Odd", {"action_units": ("m",)}, ["1 units", "--units"]),
        (
            "SameNames",
            {},
            ["state names ['a_0', 'a_1', 'a_0'] repeat", "state_names of its metadata"],
        ),
        ("BadNames", {}, ["action_names 2, expected a list of texts"]),
        ("Misnamed", {}, ["2 state_names (x, y), expected 0"]),
        ("Rover", {"keep": ("info.hits",)}, ["no 'hits'", "did you mean 'info.hit'?"]),
        ("Rover", {"keep": ("hit",)}, ["cannot keep 'hit'", "--keep info.hit"]),
        ("Rover", {"keep": ("info.gap",)}, ["info of reset has no 'gap'", "return it from reset"]),
        ("NanInfo", {"keep": ("info.note",)}, ["info.note is text, expected a truth value"]),
        ("NoRate", {}, ["no known frame rate", "--fps"]),
        ("BadRate", {}, ["render_fps 'fast'", "expected 0.01 to 1000"]),
        ("Odd", {"hz": 20.0}, ["runs at 10 steps per second", "20 are wanted"]),
        ("HalfRate", {"hz": 12.0}, ["runs at 12.5 steps per second"]),
        ("OneStep", {}, ["ended 3 episodes of 3 after one step"]),
        ("FailsInInit", {}, ["cannot make environment", "OSError: no licence for this robot"]),
        ("FailsInReset", {}, ["failed in reset (KeyError: 'seed')"]),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(
    name: str, options: dict[str, Any], words: list[str]
) -> None:
    line = refused(name, **options)
    assert all(word in line for word in words), line
    assert odd(name) in line


def test_a_rate_agrees_within_its_rounding(caplog: pytest.LogCaptureFixture) -> None:
    with opened("Odd", hz=10.02) as environment:
        assert environment.hz == HZ
    with opened("HalfRate") as environment:
        assert environment.hz == 12.5
    with opened("NoRate", hz=7.5) as environment:
        environment.probe()
        assert environment.hz == 7.5
    assert "declares no rate" in caplog.text


def test_nan_of_kept_info_is_refused() -> None:
    late = pytest.raises(DataError, match=r"step 3: info.gap is nan")
    with opened("NanInfo", keep=("info.gap",)) as environment, late:
        drive(environment, 5)


def test_a_time_limit_ends_no_episode_before_its_time() -> None:
    for steps, ends in ((None, False), (30, False), (20, True)):
        with opened("Odd", steps=steps) as environment:  # registered with a limit of 9
            environment.reset(0)
            over = [environment.step(np.zeros(2))[2] for _ in range(25)]
        assert any(over) == ends


@pytest.mark.parametrize(
    "changes",
    [{"size_hw": (0, 9)}, {"hz": 0.0}, {"cameras": ("a", "a")}, {"keep": ("info.a", "info.a")}],
)
def test_a_spec_that_no_environment_fits_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(JetsightError, match=r"expected|once"):
        EnvironmentSpec("X-v0", **{"size_hw": (H, W), **changes})
