"""Each rewrite of the rollout against the naive model, with a control that must differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.compile.planner_world import imagining_model
from torch import Tensor, nn

from jetsight_compile.export.layers import Style
from jetsight_compile.planner_graph.token_layers import (
    PARTS,
    First,
    Relative,
    Token,
    TokenModulation,
)
from jetsight_compile.planner_graph.tokens import Rollout

ROUNDING = 2e-5
M = 6


class Eager:
    """A sheet and its parts that compute at once, values being tensors instead of names."""

    def __init__(self, model, z_hist: Tensor, a_hist: Tensor) -> None:
        self.model, self._given = model, {"z_hist": z_hist, "a_hist": a_hist}
        self.rows_computed: list[int] = []

    def rows(self, name: str) -> list[Any]:
        return list(self._given[name].split(1)) if len(self._given[name]) else []

    def token(self, position: int) -> nn.Module:
        return Token(self.model.predictor, position, Style(20))

    def modulation(self) -> nn.Module:
        return TokenModulation(self.model, Style(20))

    def add(self, part: nn.Module, inputs: list[Any], prefix: str, owner: str) -> list[Any]:
        if isinstance(part, Token):
            self.rows_computed.append(max(len(each) for each in inputs))
        return list(part(*inputs))


@pytest.fixture(scope="module")
def model():
    return imagining_model(heads=False)


def start(model, context: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    size = model.action_size
    return (
        torch.randn(context, model.config.latent_size, generator=rng),
        torch.randn(context - 1, size, generator=rng),
        torch.randn(M, horizon, size, generator=rng),
    )


@torch.inference_mode()
def rolled_out(model, z_hist, a_hist, actions) -> tuple[Tensor, list[int]]:
    """By tokens: `[M, H, D]`, and the rows of every token."""
    sheet: Any = Eager(model, z_hist, a_hist)
    latents: list[Any] = Rollout(sheet, sheet).latents(list(actions.unbind(1)))
    return torch.stack(latents, 1), sheet.rows_computed


@torch.inference_mode()
def naive(model, z_hist, a_hist, actions) -> Tensor:
    many = (x.expand(M, *x.shape) for x in (z_hist, a_hist))
    return model.rollout(*many, actions)


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("context", [1, 2, 3])
def test_tokens_imagine_what_the_model_does(model, context, horizon) -> None:
    given = start(model, context, horizon)
    expected = naive(model, *given)
    torch.testing.assert_close(rolled_out(model, *given)[0], expected, atol=ROUNDING, rtol=1e-4)
    z_hist, a_hist, actions = given
    for changed in ((z_hist.flip(1), a_hist, actions), (z_hist, a_hist, actions.flip(0))):
        assert (rolled_out(model, *changed)[0] - expected).abs().max() > 1e-2  # the control


@pytest.mark.parametrize(
    ("context", "rows"),
    [(1, [M] * 3 + [M] * 3), (2, [1, M, M] + [M] * 3 * 2), (3, [1, 1, M, 1] + [M] * 2 + [M] * 6)],
)
def test_no_token_is_computed_twice(model, context, rows) -> None:
    """While a window fills one token is new; what all candidates share is one row."""
    assert rolled_out(model, *start(model, context, 4))[1] == rows
    every = sum(min(context + step, model.config.history) for step in range(4))
    assert sum(rows) < every * M  # what the naive rollout computes


def test_tokens_kept_when_the_window_slides_would_be_seen(model, monkeypatch) -> None:
    """The control of the reuse: positions count from the window's start, so they must not be."""
    given, token = start(model, 1, 4), Rollout._token

    def kept(self: Any, index: int, first: int) -> list[Any]:
        return self._tokens.get((index, first - 1)) or token(self, index, first)

    expected = naive(model, *given)
    monkeypatch.setattr(Rollout, "_token", kept)
    found = rolled_out(model, *given)[0]
    torch.testing.assert_close(found[:, :3], expected[:, :3], atol=ROUNDING, rtol=1e-4)
    assert (found[:, 3] - expected[:, 3]).abs().max() > 1e-2


@torch.inference_mode()
def test_modulations_are_those_of_the_model(model) -> None:
    a = torch.randn(M, model.action_size)
    found = TokenModulation(model, Style(20))(a)
    condition = model.predictor.actions((a - model.action_mean) / model.action_std)
    for index, block in enumerate(model.predictor.blocks):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = block.modulation(condition).chunk(6, 1)
        expected = (shift_a, 1 + scale_a, gate_a, shift_m, 1 + scale_m, gate_m)
        for piece, right in zip(found[6 * index : 6 * index + 6], expected, strict=True):
            torch.testing.assert_close(piece, right, atol=ROUNDING, rtol=1e-4)
        assert (found[6 * index + 1] - scale_a).abs().min() > 0.9  # the control
    assert len(found) == len(PARTS) * len(model.predictor.blocks)


@torch.inference_mode()
def test_relative_attention_is_attention() -> None:
    q, k, v = (torch.randn(M, 3, 8) for _ in range(3))
    weights = torch.softmax((q[:, -1:].view(M, 1, 2, 4) * k.view(M, 3, 2, 4)).sum(-1), 1)
    expected = (weights[..., None] * v.view(M, 3, 2, 4)).sum(1).flatten(1)
    relative = [each[:, p] - each[:, 0] for p in (1, 2) for each in (k, v)]
    found = v[:, 0] + Relative(2)(q[:, -1], *relative)
    torch.testing.assert_close(found, expected)
    absolute = [each[:, p] for p in (1, 2) for each in (k, v)]
    assert (v[:, 0] + Relative(2)(q[:, -1], *absolute) - expected).abs().max() > 0.1  # the control


@torch.inference_mode()
def test_a_first_token_needs_one_product(model) -> None:
    block = model.predictor.blocks[0]
    x, parts = torch.randn(M, 1, model.config.latent_size), torch.randn(6, M, 16)
    shift, scale = parts[:2]
    inside = block.norm_attention(x) * scale[:, None] + shift[:, None]
    expected = block.attention(inside)[:, 0]
    first = First(block, Style(20))
    found = first(x[:, 0], *parts)[2]
    torch.testing.assert_close(found, expected, atol=ROUNDING, rtol=1e-4)
    first.value_out.bias.add_(0.01)
    assert (first(x[:, 0], *parts)[2] - expected).abs().max() > 100 * ROUNDING  # the control
