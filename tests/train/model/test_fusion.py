"""Encoders of several cameras and a state, and that one camera alone stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.compile.fused_model import fused_model
from helpers.compile.tiny_model import model_of
from helpers.train.two_cameras import CAMERAS, STATE, fused_episode, model_states

from jetsight.errors import UsageError
from jetsight_train.model.fusion import FusedEncoder
from jetsight_train.model.world_model import WorldModel


@pytest.fixture(scope="module")
def seen() -> tuple[torch.Tensor, torch.Tensor]:
    frames, _, states = fused_episode(3)
    return torch.from_numpy(frames[:12]), torch.from_numpy(model_states(states[:12]))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """RMS difference in units of the spread over the frames."""
    return float(((a - b) / a.std(0)).square().mean().sqrt())


@torch.no_grad()
@pytest.mark.parametrize("kind", [{}, {"shared": False}, {"vit": True}])
def test_every_camera_and_the_state_reach_the_latent(kind: dict, seen) -> None:
    frames, states = seen
    model = fused_model(**kind)
    z = model.encode(frames, states)
    assert z.shape == (12, model.config.latent_size)
    for camera in range(2):
        blind = frames.clone()
        blind[:, camera] = blind[:1, camera]
        assert distance(z, model.encode(blind, states)) > 0.1
    assert distance(z, model.encode(frames, states.roll(1, 0))) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", [{}, {"shared": False}])
def test_swapped_cameras_and_a_permuted_state_are_another_latent(kind: dict, seen) -> None:
    """Negative control: the order of cameras and state names carries meaning."""
    frames, states = seen
    model = fused_model(**kind)
    z = model.encode(frames, states)
    assert distance(z, model.encode(frames.flip(1), states)) > 0.1
    assert distance(z, model.encode(frames, states.roll(1, 1))) > 0.01
    assert distance(z, model.encode(frames, states)) == 0.0


def test_a_shared_trunk_is_stored_once() -> None:
    shared, apart = fused_model(), fused_model(shared=False)
    trunks = [each.encoder.trunks for each in (shared, apart)]  # type: ignore[union-attr]
    assert [len(each) for each in trunks] == [1, 2]
    one = sum(p.numel() for p in trunks[0].parameters())
    assert apart.spec.parameters - shared.spec.parameters == one


def test_a_shared_trunk_learns_the_mixture_it_is_used_on(seen) -> None:
    frames, states = seen
    model = fused_model()
    encoder = model.encoder
    assert isinstance(encoder, FusedEncoder)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    first = encoder.trunks[0].trunk[1]
    model.train().encode(frames, states)
    both = first.running_mean.clone()
    model.encode(frames.flip(1), states)
    torch.testing.assert_close(first.running_mean, both)


def test_the_state_is_read_in_the_units_of_the_robot() -> None:
    model = fused_model()
    encoder = model.state_encoder
    assert encoder is not None
    spec = encoder.normalise.spec
    assert model.state == spec
    assert spec.names == STATE
    mean = torch.tensor([spec.mean])
    assert encoder.normalise(mean).abs().max() == 0.0
    moved = encoder.normalise(mean + torch.tensor([spec.std]))
    torch.testing.assert_close(moved, torch.ones(1, 3))


def test_a_missing_or_superfluous_state_is_refused(seen) -> None:
    frames, states = seen
    with pytest.raises(UsageError, match="call encode\\(frames, state\\)"):
        fused_model().encode(frames)
    with pytest.raises(UsageError, match="call encode\\(frames\\)"):
        fused_model(state=False).encode(frames, states)


@torch.no_grad()
def test_a_state_beside_one_camera(seen) -> None:
    frames, states = seen
    model = fused_model(cameras=())
    z = model.encode(frames[:, 0], states)
    assert distance(z, model.encode(frames[:, 0], states.roll(1, 0))) > 0.01


def test_one_camera_without_a_state_keeps_its_modules_and_its_numbers() -> None:
    """Its checkpoints are of before: names, shapes and initial draws must not move."""
    plain, named = model_of(), fused_model(cameras=("front",), state=False)
    assert not isinstance(named.encoder, FusedEncoder)
    tensors, same = plain.state_dict(), named.state_dict()
    assert list(tensors) == list(same)
    torch.manual_seed(0)
    a = WorldModel(plain.config, plain.frame, plain.timing, plain.action)
    torch.manual_seed(0)
    b = WorldModel(plain.config, named.frame, plain.timing, plain.action)
    assert all(torch.equal(a.state_dict()[k], b.state_dict()[k]) for k in tensors)
    assert named.frame.shape == plain.frame.shape
    assert fused_model().frame.shape == (len(CAMERAS), *plain.frame.shape)


def test_frames_are_encoded_one_by_one_as_in_a_batch(seen) -> None:
    frames, states = seen
    model = fused_model()
    with torch.no_grad():
        z = model.encode(frames, states)
        each = [model.encode(frames[i : i + 1], states[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(torch.cat(each).numpy(), z[:3].numpy(), atol=1e-5)
