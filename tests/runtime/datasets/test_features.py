"""Which features are actions, states and frames: by name, by shape, or by the user's option."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.datasets.lerobot_writer import (
    TOP,
    WRIST,
    ToyRecording,
    camera,
    vector,
    write_v2,
    write_v3,
)

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.features import RecordedFeature, choose_vector
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError, UsageError

V = RecordedFeature
BESIDE = [V("timestamp", (1,)), V("frame_index", (1,)), V("task_index", (1,)), V("next.reward", ())]

FOUND = {
    "LeRobot": ([V("action", (2,)), V("observation.state", (7,))], "action", "observation.state"),
    "openpi": ([V("actions", (2,)), V("state", (7,))], "actions", "state"),
    "exact beside others": (
        [V("action", (2,)), V("action.delta", (2,)), V("observation.state", (7,))],
        "action",
        "observation.state",
    ),
    "words in keys": ([V("cmd_vel", (2,)), V("obs/qpos", (7,))], "cmd_vel", "obs/qpos"),
    "masks are no actions": (
        [V("control", (2,)), V("action_is_pad", (1,)), V("observation.states", (3,))],
        "control",
        "observation.states",
    ),
    "the scene is no state": (
        [V("action", (2,)), V("observation.environment_state", (9,)), V("robot_state", (7,))],
        "action",
        "robot_state",
    ),
    "numbers alone": ([V("action", ()), V("state", (1,))], "action", "state"),
    "a row of one vector": ([V("action", (1, 7)), V("state", (7, 1))], "action", "state"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_what_names_and_shapes_decide(kind: str) -> None:
    features, action, state = FOUND[kind]
    for role, expected in (("action", action), ("state", state)):
        choice = choose_vector(role, [*BESIDE, *features], None, "data")
        assert choice.keys == (expected,)
        assert not choice.missing
        assert len(choice.names) == choice.features[0].size


UNDECIDED = {
    "two": (
        [V("action.joint", (7,)), V("action.gripper", (1,))],
        "several features could be the actions: .* add --map action=action.joint, or all "
        "joined: --map action=action.joint,action.gripper",
    ),
    "chunk": ([V("action", (4, 2))], r"'action' has the shape \[4, 2\] per row, a chunk"),
    "chunk named otherwise": ([V("actions_chunk", (4, 2))], "a chunk of several steps"),
    "text": ([V("action", (1,), numeric=False)], "is no feature of numbers"),
    "another name": ([V("speed", (2,)), V("state", (3,))], "add --map action=speed if"),
    "not listed": ([V("action", (2,), listed=False)], "add --map action=action if"),
    "states alone": ([V("observation.state", (3,))], "no feature holds actions"),
    "nothing": ([], "no feature holds actions"),
}


@pytest.mark.parametrize("kind", UNDECIDED)
def test_what_they_leave_open_is_left_out_with_the_option(kind: str) -> None:
    features, words = UNDECIDED[kind]
    choice = choose_vector("action", [*BESIDE, *features], None, "data")
    assert choice.keys == choice.names == ()
    with pytest.raises(UsageError, match=words):  # matched like other messages
        raise UsageError(choice.missing)


def test_features_that_the_user_joins() -> None:
    features = [V("action.x", (1,)), V("action.y", (1,), ("side",)), V("action.arm", (2,))]
    choice = choose_vector("action", features, "action.arm,action.x,action.y", "data")
    assert choice.keys == ("action.arm", "action.x", "action.y")
    assert choice.names == ("arm_0", "arm_1", "x", "side")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("actoin", r"no feature 'actoin' for --map action=actoin; did you mean 'action'"),
        ("chunk", r"--map action=chunk has the shape \[4, 2\]"),
        ("text", "is no feature of numbers"),
        ("action,action", "repeats a feature"),
        ("", "no feature ''"),
    ],
)
def test_an_option_that_names_no_vector_is_refused(wanted: str, words: str) -> None:
    features = [V("action", (2,)), V("chunk", (4, 2)), V("text", (1,), numeric=False)]
    with pytest.raises(UsageError, match=words):
        choose_vector("action", features, wanted, "data")


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_names_of_openpi_without_observation(write, tmp_path: Path) -> None:
    recording = ToyRecording(
        lengths=(4,),
        cameras={"image": camera(), "wrist_image": camera()},
        actions={"actions": vector(2, ["x", "y"])},
        others={"state": vector(3)},
    )
    folder = write(tmp_path / "d", recording)
    data = open_dataset(folder, FeatureMap(cameras=("wrist_image",)))
    assert (data.action_names, data.state_names) == (["x", "y"], ["state_0", "state_1", "state_2"])
    assert data.camera_keys == ("wrist_image",)
    with pytest.raises(UsageError, match=r"choose one of: image, wrist_image, like --map camera="):
        open_dataset(folder)
    described = open_dataset(folder, describe=True)
    assert (described.camera_keys, described.height) == ((), 0)
    assert [each.key for each in described.cameras] == ["image", "wrist_image"]
    with pytest.raises(UsageError, match="choose one of"):
        next(described.frames(0))


def test_split_actions_are_joined_by_the_option(tmp_path: Path) -> None:
    actions = {"action.x": vector(1), "action.gripper": vector(1)}
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(4,), actions=actions))
    data = open_dataset(folder)
    assert data.action_names == []
    assert "--map action=action.x,action.gripper" in data.missing["action"]
    assert data.spec.no_actions == data.missing["action"]
    joined = open_dataset(folder, FeatureMap.parse(["action=action.gripper,action.x"]))
    assert joined.action_names == ["gripper", "x"]
    assert joined.rows(0).actions.tolist() == [[0, 0], [-1, 1], [-2, 2], [-3, 3]]


def test_a_column_that_meta_forgot_is_offered_and_can_be_chosen(tmp_path: Path) -> None:
    recording = ToyRecording(lengths=(4,), info=lambda info: info["features"].pop("action"))
    folder = write_v3(tmp_path / "d", recording)
    data = open_dataset(folder)
    assert data.rows(0).actions.shape == (4, 0)
    assert "add --map action=action" in data.missing["action"]
    chosen = open_dataset(folder, FeatureMap(action="action"))
    assert chosen.action_names == ["action_0", "action_1"]
    assert chosen.rows(0).actions[3].tolist() == [3, -3]


def test_a_dataset_without_a_camera_is_refused(tmp_path: Path) -> None:
    key = "observation.depths.top"
    cameras = {key: camera(info={"is_depth_map": True})}
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(2,), cameras=cameras))
    with pytest.raises(DataError, match=f"no colour camera .*, only depth: {key}"):
        open_dataset(folder)
    assert open_dataset(folder, describe=True).rows(0).actions.shape == (2, 2)


def test_the_end_of_a_cameras_name_will_do_where_it_is_one_cameras(tmp_path: Path) -> None:
    other = "observation.images.left.wrist"
    cameras = {TOP: camera(), WRIST: camera(), other: camera()}
    folder = write_v3(tmp_path / "d", ToyRecording(lengths=(2,), cameras=cameras))
    assert open_dataset(folder, FeatureMap(cameras=("top",))).camera_keys == (TOP,)
    with pytest.raises(UsageError, match="no camera 'wrist'"):
        open_dataset(folder, FeatureMap(cameras=("wrist",)))


@pytest.mark.parametrize(
    ("pairs", "cameras", "words"),
    [
        (["action"], (), "not usable; expected each of"),
        (["actoin=x"], (), "not usable"),
        (["action="], (), "not usable"),
        (["action=a", "action=b"], (), "not usable"),
        (["rate=fast"], (), "is no rate"),
        (["rate=0"], (), "is no rate"),
        (["rate=nan"], (), "is no rate"),
        (["camera=a"], ("b",), "exclude each other"),
    ],
)
def test_options_that_map_nothing(pairs: list[str], cameras: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FeatureMap.parse(pairs, cameras)


def test_options_that_map() -> None:
    pairs = ["action=a,b", "state=s", "camera=c,d", "rate=29.97"]
    assert FeatureMap.parse(pairs) == FeatureMap("a,b", "s", ("c", "d"), 29.97)
    assert FeatureMap.parse([], ("c", "d")) == FeatureMap(cameras=("c", "d"))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda path: None, "does not exist; expected a folder with meta/info.json"),
        (lambda path: path.mkdir(), r"is no recorded dataset \(it holds nothing\)"),
        (lambda path: path.write_text("x"), "is no recorded dataset; expected"),
        (
            lambda path: [(path / f"{i}").mkdir(parents=True) for i in range(7)],
            r"0, 1, 2, 3, 4, \.\.\.",
        ),
    ],
)
def test_what_is_no_dataset(made, words: str, tmp_path: Path) -> None:
    made(tmp_path / "d")
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path / "d")
