"""`jetsight train`: train a world model, or heads for one, on recorded episodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from jetsight.cli.dataset_options import dataset_options
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import StorageError, UsageError
from jetsight.storage.strict_json import dump
from jetsight_train.recipe import RECIPES, Recipe, load_recipe

PATH = click.Path(path_type=Path)


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

    from jetsight_train.checkpoint import load
    from jetsight_train.data.windows import load_recording
    from jetsight_train.model.heads import Heads
    from jetsight_train.training.trainer import CHECKPOINT, Trainer, check_training_data

    if threads:
        torch.set_num_threads(threads)
    if probe is not None:
        if init or resume or no_anti_collapse:
            raise UsageError(
                "--probe trains heads from scratch in one run; leave out --init, --resume and "
                "--no-anti-collapse"
            )
        train_probe(recipe, data, out, probe, steps, as_json=as_json, features=features)
        return
    _refuse_heads(recipe)
    plan = _adjusted(load_recipe(recipe), steps, no_anti_collapse)
    folder = out or Path("runs") / plan.name
    _refuse_used(folder, resume, CHECKPOINT)
    # Before the recording is decoded, which is long work.
    check_training_data(plan, data, features)
    trainer = Trainer(plan, load_recording(data, None, plan.recording_spec, features), folder)
    if init:
        weights = load(init)[0]
        weights.heads = Heads()  # heads fit the latents of the old weights alone
        trainer.start_from(weights)
    if resume:
        # After --init: a saved state replaces the weights that the run began with.
        trainer.resume()
    target = trainer.run(save_every, _Bar(plan.optimiser.last_step, trainer.step).update)
    result = {"checkpoint": str(target), "steps": trainer.step, "wall_s": round(trainer.wall_s, 1)}
    click.echo(json.dumps(result) if as_json else f"{target}: {trainer.step} steps")


def train_probe(
    recipe: str,
    data: Path,
    out: Path | None,
    frozen: Path,
    steps: int | None,
    *,
    as_json: bool,
    features: FeatureMap,
) -> None:
    """Train heads on a frozen checkpoint, and write it with its heads to `out/checkpoint`."""
    from jetsight_train import checkpoint
    from jetsight_train.data import encoded
    from jetsight_train.heads.recipe import load_heads_recipe
    from jetsight_train.heads.summary import lines
    from jetsight_train.training.train_heads import train_heads
    from jetsight_train.training.trainer import CHECKPOINT

    plan = load_heads_recipe(recipe)
    if steps:
        optimiser = dataclasses.replace(plan.optimiser, steps=steps)
        plan = dataclasses.replace(plan, optimiser=optimiser)
    folder = out or Path("runs") / plan.name
    _refuse_used(folder, False, CHECKPOINT)
    model, about = checkpoint.load(frozen)
    had_heads = not model.heads.is_empty
    tracks = encoded.read_tracks(model, data, plan.columns, features)
    heads = train_heads(model, about, tracks, plan)
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


class _Bar:
    """Progress bar with the loss and the measures of collapse."""

    def __init__(self, steps: int, first: int) -> None:
        from jetsight_train.progress import progress

        self.bar = progress(range(steps), "train", unit="step", initial=first, total=steps)
        self.shown: dict[str, str] = {}

    def update(self, report: object) -> None:
        from jetsight_train.training.trainer import StepReport

        assert isinstance(report, StepReport)
        self.shown["loss"] = f"{report.loss:.3f}"
        if report.health:
            self.shown["rank"] = f"{report.health.effective_rank:.0f}"
            self.shown["std"] = f"{report.health.std_mean:.2f}"
        self.bar.set_postfix(self.shown, refresh=False)  # type: ignore[attr-defined]
        self.bar.update()  # type: ignore[attr-defined]
