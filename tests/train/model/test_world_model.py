"""Shapes: N windows, K history, H horizon, D latent size, A action block."""

from __future__ import annotations

import pytest
import torch
from helpers.train.toy_world import HISTORY, HORIZON, toy_recipe, toy_recording

from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig, ViTConfig
from jetsight_train.model.encoder import SpatialSoftmax
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import load_recipe
from jetsight_train.training.trainer import build_model

ACTION = ActionSpec(
    names=("x", "y"),
    units=("px", "px"),
    low=(0.0, 0.0),
    high=(512.0, 512.0),
    rate_limit_per_s=None,
    neutral=(256.0, 256.0),
    mean=(250.0, 260.0),
    std=(90.0, 110.0),
)


@pytest.fixture
def model() -> WorldModel:
    model = build_model(toy_recipe(), toy_recording())
    for parameter in model.parameters():  # AdaLN-zero starts independent of actions
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def build(recipe: str) -> WorldModel:
    plan = load_recipe(recipe)
    frame = plan.frame.spec
    timing = TimingSpec(plan.timing.camera_hz, plan.timing.action_block)
    return WorldModel(plan.model, frame, timing, ACTION)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_lewm_recipe_has_the_published_geometry() -> None:
    model = build("lewm")
    projector = count(model.encoder.projector)
    assert count(model.encoder) - projector == 5_501_376
    assert projector == 792_768
    assert count(model.predictor.actions) == 156_206
    assert count(model.predictor.project) == 792_768
    assert count(model) == 18_034_478


@pytest.mark.parametrize("recipe", ["pusht-nano", "pusht-nano-vit"])
def test_nano_recipes_stay_nano(recipe: str) -> None:
    assert count(build(recipe)) <= 3_000_000


def test_predictor_is_causal_and_uses_the_whole_window(model: WorldModel) -> None:
    z, a = torch.randn(2, HISTORY, 16), torch.randn(2, HISTORY, 4)
    before = model.predict_each(z, a)
    late = z.clone()
    late[:, -1] += torch.randn(16)  # not a constant: LayerNorm would take that out again
    after = model.predict_each(late, a)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-3
    early = z.clone()
    early[:, 0] += torch.randn(16)
    assert (before[:, -1] - model.predict_each(early, a)[:, -1]).abs().max() > 1e-4


def test_rollout_is_predict_repeated_on_a_sliding_window(model: WorldModel) -> None:
    z, a = torch.randn(3, HISTORY, 16), torch.randn(3, HISTORY - 1 + HORIZON, 4)
    future = model.rollout(z, a[:, : HISTORY - 1], a[:, HISTORY - 1 :])
    window = z
    for step in range(HORIZON):
        expected = model.predict(window, a[:, step : step + HISTORY])
        torch.testing.assert_close(future[:, step], expected)
        window = torch.cat([window[:, 1:], expected[:, None]], dim=1)


def test_rollout_depends_on_every_action_up_to_its_step(model: WorldModel) -> None:
    z, past, plan = (
        torch.randn(1, HISTORY, 16),
        torch.randn(1, HISTORY - 1, 4),
        torch.randn(1, 2, 4),
    )
    base = model.rollout(z, past, plan)
    later = plan.clone()
    later[:, 1] += 1.0
    moved = model.rollout(z, past, later)
    torch.testing.assert_close(base[:, 0], moved[:, 0])
    assert (base[:, 1] - moved[:, 1]).abs().max() > 1e-4
    assert (base - model.rollout(z, past + 1.0, plan)).abs().min(-1).values.max() > 1e-5


def test_actions_are_in_robot_units(model: WorldModel) -> None:
    z, a = torch.randn(1, HISTORY, 16), torch.randn(1, HISTORY, 4)
    normalised = (a - model.action_mean) / model.action_std
    torch.testing.assert_close(model.predict(z, a), model.predictor(z, normalised)[:, -1])


def test_cost_is_squared_distance(model: WorldModel) -> None:
    z, goal = torch.randn(5, 16), torch.randn(16)
    torch.testing.assert_close(model.cost(z, goal), (z - goal).pow(2).sum(-1))
    assert model.cost(goal, goal).item() == 0.0


def test_two_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly one encoder"):
        ModelConfig(16, 3, 2, PredictorConfig(), conv=ConvConfig(), vit=ViTConfig())


def test_spatial_softmax_finds_a_bright_spot_and_its_spread() -> None:
    read = SpatialSoftmax(1, 1, (9, 9))
    with torch.no_grad():
        read.score.weight.fill_(40.0)
        read.score.bias.zero_()
    spot = torch.zeros(2, 1, 9, 9)
    spot[0, 0, 2, 6] = 1.0  # row 2 is y = -0.5, column 6 is x = +0.5
    spot[1, 0, 0, 0] = spot[1, 0, 8, 8] = 1.0  # two spots: their middle, far apart
    x, y, spread = read(spot).T
    torch.testing.assert_close(x, torch.tensor([0.5, 0.0]), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(y, torch.tensor([-0.5, 0.0]), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(spread, torch.tensor([0.0, 2.0]), atol=1e-4, rtol=0.0)
