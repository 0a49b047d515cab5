from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.compile.tiny_model import (
    BLOCK,
    HISTORY,
    HORIZON,
    LATENT,
    square_episode,
    write_dataset,
)
from helpers.paths import RECORDED

from jetsight.errors import DataError
from jetsight_compile.calibration.data import CalibrationWindows, load_episodes, spread
from jetsight_train.record import video


def wide_episode(seed: int, *, frozen: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """At 30x40 px; of one picture x264 makes many slightly different frames."""
    frames, actions = square_episode(seed, side=40)
    frames = frames[:, :30]
    return (np.repeat(frames[:1], len(frames), axis=0) if frozen else frames), actions


def still_robot(seed: int) -> tuple[np.ndarray, np.ndarray]:
    frames, actions = square_episode(seed)
    return frames, np.full_like(actions, 0.5)


GOOD = [square_episode(seed) for seed in range(4)]
TALL = [square_episode(seed, side=32) for seed in range(4)]
BAD = {
    "one episode": (GOOD[:1], {}, "1 episodes; .* at least 2"),
    "too short": ([square_episode(s, length=9) for s in range(4)], {}, "18 frames and 2 windows"),
    "another camera": (TALL, {}, "frames are 32x32, but the model takes 24x24"),
    "another robot": (GOOD, {"names": ("dx", "dy")}, r"\['dx', 'dy'\].*\['dy', 'dx'\]"),
    "another rate": (GOOD, {"fps": 5}, "recorded at 5 Hz, but the model steps at 10 Hz"),
    "an episode twice": ([*GOOD, GOOD[1]], {}, "episodes 1 and 4 have the same content"),
    "still robot": ([still_robot(s) for s in range(4)], {}, "same in all 160 rows"),
}


@pytest.mark.parametrize("defect", BAD)
def test_worthless_recordings_are_refused_with_what_was_found(exports, tmp_path, defect) -> None:
    episodes, options, says = BAD[defect]
    path = write_dataset(tmp_path / "calib", episodes, **options)
    with pytest.raises(DataError, match=says) as caught:
        load_episodes(path, exports.model("conv"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_frozen_camera_is_refused(exports, tmp_path) -> None:
    model, alive = exports.model("conv-resize"), [wide_episode(seed) for seed in range(4)]
    load_episodes(write_dataset(tmp_path / "alive", alive), model)  # the control
    frozen = wide_episode(9, frozen=True)
    with av.open(io.BytesIO(video.encode(frozen[0], 10))) as file:
        shown = {f.to_ndarray(format="rgb24").tobytes() for f in file.decode(video=0)}
    assert len(shown) > 2, "counting different frames would not notice it"
    path = write_dataset(tmp_path / "calib", [*alive, frozen])
    with pytest.raises(DataError, match="stays the same in all 40 frames of episode 4") as caught:
        load_episodes(path, model)
    assert str(path) in str(caught.value)


def test_a_folder_without_a_dataset_is_refused(exports, tmp_path) -> None:
    with pytest.raises(DataError, match=r"calib.*info\.json"):
        load_episodes(tmp_path / "calib", exports.model("conv"))


def test_not_a_number_in_the_actions_is_refused(exports, tmp_path) -> None:
    path = write_dataset(tmp_path / "calib", [GOOD[0], square_episode(1)])
    # Another program's file: our own writer refuses to write it.
    (file,) = path.glob("data/**/*.parquet")
    table = pq.read_table(file)
    rows = table["action"].to_pylist()
    rows[len(GOOD[0][1]) + 7] = [np.nan, np.nan]
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, "action", pa.array(rows, table["action"].type)), file)
    with pytest.raises(DataError, match=r"column 'action' has NaN .* tick 7"):
        load_episodes(path, exports.model("conv"))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "calib", GOOD)


def test_split_is_by_episode_and_shares_no_frame(exports, good) -> None:
    both = load_episodes(good, exports.model("conv"))
    assert both.calibration.digest.episodes == (0, 2)
    assert both.held_out.digest.episodes == (1, 3)
    one, other = (
        {frame.tobytes() for frame in side.frames_u8} for side in (both.calibration, both.held_out)
    )
    assert one
    assert not one & other
    assert both.calibration.digest.frames + both.held_out.digest.frames == 160


def test_latents_and_windows_are_the_models_own(exports, good) -> None:
    """Frames one block apart, and the actions that led from one to the next."""
    model, side = exports.model("conv"), load_episodes(good, exports.model("conv")).held_out
    with torch.inference_mode():
        z = model.encode(torch.from_numpy(side.frames_u8)).numpy()
    np.testing.assert_allclose(side.z, z, atol=1e-5)
    windows = side.windows
    assert windows.z.shape[1:] == (HISTORY + HORIZON, LATENT)
    assert (np.diff(windows.rows, axis=1) == BLOCK).all()
    assert ((windows.rows < 40).all(1) | (windows.rows >= 40).all(1)).all(), "crosses an episode"
    actions = GOOD[1][1]  # episode 1 comes first on the held-out side
    np.testing.assert_array_equal(windows.blocks[0, 0], actions[:BLOCK].reshape(-1))
    np.testing.assert_array_equal(windows.blocks[5, 2], actions[9 : 9 + BLOCK].reshape(-1))
    sample = windows.inputs(5)
    assert [len(sample[name]) for name in ("z_hist", "a_hist", "actions")] == [3, 2, 2]
    np.testing.assert_array_equal(sample["z_hist"], z[[5, 7, 9]])


def test_thinning_spreads_and_keeps_the_ends() -> None:
    assert spread(10, 3).tolist() == [0, 4, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]
    rows = np.arange(20)[:, None]
    zeros = np.zeros((20, 5, 8), np.float32)
    assert CalibrationWindows(rows, zeros, zeros, 3).thinned(2).rows.tolist() == [[0], [19]]


def test_the_shipped_recording_can_calibrate_what_was_trained_for_it() -> None:
    """`calib_data/pusht` against its recipe, without decoding a frame."""
    from jetsight.datasets.lerobot import LeRobotDataset
    from jetsight_train.recipe import load_recipe

    recipe = load_recipe("pusht-nano")
    data = LeRobotDataset.open(RECORDED)
    assert tuple(data.action_names) == recipe.action.names
    assert (data.height, data.width, data.fps) == (*recipe.frame.camera, recipe.timing.camera_hz)
    assert len(data) >= 8


def test_the_same_actions_before_another_scene_are_no_copy(exports, tmp_path) -> None:
    """A robot that repeats a script is recorded twice, not copied."""
    actions = GOOD[0][1]
    scripted = [(frames, actions) for frames, _ in GOOD]
    load_episodes(write_dataset(tmp_path / "calib", scripted), exports.model("conv"))
    # The control: the same scene too, written twice.
    path = write_dataset(tmp_path / "copied", [*scripted, scripted[2]])
    with pytest.raises(DataError, match="episodes 2 and 4 have the same content"):
        load_episodes(path, exports.model("conv"))
