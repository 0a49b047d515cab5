"""`jetsight recipe`: write, check and explain recipes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jetsight.cli.dataset_options import dataset_options, with_features
from jetsight.cli.options import quiet_option
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import ArtefactError, StorageError, UsageError
from jetsight_train.cli.collect import Size

if TYPE_CHECKING:
    from jetsight_train.authoring.new import NewRecipes
    from jetsight_train.authoring.survey import DataSurvey

PATH = click.Path(path_type=Path)


@click.group()
def recipe() -> None:
    """Write a recipe from your data, check it, or show what its keys mean."""


@recipe.command()
@click.option("--data", type=PATH, help="Dataset to fill the recipe from.")
@click.option("--env", "env_id", help="Gymnasium id to fill it from, before anything is recorded.")
@click.option("--out", type=PATH, help="File to write.  [default: NAME.toml]")
@click.option("--name", help="Name of the recipe.  [default: that of --out, or of the data]")
@click.option("--license", default="unspecified", show_default=True, help="Of the trained model.")
@dataset_options
@click.option("--size", type=Size(), default="96x96", show_default=True, help="Frames of --env.")
@click.option("--action-names", metavar="A,B", help="[default: those of the data]")
@click.option("--units", metavar="A,B", help="Action units, like m/s,rad/s.")
@click.option("--neutral", metavar="zero|mean|A,B", help="Action while nothing is known.")
@click.option("--fit", default="cpu", show_default=True, help="Device, like orin-nano-8gb.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Time to train on this machine.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps, instead of measuring speed.")
@click.option("--force", is_flag=True, help="Replace recipes of that name.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@quiet_option
def new(
    data: Path | None, features: FeatureMap, env_id: str | None, out: Path | None, **options: Any
) -> None:
    """Write a commented recipe that trains without edits, and one that goes on from it.

    Frame, rate, names, limits and rate limits are taken from the data; model and steps are chosen
    for the device and the time. What data cannot say is requested, never guessed.
    """
    if (data is None) == (env_id is None):
        raise UsageError("give either --data DIR or --env ID to fill the recipe from")
    survey = _survey(data, env_id, features, options)
    name = options["name"] or (out.stem if out else re.sub(r"[^A-Za-z0-9._-]", "-", survey.name))
    first = out or Path(f"{name}.toml")
    files = (first, first.with_name(f"{name}-predictor.toml"))
    for path in files:
        if path.exists() and not options["force"]:
            raise StorageError(f"{path}: exists already; add --force to replace it, or give --out")
    # Cameras are named in the recipe.
    shown = with_features(data or Path("DIR"), replace(features, cameras=()))
    _write(_made(survey, name, options), survey, files, shown)
    _say(files, shown, options["as_json"])


@recipe.command()
@click.argument("file", metavar="FILE")
@click.option("--data", type=PATH, help="Dataset to check it with.")
@dataset_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def check(file: str, data: Path | None, features: FeatureMap, as_json: bool) -> None:
    """Check FILE (a path or the name of a shipped recipe), and data against it, without training.

    The exit code is 0 without errors, 2 for a wrong recipe, 4 for data that does not fit.
    """
    from jetsight_train.authoring.check import check_recipe

    findings = check_recipe(file, data, features)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(each) for each in findings]}))
    else:
        for each in findings:
            click.echo(f"{each.level}: {each.text}")
    click.get_current_context().exit(next((f.exit_code for f in findings if f.exit_code), 0))


@recipe.command()
@click.argument("key", metavar="[SECTION|KEY]", required=False)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the page docs/recipes.md.")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as one JSON object.")
def show(key: str | None, as_markdown: bool, as_json: bool) -> None:
    """Show what recipe keys mean: all, those of a section such as `action`, or one."""
    from jetsight_train.authoring import reference

    if as_markdown:
        click.echo(reference.markdown(), nl=False)
        return
    chosen = (
        reference.find(key)
        if key
        else [k for kind in reference.KINDS for k in reference.keys(kind)]
    )
    if as_json:
        click.echo(json.dumps({"keys": [{**asdict(each), "path": each.path} for each in chosen]}))
        return
    for kind in reference.KINDS:
        grouped = reference.sections([each for each in chosen if each.kind == kind])
        for section, keys in grouped.items():
            click.echo(f"{reference.heading(kind, section)}")
            for each in keys:
                unit = f", {each.unit}" if each.unit else ""
                default = (
                    each.default
                    if each.default == reference.REQUIRED
                    else f"default {each.default}"
                )
                click.echo(f"  {each.name} ({each.type}{unit}; {default}): {each.meaning}")


def _survey(
    data: Path | None, env_id: str | None, features: FeatureMap, options: dict[str, Any]
) -> DataSurvey:
    from jetsight_train.authoring.survey import survey_dataset, survey_environment

    names = _list(options["action_names"])
    if env_id is not None:
        width, height = options["size"]
        return survey_environment(env_id, (height, width), features, names)
    assert data is not None
    return survey_dataset(data, features, names)


def _made(survey: DataSurvey, name: str, options: dict[str, Any]) -> NewRecipes:
    from jetsight.clock import MonotonicClock
    from jetsight_train.authoring.action_choice import ActionOptions
    from jetsight_train.authoring.new import NewRecipeOptions, new_recipes
    from jetsight_train.authoring.sizes import find_device, seconds_per_step

    clock = MonotonicClock()
    wanted = NewRecipeOptions(
        name=name,
        license=options["license"],
        device=find_device(options["fit"]),
        minutes=options["minutes"],
        steps=options["steps"],
        action=ActionOptions(_list(options["units"]), options["neutral"]),
    )
    try:
        return new_recipes(survey, wanted, lambda each, most: seconds_per_step(each, clock, most))
    except (ArtefactError, ValueError) as error:
        raise UsageError(f"no recipe can be made of {survey.source}: {error}") from None


def _write(made: NewRecipes, survey: DataSurvey, files: tuple[Path, Path], shown: str) -> None:
    from jetsight.storage.atomic import write_file
    from jetsight_train.authoring.toml_file import render

    first, then = made.first, made.then
    run = f"jetsight train {files[0]} --data {shown}"
    on = f"jetsight train {files[1]} --init runs/{first.name}/checkpoint --data {shown}"
    held_out = (
        "Keep a tenth of the episodes as a dataset of their own: report and compile measure on it."
    )
    texts = (
        [f"Recipe from {survey.source}. Train it with:", run, held_out],
        [f"Goes on from the checkpoint of {first.name}, with its encoder frozen:", on, held_out],
    )
    units = survey.state_units or ("",) * len(survey.state_names)
    states = dict(zip(survey.state_names, units, strict=True))
    for path, each, head, why in zip(
        files, (first, then), texts, (made.reasons, made.then_reasons), strict=True
    ):
        write_file(path, render(each, head, why, states).encode())
    for note in made.notes:
        click.echo(f"jetsight: note: {note}", err=True)


def _say(files: tuple[Path, Path], data: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"recipe": str(files[0]), "then": str(files[1])}))
        return
    click.echo(f"{files[0]}: written, and {files[1]} to go on from it")
    click.echo(f"next: jetsight train {files[0]} --data {data}")


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()
