"""`jetsight train`: train a world model, or heads for one, on recorded episodes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jetsight.cli.dataset_options import dataset_options, with_features
from jetsight.cli.options import quiet_option
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import DivergenceError, StorageError, UsageError
from jetsight.progress import Progress
from jetsight.signals import interruption_advice
from jetsight.storage.strict_json import dump
from jetsight_train.recipe import RECIPES, Recipe, load_recipe

if TYPE_CHECKING:
    from jetsight_train.heads.recipe import HeadsRecipe
    from jetsight_train.training.trainer import StepReport

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class RunOptions:
    """Folder and states of a run, and the features of its data.

    Args:
        folder: of the run.
        save_every: steps between saved states.
        resume: go on from the newest state.
        features: which features of the dataset are actions, states and frames.
    """

    folder: Path
    save_every: int
    resume: bool
    features: FeatureMap


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--data", required=True, type=PATH, help="Recorded dataset to train on.")
@dataset_options
@click.option("--out", type=PATH, help="Run folder.  [default: runs/RECIPE-NAME]")
@click.option("--init", type=PATH, help="Start from the weights of this checkpoint.")
@click.option(
    "--probe",
    type=PATH,
    help="Train the heads of RECIPE for this checkpoint, which is not changed.",
)
@click.option("--resume", is_flag=True, help="Continue from the newest state in the run folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps instead.")
@click.option("--save-every", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads for PyTorch.")
@click.option(
    "--no-anti-collapse",
    is_flag=True,
    help="Control run on the prediction error alone; it collapses and ends with exit code 9.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@quiet_option
def train(
    recipe: str,
    data: Path,
    features: FeatureMap,
    out: Path | None,
    init: Path | None,
    probe: Path | None,
    resume: bool,
    steps: int | None,
    save_every: int,
    threads: int | None,
    no_anti_collapse: bool,
    as_json: bool,
) -> None:
    """Train the world model of RECIPE (a shipped name or a TOML file).

    The run folder holds metrics.jsonl, resumable states, and at the end checkpoint/.

    With --probe, RECIPE describes heads: quantities, hazards and support read out of the latents of
    a frozen model. OUT/checkpoint is then that model with these heads, in place of any it had.
    """
    import torch

    from jetsight_train.training.trainer import CHECKPOINT

    if threads:
        torch.set_num_threads(threads)
    if probe is not None:
        if init or no_anti_collapse:
            raise UsageError(
                "--probe trains heads for a frozen model; leave out --init and --no-anti-collapse"
            )
        heads_plan = _heads_plan(recipe, steps)
        run = RunOptions(out or Path("runs") / heads_plan.name, save_every, resume, features)
        train_probe(heads_plan, data, probe, run, as_json=as_json)
        return
    _refuse_heads(recipe)
    plan = _adjusted(load_recipe(recipe), steps, no_anti_collapse)
    folder = out or Path("runs") / plan.name
    _refuse_used(folder, resume, CHECKPOINT)
    run = RunOptions(folder, save_every, resume, features)
    trained, target = train_world_model(plan, data, init, run)
    if as_json:
        click.echo(json.dumps({"checkpoint": str(target), **trained}))
        return
    shown = with_features(data, features)
    click.echo(f"{target}: {trained['steps']} steps\nnext: {_next(plan, recipe, shown, target)}")


def train_world_model(
    plan: Recipe, data: Path, init: Path | None, run: RunOptions
) -> tuple[dict[str, float], Path]:
    """Train a world model in a run folder.

    Args:
        plan: settings of the run.
        data: dataset to train on.
        init: checkpoint to start from.
        run: folder and states of the run.

    Returns:
        Steps and seconds of the run, and the folder of the checkpoint.
    """
    from jetsight_train.checkpoint import load
    from jetsight_train.data.windows import load_recording
    from jetsight_train.model.heads import Heads
    from jetsight_train.training.measured import check_training_data
    from jetsight_train.training.trainer import Trainer

    # Before the recording is decoded, which is long work.
    for line in check_training_data(plan, data, run.features).warnings:
        click.echo(f"jetsight: warning: {line}", err=True)
    with _kept(run.folder):
        recording = load_recording(data, None, plan.recording_spec, run.features)
        trainer = Trainer(plan, recording, run.folder)
        if init:
            weights = load(init)[0]
            weights.heads = Heads()  # heads fit the latents of the old weights alone
            trainer.start_from(weights)
        if run.resume:
            # After --init: a saved state replaces the weights that the run began with.
            trainer.resume()
        notes: dict[str, str] = {}
        with Progress("train", plan.optimiser.last_step, "step", initial=trainer.step) as shown:
            target = trainer.run(run.save_every, lambda report: _show(shown, notes, report))
    return {"steps": trainer.step, "wall_s": round(trainer.wall_s, 1)}, target


def _next(plan: Recipe, recipe: str, data: str, target: Path) -> str:
    """Name the command that usually follows."""
    if plan.then is None:
        return f"jetsight report {target} --data HELD_OUT --run {target.parent}"
    beside = Path(recipe).with_name(plan.then)  # a shipped recipe is named without a folder
    then = beside if beside.is_file() else Path(plan.then)
    return f"jetsight train {then} --init {target} --data {data}"


def _heads_plan(recipe: str, steps: int | None) -> HeadsRecipe:
    from jetsight_train.heads.recipe import load_heads_recipe

    plan = load_heads_recipe(recipe)
    if steps:
        optimiser = dataclasses.replace(plan.optimiser, steps=steps)
        plan = dataclasses.replace(plan, optimiser=optimiser)
    return plan


def train_probe(
    plan: HeadsRecipe, data: Path, frozen: Path, run: RunOptions, *, as_json: bool
) -> None:
    """Train heads on a frozen checkpoint, and write it with its heads to the run's folder.

    Args:
        plan: settings of the heads.
        data: dataset to train on.
        frozen: the checkpoint.
        run: folder and states of the run.
        as_json: print the scores as one JSON object.
    """
    from jetsight_train import checkpoint
    from jetsight_train.data import encoded
    from jetsight_train.heads.summary import lines
    from jetsight_train.training.heads_state import HeadsRun, HeadsState
    from jetsight_train.training.train_heads import train_heads
    from jetsight_train.training.trainer import CHECKPOINT

    folder = run.folder
    _refuse_used(folder, run.resume, CHECKPOINT)
    model, about = checkpoint.load(frozen)
    had_heads = not model.heads.is_empty
    with _kept(folder):
        tracks = encoded.read_tracks(model, data, plan.columns, run.features)
        identity = HeadsRun(plan, tracks.recording.digest, about.weights.sha256)
        state = HeadsState(folder, identity, run.save_every, run.resume)
        heads = train_heads(model, about, tracks, plan, state=state)
    target = folder / CHECKPOINT
    checkpoint.save(target, model, about.recipe, about.latent, about.trained, heads)
    scores = json.loads(dump(heads.scores))
    result = {"checkpoint": str(target), "wall_s": round(heads.trained.wall_s, 1), **scores}
    if as_json:
        click.echo(json.dumps(result))
        return
    model_name = f"{about.name}, in place of its earlier ones" if had_heads else about.name
    click.echo("\n".join([f"{target}: heads of {model_name}", *lines(heads)]))


def _refuse_heads(recipe: str) -> None:
    if not Path(recipe).is_file() and (RECIPES / "heads" / f"{recipe}.toml").is_file():
        raise UsageError(
            f"recipe {recipe!r} describes heads for a trained model; add --probe CHECKPOINT"
        )


def _adjusted(plan: Recipe, steps: int | None, no_anti_collapse: bool) -> Recipe:
    if steps:
        optimiser = dataclasses.replace(plan.optimiser, steps=steps)
        plan = dataclasses.replace(plan, optimiser=optimiser)
    if no_anti_collapse:
        objective = dataclasses.replace(plan.objective, kind="none")
        plan = dataclasses.replace(plan, name=f"{plan.name}-control", objective=objective)
    return plan


def _refuse_used(folder: Path, resume: bool, checkpoint: str) -> None:
    # Also with --resume: a finished run has nothing to continue.
    if (folder / checkpoint).exists():
        raise StorageError(
            f"{folder / checkpoint}: this run is finished and would be overwritten; choose another "
            "--out, or delete the folder to train again"
        )
    if not resume and folder.exists() and any(folder.iterdir()):
        raise StorageError(
            f"{folder}: holds an earlier run; add --resume to continue it, or choose another --out"
        )


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say at an interruption or a divergence what is kept of the run, and how to go on."""

    def advice() -> str:
        if _has_state(folder):
            return f"the state is kept in {folder}; run the same command with --resume to go on"
        return "no step was finished, so there is nothing to resume; run the same command again"

    try:
        with interruption_advice(advice):
            yield
    except DivergenceError as error:
        if not _has_state(folder):
            raise
        raise DivergenceError(
            f"{error}; the last good state is kept in {folder}: correct the recipe and run the "
            "same command with --resume"
        ) from error


def _has_state(folder: Path) -> bool:
    return (folder / "state").is_dir() and any((folder / "state").iterdir())


def _show(shown: Progress, notes: dict[str, str], report: StepReport) -> None:
    """Show a step with its loss and the newest measures of collapse, which `notes` keep."""
    notes["loss"] = f"{report.loss:.3f}"
    if report.health:
        notes["rank"] = f"{report.health.effective_rank:.0f}"
        notes["std"] = f"{report.health.std_mean:.2f}"
    shown.update(notes=notes)
