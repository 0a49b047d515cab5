"""The one check that recorded data fits a model, and what it says to type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
from jetsight.errors import DataError

FOUND = RecordingSpec(
    96, 128, 10.0, ["x", "y"], cameras=["images.top"], state_names=["a", "b", "c"]
)
WANTED = RecordingSpec(96, 128, 10.0, ["x", "y"], state_names=["c", "a"])
TWO = {"cameras": ["images.top", "images.wrist"]}

MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "size": (
        {"height_px": 480, "width_px": 640},
        {},
        "frames are 640x480, but the model takes 128x96 .*"
        "jetsight data convert data NEW --size 128x96, .*"
        "jetsight compile CHECKPOINT --camera 640x480, or train for this one",
    ),
    "size swapped": ({"height_px": 128, "width_px": 96}, {}, "96x128, but the model takes 128x96"),
    "rate": (
        {"hz": 30.0},
        {},
        "at 30 Hz, but the model steps at 10 Hz; .*jetsight data convert data NEW --hz 10",
    ),
    "rate just outside": ({"hz": 10.06}, {}, "10.06 Hz"),
    "names": ({"action_names": ["v", "w"]}, {}, r"--map action=FEATURE"),
    "order": ({"action_names": ["y", "x"]}, {}, r"\['y', 'x'\].*\['x', 'y'\] in this order"),
    "count": ({"action_names": ["action_0", "action_1", "action_2"]}, {}, "action_2"),
    "many": (
        {"action_names": [f"j{i}" for i in range(26)]},
        {},
        r"'j7', \.\.\.\] \(26 names\)",
    ),
    "no actions": (
        {"action_names": [], "no_actions": "two could be: add --map action=cmd"},
        {},
        "no actions for the model, which takes .*: two could be: add --map action=cmd",
    ),
    "no reason": ({"action_names": []}, {}, "the recording has none"),
    "more cameras": (TWO, {}, "choose them in this order with --map camera=images.top"),
    "fewer cameras": ({}, TWO, "--map camera=images.top,images.wrist"),
    "order of cameras": ({"cameras": TWO["cameras"][::-1]}, TWO, "in this order"),
    "state": ({}, {"state_names": ["a", "grip"]}, "no state 'grip'.*--map state=FEATURE"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_misfit_is_refused_with_both_values_and_the_next_step(kind: str) -> None:
    found, wanted, words = MISFITS[kind]
    with pytest.raises(DataError, match=words) as caught:
        check_dataset_fits("data", replace(FOUND, **found), replace(WANTED, **wanted))
    assert str(caught.value).startswith("data: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({}, {}),
        ({"hz": 10.04}, {}),
        ({"action_names": ["action_0", "action_1"]}, {}),
        ({}, {"action_names": ["action_0", "action_1"]}),
        ({"action_names": []}, {"action_names": []}),
        (TWO, TWO),
        (TWO, {"cameras": ["top", "wrist"]}),
        ({"cameras": ["left", "right"]}, {"cameras": ["top", "wrist"]}),  # mapped by the user
        ({"state_names": []}, {"state_names": []}),
    ],
)
def test_what_fits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    check_dataset_fits("data", replace(FOUND, **found), replace(WANTED, **wanted))


@pytest.mark.parametrize(
    ("found", "key"),
    [
        ({"hz": 30.0}, r"set camera_hz = 30 in \[timing\] of recipe 'toy'"),
        ({"height_px": 480}, r"set camera = \[480, 128\] in \[frame\] of recipe 'toy'"),
        ({"action_names": ["y", "x"]}, r"set names = \['y', 'x'\] and their limits in \[action\]"),
    ],
)
def test_a_recipe_can_be_changed_where_a_model_cannot(found: dict[str, Any], key: str) -> None:
    with pytest.raises(DataError, match=key):
        check_dataset_fits("data", replace(FOUND, **found), replace(WANTED, recipe="toy"))
    with pytest.raises(DataError, match="train for this one"):
        check_dataset_fits("data", replace(FOUND, **found), WANTED)
