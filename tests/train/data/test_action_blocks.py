from __future__ import annotations

import numpy as np
import torch
from helpers.train.toy_heads import KEEP_OUT, B, D, H, K, LinearWorld, tracks, world

from jetsight_train.data.action_blocks import encoded_blocks, imagined_blocks, window_rows
from jetsight_train.data.columns import quantities
from jetsight_train.heads.labels import block_hazards
from jetsight_train.heads.recipe import ProbeColumn


def test_encoded_blocks_stay_inside_their_episode() -> None:
    data = tracks(3, 12)
    blocks = encoded_blocks(world(), data)
    assert len(blocks.rows) == 3 * (12 - B)
    assert (blocks.rows // 12 == (blocks.rows + B) // 12).all()
    rows = torch.from_numpy(blocks.rows)
    assert torch.equal(blocks.after, data.latents[rows + B])
    executed = data.recording.actions[blocks.rows[:, None] + np.arange(B)]
    assert np.array_equal(blocks.actions.numpy(), executed.reshape(len(rows), -1))


def test_imagined_blocks_continue_one_another() -> None:
    data = tracks(3, 14)
    blocks = imagined_blocks(world(), data, None)
    shape = (-1, H, D)
    before, after = blocks.before.view(shape), blocks.after.view(shape)
    assert torch.equal(before[:, 1:], after[:, :-1])
    rows = blocks.rows.reshape(-1, H)
    assert torch.equal(before[:, 0], data.latents[torch.from_numpy(rows[:, 0])])
    assert (np.diff(rows, axis=1) == B).all()
    assert np.array_equal(blocks.ahead[: H + 1], [*range(1, H + 1), 1])


def test_an_exact_model_imagines_what_came() -> None:
    data = tracks(4, 20, noise=0.0)
    blocks = imagined_blocks(world(), data, 30)
    came = data.latents[torch.from_numpy(blocks.rows + B)]
    torch.testing.assert_close(blocks.after, came, atol=1e-4, rtol=1e-4)

    class Still(LinearWorld):
        def predict(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
            return z[:, -1]

    wrong = imagined_blocks(world(Still), data, 30)
    assert not torch.allclose(wrong.after, came, atol=0.1)


def test_rollouts_may_start_from_fewer_latents() -> None:
    data = tracks(2, 20)
    blocks = imagined_blocks(world(), data, None, context=1)
    first = blocks.rows.reshape(-1, H)[:, 0]
    assert first[0] == 0
    assert torch.equal(blocks.before[::H], data.latents[torch.from_numpy(first)])
    assert imagined_blocks(world(), data, None).rows[0] == (K - 1) * B


def test_windows_are_side_by_side_or_drawn() -> None:
    data, model = tracks(2, 20), world()
    rows = window_rows(model, data)
    assert rows.shape[1] == K + H
    assert (rows[:, 0] % 20 % B == 0).all()
    assert np.array_equal(window_rows(model, data, 5, 1), window_rows(model, data, 5, 1))
    assert not np.array_equal(window_rows(model, data, 5, 1), window_rows(model, data, 5, 2))
    assert len(window_rows(model, data, 5)) == 5


def test_a_block_is_hazardous_at_any_tick_it_leads_to() -> None:
    data = tracks(4, 30)
    happens = KEEP_OUT.rule.happens(data.columns)
    rows = encoded_blocks(world(), data).rows
    expected = [happens[row + 1 : row + B + 1].any() for row in rows]
    labels = block_hazards([KEEP_OUT.rule], data.columns, rows, B)[:, 0]
    assert np.array_equal(labels, expected)
    assert 0 < labels.sum() < len(labels)
    assert not np.array_equal(labels, happens[rows]), "where it stands is not where it goes"


def test_an_angle_is_a_cosine_and_a_sine_in_either_unit() -> None:
    turn = np.float32([0.0, 1.0, -2.0])
    columns = {"x": turn, "a": turn, "b": np.rad2deg(turn)}
    probe = (ProbeColumn("x", "m"), ProbeColumn("a", "rad"), ProbeColumn("b", "deg"))
    names, units, values = quantities(probe, columns)
    assert names == ("x", "cos a", "sin a", "cos b", "sin b")
    assert units == ("m", "1", "1", "1", "1")
    np.testing.assert_allclose(values[:, 1:3], values[:, 3:5], atol=1e-6)
    np.testing.assert_allclose(values[:, 1], np.cos(turn), atol=1e-6)
