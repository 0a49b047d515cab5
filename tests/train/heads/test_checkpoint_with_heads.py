from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.train.toy_heads import A, D, heads_recipe, saved, tracks
from safetensors.torch import load_file, save_file

from jetsight.errors import CheckpointError
from jetsight_train import checkpoint
from jetsight_train.training.train_heads import train_heads

SHIPPED = Path(checkpoint.__file__).parent / "zoo" / "pusht-nano"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    model, about, _ = saved(folder / "bare")
    heads = train_heads(model, about, tracks(), heads_recipe(5))
    target = folder / "with-heads"
    checkpoint.save(target, model, about.recipe, about.latent, about.trained, heads)
    return target


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_heads_come_back_as_they_were(written: Path) -> None:
    (first, about), (second, _) = checkpoint.load(written), checkpoint.load(written)
    assert about.heads is not None
    z, a = torch.randn(4, D), torch.randn(4, A)
    for model in (first, second):
        assert model.heads.probe_spec == about.heads.probe
        assert model.heads.hazards == about.heads.hazards
    heads = [model.heads for model in (first, second)]
    assert torch.equal(*(each.probe(z) for each in heads))
    assert torch.equal(*(each.hazard(z, a, z) for each in heads))
    assert torch.equal(*(each.support(z) for each in heads))
    assert about.heads.probe.quantities == ("x", "cos heading", "sin heading")
    assert about.heads.trained.data_sha256 == tracks().recording.digest


def test_the_frozen_model_is_stored_bit_for_bit(written: Path) -> None:
    bare = load_file(written.parent / "bare" / checkpoint.WEIGHTS)
    both = load_file(written / checkpoint.WEIGHTS)
    assert all(torch.equal(both[name], value) for name, value in bare.items())
    assert all(name.startswith("heads.") for name in both.keys() - bare.keys())
    frozen = hashlib.sha256((written.parent / "bare" / checkpoint.WEIGHTS).read_bytes())
    _, about = checkpoint.load(written)
    assert about.heads is not None
    assert about.heads.trained.frozen_sha256 == frozen.hexdigest()


def test_a_checkpoint_from_before_heads_still_loads() -> None:
    plain = json.loads((SHIPPED / checkpoint.DESCRIPTION).read_text())
    model, about = checkpoint.load(SHIPPED)
    if "heads" not in plain:
        assert plain["version"] == "1.0"
        assert about.heads is None
    assert model.heads.is_empty == (about.heads is None)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / checkpoint.DESCRIPTION
    plain = json.loads(file.read_text())
    change(plain)
    file.write_text(json.dumps(plain))


def test_an_unknown_key_of_the_heads_names_the_nearest(copy: Path) -> None:
    edit(copy, lambda plain: plain["heads"].update(suport=True))
    with pytest.raises(CheckpointError, match=r"heads: unknown key 'suport'; did you mean 'supp"):
        checkpoint.load(copy)


def test_a_rule_that_cannot_hold_is_refused(copy: Path) -> None:
    edit(copy, lambda plain: plain["heads"]["hazards"][0]["rule"]["disc"].update(radius=-60.0))
    with pytest.raises(CheckpointError, match="radius is -60; expected a positive number"):
        checkpoint.load(copy)


def test_head_tensors_without_their_description_are_refused(copy: Path) -> None:
    edit(copy, lambda plain: plain.pop("heads"))
    with pytest.raises(CheckpointError, match=r"do not fit the model .*heads\.probe"):
        checkpoint.load(copy)


def test_a_description_without_its_tensors_is_refused(copy: Path) -> None:
    weights = copy / checkpoint.WEIGHTS
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "support" not in k}, weights)
    data = weights.read_bytes()
    promise = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(copy, lambda plain: plain.update(weights=promise))
    with pytest.raises(CheckpointError, match=r"heads\.support\.whiten"):
        checkpoint.load(copy)


def test_a_flipped_bit_in_a_head_is_refused(copy: Path) -> None:
    data = bytearray((copy / checkpoint.WEIGHTS).read_bytes())
    data[-5] ^= 1
    (copy / checkpoint.WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(copy)


def test_heads_are_not_saved_without_their_description(written: Path, tmp_path: Path) -> None:
    model, about = checkpoint.load(written)
    with pytest.raises(ValueError, match="saved with their description"):
        checkpoint.save(tmp_path / "x", model, about.recipe, about.latent, about.trained)
    assert not (tmp_path / "x").exists()
