"""Training on several cameras and a state: normaliser, initial weights, resuming, checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.train.two_cameras import (
    CAMERAS,
    COLUMNS,
    KEYS,
    STATE,
    STATE_UNITS,
    fused_dataset,
    fused_recipe,
    fused_recording,
)

from jetsight.errors import CheckpointError, DataError, UsageError
from jetsight.storage.strict_json import dump
from jetsight_train import checkpoint
from jetsight_train.data.encoded import encode_recording, read_tracks
from jetsight_train.data.windows import load_recording
from jetsight_train.recipe import FrameRecipe, StateRecipe
from jetsight_train.training.measured import check_training_data, measured_state
from jetsight_train.training.trainer import Trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused")
    return Trainer(fused_recipe(), fused_recording(), folder).run()


def test_the_checkpoint_knows_cameras_and_state(trained: Path) -> None:
    model, about = checkpoint.load(trained)
    assert about.frame.cameras == CAMERAS
    assert about.state is not None
    assert about.state == model.state
    assert (about.state.names, about.state.units) == (STATE, STATE_UNITS)
    recording = fused_recording()
    states = recording.states_of(STATE)
    assert states is not None
    np.testing.assert_allclose(about.state.mean, states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(about.latent.mean, encode_recording(model, recording).mean(0))


def test_a_state_that_never_varies_keeps_its_unit(trained: Path) -> None:
    _, about = checkpoint.load(trained)
    assert about.state is not None
    still = STATE.index("mode")
    assert (about.state.mean[still], about.state.std[still]) == (2.0, 1.0)
    assert all(std > 1.0 for i, std in enumerate(about.state.std) if i != still)
    # A large offset does not hide motion, and rounding of float32 is none.
    recording = fused_recording()
    far = recording.states.copy()
    far[:, 1] += 1000.0
    far[:, 2] = np.float32(1e6) + np.arange(len(far), dtype=np.float32) % 2 * np.float32(0.0625)
    spec = measured_state(fused_recipe().state, replace(recording, states=far))  # type: ignore[arg-type]
    assert spec.std[0] == pytest.approx(recording.states[:, 1].std(), rel=1e-3)
    assert spec.std[still] == 1.0


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, trained: Path) -> None:
    recipe, recording = fused_recipe(), fused_recording()
    stopped = Trainer(recipe, recording, tmp_path)
    for _ in range(3):
        stopped.train_step()
    stopped.save_state()
    resumed = Trainer(recipe, recording, tmp_path)
    resumed.resume()
    again, whole = (checkpoint.load(path)[0].state_dict() for path in (resumed.run(), trained))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_frozen_encoder_keeps_the_normaliser_it_was_trained_behind(
    tmp_path: Path, trained: Path
) -> None:
    model, _ = checkpoint.load(trained)
    other = fused_recording(first=50)
    recipe = fused_recipe(optimiser=replace(fused_recipe().optimiser, frozen_encoder=True))
    trainer = Trainer(recipe, other, tmp_path)
    assert trainer.model.state != model.state  # measured on the other recording
    trainer.start_from(model)
    assert trainer.model.state == model.state
    torch.testing.assert_close(
        encode_recording(trainer.model, other), encode_recording(model, other)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": FrameRecipe((24, 24), (24, 24), CAMERAS[::-1])},
        {"state": StateRecipe(STATE[::-1], STATE_UNITS[::-1], 16)},
        {"state": StateRecipe(STATE, STATE_UNITS, 8)},
        {"state": None},
        {"model": replace(fused_recipe().model, shared_trunk=False)},
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_other_inputs_are_refused(
    tmp_path: Path, trained: Path, changes: dict, frozen: bool
) -> None:
    model, _ = checkpoint.load(trained)
    optimiser = replace(fused_recipe().optimiser, frozen_encoder=frozen)
    recording = fused_recording()
    if "frame" in changes:
        recording = replace(
            recording, cameras=KEYS[::-1], frames_u8=recording.frames_u8[:, ::-1].copy()
        )
    trainer = Trainer(fused_recipe(optimiser=optimiser, **changes), recording, tmp_path)
    with pytest.raises(UsageError, match="another"):
        trainer.start_from(model)


def test_a_recording_of_swapped_cameras_or_another_state_is_refused(tmp_path: Path) -> None:
    recording, recipe = fused_recording(), fused_recipe()
    for changes, message in (
        ({"cameras": KEYS[::-1]}, r"--map camera=front,wrist"),
        ({"cameras": KEYS[:1], "frames_u8": recording.frames_u8[:, 0]}, "front.*'wrist'"),
        ({"state_names": ("y", "X", "mode", "speed")}, "no state 'x', which the model reads"),
    ):
        with pytest.raises(DataError, match=message):
            Trainer(recipe, replace(recording, **changes), tmp_path)  # type: ignore[arg-type]


def test_a_dataset_on_disk_is_trained_on_and_encoded(tmp_path: Path, trained: Path) -> None:
    data, recipe = fused_dataset(tmp_path / "data", episodes=2, length=30), fused_recipe()
    check_training_data(recipe, data)
    recording = load_recording(data, spec=recipe.recording_spec)
    assert recording.frames_u8.shape == (60, 2, 24, 24, 3)
    assert (recording.cameras, recording.state_names) == (KEYS, COLUMNS)
    # The codec changes every pixel a little, and no camera into the other.
    exact = fused_recording(2, 30).frames_u8.astype(int)
    assert np.abs(recording.frames_u8 - exact).mean() < 8
    assert np.abs(recording.frames_u8[:, ::-1] - exact).mean() > 40
    model, _ = checkpoint.load(trained)
    tracks = read_tracks(model, data, ("speed",))
    torch.testing.assert_close(tracks.latents, encode_recording(model, recording))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": {"cameras": ["wrist", "front"]}}, "frame.cameras is .*wrist.*expected the same"),
        ({"state": {"names": ["a", "b", "c"]}}, "state.names is .*expected the same"),
    ],
)
def test_a_checkpoint_whose_inputs_contradict_its_recipe_is_refused(
    tmp_path: Path, trained: Path, changes: dict, message: str
) -> None:
    _, about = checkpoint.load(trained)
    folder = tmp_path / "copy"
    folder.mkdir()
    for section, values in changes.items():
        part = replace(getattr(about, section), **{k: tuple(v) for k, v in values.items()})
        object.__setattr__(about, section, part)
    (folder / "model.json").write_bytes(dump(about))
    (folder / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)
