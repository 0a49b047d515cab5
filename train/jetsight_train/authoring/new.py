"""New recipes, filled from a survey of the data: what is trained first, and on its encoder then.

The first recipe trains encoder and predictor together and is complete by itself. The second goes
on from its checkpoint: with the encoder frozen, rollouts as long as the horizon are cheap, and they
are what planning needs.

Shapes: K history, H horizon, B action block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from jetsight.bundle.model_spec import TimingSpec
from jetsight.errors import DataError
from jetsight_train.authoring.action_choice import ActionOptions, choose_action
from jetsight_train.authoring.sizes import SIZES, Cost, ModelSize, TargetDevice, cost_of, input_size
from jetsight_train.authoring.survey import DataSurvey
from jetsight_train.objectives import ObjectiveConfig
from jetsight_train.recipe import FrameRecipe, OptimiserConfig, Recipe

STEP_S = 0.5  # aim for a model step: long enough that something changes, short enough to correct
HISTORY, HORIZON, ROLLOUT = 3, 5, 2
DEFAULT_SIZE = "nano"  # where nothing is measured
BATCHES, PREDICTOR_BATCH = (64, 32, 16), 256
LEAST_STEPS, MOST_STEPS = 1500, 20_000
FIRST_SHARE, THEN_SHARE = 0.65, 0.25  # of the time; the rest reads data and encodes it

Measure = Callable[[Recipe, float], float]  # recipe, longest useful step in s -> seconds per step
Reasons = Mapping[str, str]  # dotted key -> why it has its value


@dataclass(frozen=True)
class NewRecipeOptions:
    """Decisions of the user about a new recipe.

    Attributes:
        name: of the recipe.
        license: of the trained model.
        device: to size the model for.
        minutes: of training, on this machine.
        steps: of training; None to take as many as the minutes allow.
        action: answers about the actions.
    """

    name: str
    license: str
    device: TargetDevice
    minutes: float
    steps: int | None = None
    action: ActionOptions = field(default_factory=ActionOptions)


@dataclass(frozen=True)
class NewRecipes:
    """Two recipes, the reasons for their values, and lines that the user must see."""

    first: Recipe
    then: Recipe
    reasons: Reasons
    then_reasons: Reasons
    notes: tuple[str, ...]


def new_recipes(survey: DataSurvey, options: NewRecipeOptions, measure: Measure) -> NewRecipes:
    """Fill a recipe, and the one that goes on from it.

    Args:
        survey: facts about the data.
        options: decisions of the user.
        measure: measures the seconds of a training step on this machine.

    Raises:
        UsageError: something is unclear that only the user knows; the message has the option.
        DataError: the episodes are too short for any window.
    """
    timing, (history, horizon, rollout), why = _steps(survey)
    action = choose_action(survey, options.action)
    reasons = {f"action.{key}": text for key, text in action.reasons.items()} | why
    frame = FrameRecipe(survey.camera_hw, survey.camera_hw, survey.cameras)

    def sized(size: ModelSize) -> Recipe:
        resize = input_size(size.side, survey.camera_hw)
        return Recipe(
            name=options.name,
            license=options.license,
            model=size.model(history, horizon),
            frame=replace(frame, resize=resize),
            timing=timing,
            action=action.recipe,
            objective=ObjectiveConfig(
                "vicreg", prediction=5.0, variance=10.0, covariance=2.0, rollout_steps=rollout
            ),
            optimiser=OptimiserConfig(LEAST_STEPS, BATCHES[0], weight_decay=1e-4, warmup_steps=100),
            then=f"{options.name}-predictor.toml",
        )

    size, first, steps_why, notes = _choose_size(sized, options, measure)
    then = _on_frozen(first, horizon, rollout, options, measure)
    cost = _cost(first)
    reasons |= {
        "frame.camera": f"of {survey.name}",
        "frame.resize": f"size {size.name}: short side {size.side} px",
        "model.latent_size": _about_cost(cost, options.device),
        "optimiser.steps": steps_why,
        "then": "for forecasts and plans further ahead; the checkpoint of this recipe is complete",
    }
    if not any(action.recipe.units):
        notes = (*notes, "the units of the actions are unknown; give --units, one per dimension")
    return NewRecipes(first, then, reasons, reasons | _then_reasons(first), (*survey.notes, *notes))


def _steps(survey: DataSurvey) -> tuple[TimingSpec, tuple[int, int, int], dict[str, str]]:
    """Choose B, then K, H and the rollout, so that windows fit into most episodes."""
    block, hz = max(1, round(STEP_S * survey.hz)), survey.hz
    history, horizon, rollout = HISTORY, HORIZON, ROLLOUT
    usual = block
    if survey.lengths:
        length = int(np.quantile(survey.lengths, 0.25))  # three episodes of four are this long
        # A window must be shorter than an episode, or there would be one per episode.
        block = max(1, min(block, (length - 1) // (HISTORY + HORIZON)))
        fitting = (length - 1) // block + 1  # frames of a window, at block spacing
        if fitting < 3:
            raise DataError(
                f"{survey.source}: three of four episodes have only {length} frames, expected at "
                "least 3; record longer ones"
            )
        history = min(history, fitting - 2)
        horizon = min(horizon, fitting - history)
        rollout = min(rollout, horizon)
    why = f"{block / hz:.2g} s per model step; {STEP_S:g} s is a good start"
    if block < usual:
        why = f"{block / hz:.2g} s per model step: the episodes are too short for {STEP_S:g} s"
    reasons = {
        "timing.camera_hz": "as recorded" if survey.is_recorded else "of the environment",
        "timing.action_block": why,
        "model.horizon": f"{horizon * block / hz:.2g} s ahead",
    }
    return TimingSpec(hz, block), (history, horizon, rollout), reasons


def _choose_size(
    sized: Callable[[ModelSize], Recipe], options: NewRecipeOptions, measure: Measure
) -> tuple[ModelSize, Recipe, str, tuple[str, ...]]:
    """Take the largest size that fits the device and trains for long enough in the time."""
    budget_s = options.minutes * 60 * FIRST_SHARE
    fitting = [s for s in SIZES if _fits(sized(s), options.device)] or [SIZES[-1]]
    if options.steps is not None:
        size = next((each for each in fitting if each.name == DEFAULT_SIZE), fitting[-1])
        return size, _with_steps(sized(size), options.steps), "by --steps", ()
    # Smaller batches only once no smaller model is left: the variance terms need samples.
    tried = [(size, BATCHES[0]) for size in fitting]
    for size, batch in [*tried, *((fitting[-1], batch) for batch in BATCHES[1:])]:
        recipe = sized(size)
        recipe = replace(recipe, optimiser=replace(recipe.optimiser, batch=batch))
        step_s = measure(recipe, budget_s / LEAST_STEPS)
        steps = int(budget_s / step_s)
        if steps >= LEAST_STEPS:
            break
    why = (
        f"{options.minutes * FIRST_SHARE:.3g} of {options.minutes:g} minutes at {step_s:.2g} s per "
        "step, measured on this machine"
    )
    notes = ()
    if steps < LEAST_STEPS:
        notes = (
            f"only {max(1, steps)} steps fit into {options.minutes:g} minutes here, and fewer than "
            f"{LEAST_STEPS} rarely train a useful model; give more --minutes or another machine",
        )
    return size, _with_steps(recipe, _rounded(steps)), why, notes


def _on_frozen(
    first: Recipe, horizon: int, rollout: int, options: NewRecipeOptions, measure: Measure
) -> Recipe:
    """Make the recipe that trains the predictor alone, on rollouts as long as the horizon."""
    objective = ObjectiveConfig("none", prediction=1.0, rollout_steps=max(rollout, horizon))
    optimiser = replace(first.optimiser, batch=PREDICTOR_BATCH, frozen_encoder=True)
    name = f"{first.name}-predictor"
    then = replace(first, name=name, objective=objective, optimiser=optimiser, then=None)
    if options.steps is not None:
        return then
    budget_s = options.minutes * 60 * THEN_SHARE
    steps = int(budget_s / measure(then, budget_s / LEAST_STEPS))
    return _with_steps(then, _rounded(steps))


def _then_reasons(first: Recipe) -> dict[str, str]:
    return {
        "objective.kind": "the encoder is frozen, so nothing can collapse",
        "objective.rollout_steps": "as long as the horizon: errors of rollouts are what plans see",
        "optimiser.frozen_encoder": f"that of {first.name}, by --init",
        "optimiser.steps": "as many as the time allows",
    }


def _cost(recipe: Recipe) -> Cost:
    rows, columns = recipe.frame.resize
    return cost_of(recipe.model, (rows, columns), recipe.action_size)


def _fits(recipe: Recipe, device: TargetDevice) -> bool:
    return _cost(recipe).fits(device, recipe.timing.camera_hz, recipe.timing.action_block)


def _about_cost(cost: Cost, device: TargetDevice) -> str:
    live = device.milliseconds(cost.encode + cost.horizon * cost.step)
    return (
        f"{cost.weights / 1e6:.2g} M weights; estimated on {device.name}: frame to forecast "
        f"{live:.2g} ms, a plan {device.milliseconds(cost.plan):.2g} ms"
    )


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    steps = max(1, steps)
    warmup = min(recipe.optimiser.warmup_steps, steps // 10)
    return replace(recipe, optimiser=replace(recipe.optimiser, steps=steps, warmup_steps=warmup))


def _rounded(steps: int) -> int:
    """Round down to two digits, at most `MOST_STEPS`."""
    return int(float(f"{min(steps, MOST_STEPS) - 0.05 * steps:.2g}"))
