"""The adapter to Gymnasium: actions, names, rates, states, info; what is refused, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.simulators.adapter import drive, opened, refused
from helpers.simulators.base import HZ, H, W
from helpers.simulators.environments import odd

from jetsight.errors import DataError, JetsightError
from jetsight.simulators.spec import EnvironmentSpec

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
