from __future__ import annotations

import json
import pickle  # noqa: TID251 - to make the file that must be refused
from pathlib import Path

import pytest
import torch
from helpers.train.toy_world import toy_recipe, toy_recording
from safetensors.torch import load_file, save_file

from jetsight.errors import CheckpointError, StorageError, UsageError
from jetsight_train import checkpoint
from jetsight_train.recipe import load_recipe
from jetsight_train.training.trainer import Trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Trainer(toy_recipe(steps=2), toy_recording(), tmp_path_factory.mktemp("run")).run()


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for file in trained.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_round_trip_computes_the_same(trained: Path) -> None:
    first, about = checkpoint.load(trained)
    second, _ = checkpoint.load(trained / checkpoint.WEIGHTS)
    frames = torch.randint(0, 256, (3, 24, 24, 3), dtype=torch.uint8)
    assert torch.equal(first.encode(frames), second.encode(frames))
    assert about.action.neutral == about.action.mean
    assert not first.training


class Canary:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, bytes]]:
        return Path.write_bytes, (self.file, b"executed")


@pytest.mark.parametrize("container", ["plain", "torch"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, container: str) -> None:
    canary, file = tmp_path / "canary", tmp_path / "model.pt"
    if container == "plain":
        file.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save({"weights": Canary(canary)}, file)
    with pytest.raises(CheckpointError, match=r"model\.pt: this is a pickle"):
        checkpoint.load(file)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary itself must work, or this test proves nothing"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_weights_are_refused(copy: Path, share: float) -> None:
    weights = copy / checkpoint.WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        checkpoint.load(copy)


def test_a_flipped_bit_is_refused(copy: Path) -> None:
    weights = copy / checkpoint.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(copy)


def test_unknown_key_names_the_nearest(copy: Path) -> None:
    file = copy / checkpoint.DESCRIPTION
    plain = json.loads(file.read_text())
    plain["trainde"] = plain.pop("trained")
    file.write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="did you mean 'trained'"):
        checkpoint.load(copy)


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    tensors = load_file(copy / checkpoint.WEIGHTS)
    tensors["stranger"] = torch.zeros(2)
    rewrite(copy, tensors)
    with pytest.raises(CheckpointError, match="stranger"):
        checkpoint.load(copy)


def test_nan_weights_are_refused(copy: Path) -> None:
    tensors = load_file(copy / checkpoint.WEIGHTS)
    tensors["encoder.head.3.bias"][0] = float("nan")
    rewrite(copy, tensors)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        checkpoint.load(copy)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the weights, and their digest in the description."""
    import hashlib

    save_file(tensors, folder / checkpoint.WEIGHTS)
    data = (folder / checkpoint.WEIGHTS).read_bytes()
    plain = json.loads((folder / checkpoint.DESCRIPTION).read_text())
    plain["weights"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / checkpoint.DESCRIPTION).write_text(json.dumps(plain))


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.json found"):
        checkpoint.load(tmp_path)


def test_a_finished_checkpoint_is_never_overwritten(trained: Path) -> None:
    model, about = checkpoint.load(trained)
    with pytest.raises(StorageError):
        checkpoint.save(trained, model, about.recipe, about.latent, about.trained)


def test_recipe_with_a_typo_is_refused(tmp_path: Path) -> None:
    text = Path(checkpoint.__file__).with_name("recipes").joinpath("pusht-nano.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("latent_size", "latent_sise"))
    with pytest.raises(UsageError, match="did you mean 'latent_size'"):
        load_recipe(str(file))


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"lewm, pusht-nano, pusht-nano-encoder, pusht-nano-vit"):
        load_recipe("pusht-nanno")
