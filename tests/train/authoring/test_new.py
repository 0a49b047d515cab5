"""New recipes: the model step, the size for the time and the device, and files that read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.train.surveys import survey

from jetsight.errors import DataError, UsageError
from jetsight.testing import FakeClock
from jetsight_train.authoring import sizes
from jetsight_train.authoring.new import LEAST_STEPS, NewRecipeOptions, NewRecipes, new_recipes
from jetsight_train.authoring.sizes import (
    SIZES,
    TargetDevice,
    cost_of,
    find_device,
    input_size,
    seconds_per_step,
)
from jetsight_train.authoring.survey import DataSurvey
from jetsight_train.authoring.toml_file import render
from jetsight_train.model.encoder import ConvEncoder
from jetsight_train.model.predictor import Predictor
from jetsight_train.recipe import Recipe, load_recipe

NAMES = {size.latent: size.name for size in SIZES}


def made(found: DataSurvey | None = None, step_s: Any = 0.01, **options: Any) -> NewRecipes:
    """Make recipes on a machine whose steps take `step_s`, or `step_s(recipe)`."""
    cost: Callable[[Recipe], float] = step_s if callable(step_s) else lambda recipe: step_s
    wanted = {"name": "robot", "license": "MIT", "device": find_device("agx-orin"), "minutes": 60}
    return new_recipes(
        found or survey(),
        NewRecipeOptions(**{**wanted, **options}),  # type: ignore[arg-type]
        lambda recipe, _: cost(recipe),
    )


@pytest.mark.parametrize(
    ("hz", "lengths", "block", "horizon"),
    [
        (20.0, (100,), 10, 5),
        (30.0, (900,), 15, 5),
        (10.0, (200,), 5, 5),
        (0.5, (50,), 1, 5),
        (5.0, (10,) * 25, 1, 5),  # short episodes get shorter steps
        (20.0, (30, 40, 50, 60), 4, 5),
        (20.0, (4,), 1, 2),  # and then a shorter horizon
        (20.0, (100,) * 9 + (3,), 10, 5),  # one short episode does not decide
    ],
)
def test_a_model_step_is_half_a_second_where_episodes_allow(
    hz: float, lengths: tuple[int, ...], block: int, horizon: int
) -> None:
    rows = sum(lengths)
    actions = np.sin(np.arange(2 * rows)).reshape(rows, 2).astype(np.float32)
    found = survey(hz=hz, lengths=lengths, actions=actions)
    recipe = made(found).first
    assert (recipe.timing.action_block, recipe.model.horizon) == (block, horizon)
    needed = (recipe.window - 1) * block + 1
    assert needed <= np.quantile(lengths, 0.25)
    assert made(found).then.window <= recipe.model.history + horizon


def test_episodes_of_two_frames_are_refused() -> None:
    with pytest.raises(DataError, match="have only 2 frames"):
        made(survey(lengths=(2,) * 600))


def test_the_largest_model_that_trains_in_time_is_taken() -> None:
    def machine(speed: float) -> Callable[[Recipe], float]:
        return lambda recipe: recipe.model.latent_size * recipe.optimiser.batch / speed

    chosen = [NAMES[made(step_s=machine(speed)).first.model.latent_size] for speed in (1e6, 5e3)]
    assert chosen == ["large", "small"]
    slow = made(step_s=machine(300.0))
    assert NAMES[slow.first.model.latent_size] == "micro"
    assert slow.first.optimiser.batch == 16
    assert slow.first.optimiser.steps < LEAST_STEPS
    assert "steps fit into 60 minutes" in slow.notes[0]


def test_twice_the_time_is_twice_the_steps() -> None:
    steps = [made(step_s=0.3, minutes=m).first.optimiser.steps for m in (30, 60)]
    assert steps[0] * 0.3 <= 30 * 60 * 0.65
    assert steps[1] == pytest.approx(2 * steps[0], rel=0.1)


def test_a_device_that_cannot_keep_up_gets_a_smaller_model() -> None:
    slow = TargetDevice("cpu", 0.002, 4)
    recipe = made(device=slow).first
    assert NAMES[recipe.model.latent_size] != "large"
    cost = cost_of(recipe.model, recipe.frame.resize, recipe.action_size)  # type: ignore[arg-type]
    assert cost.fits(slow, 20.0, 10) or NAMES[recipe.model.latent_size] == "micro"
    big = made().first
    large = cost_of(big.model, big.frame.resize, big.action_size)  # type: ignore[arg-type]
    assert not large.fits(slow, 20.0, 10)  # the control


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cpu", "cpu"),
        ("orin-nano", "orin-nano-4gb"),
        ("orin-nano-8gb", "orin-nano-8gb"),
        ("agx-orin", "agx-orin-32gb"),
        ("thor", "thor-t4000"),
    ],
)
def test_devices_have_their_usual_names(name: str, found: str) -> None:
    assert find_device(name).name == found
    with pytest.raises(UsageError, match="there is no device 'orin-nan0'; did you mean 'orin-nano"):
        find_device("orin-nan0")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_the_count_of_weights_is_that_of_the_modules(size: sizes.ModelSize) -> None:
    model = size.model(3, 5)
    assert model.conv is not None
    shape = (size.side, size.side)
    modules = (
        ConvEncoder(model.conv, shape, model.latent_size),
        Predictor(model.predictor, model.latent_size, 3, 20),
    )
    real = sum(p.numel() for module in modules for p in module.parameters())
    assert cost_of(model, shape, 20).weights == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize(
    ("camera", "size"), [((96, 96), (48, 48)), ((480, 640), (48, 64)), ((640, 360), (88, 48))]
)
def test_an_input_keeps_the_shape_of_the_frame(camera: Any, size: tuple[int, int]) -> None:
    assert input_size(48, camera) == size


class Ticking(FakeClock):
    """A clock that advances by 2 s whenever it is read."""

    def now_ns(self) -> int:
        self.advance(2_000_000_000)
        return super().now_ns()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_speed_is_that_of_real_training_steps(frozen: bool) -> None:
    both = made(survey(camera_hw=(32, 32)), steps=5)
    recipe = both.then if frozen else both.first
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, batch=2))
    assert seconds_per_step(recipe, Ticking(), 100.0) == pytest.approx(2.0)


def test_files_read_back_as_the_same_recipes(tmp_path: Path) -> None:
    both = made(survey(("grip \\ 'x'", "w")), action=replace_neutral("0.25,0"))
    pairs = ((both.first, both.reasons), (both.then, both.then_reasons))
    for recipe, reasons in pairs:
        path = tmp_path / f"{recipe.name}.toml"
        path.write_text(render(recipe, ["a head", "x" * 200], reasons, {"s": "m"}))
        assert load_recipe(str(path)) == recipe
        lines = path.read_text().splitlines()
        assert all(len(line) <= 100 or " " not in line[2:] for line in lines if line[:1] == "#")
        assert lines[lines.index('# column = "s"') + 1] == '# unit = "m"'


def replace_neutral(neutral: str) -> Any:
    from jetsight_train.authoring.action_choice import ActionOptions

    return ActionOptions((), neutral)


def test_the_second_recipe_goes_on_from_the_first() -> None:
    both = made()
    assert both.first.then == "robot-predictor.toml"
    assert both.then.optimiser.frozen_encoder
    assert not both.first.optimiser.frozen_encoder
    shared = ("model", "frame", "timing", "action")
    assert all(getattr(both.first, key) == getattr(both.then, key) for key in shared)
    assert both.then.objective.rollout_steps == both.then.model.horizon
