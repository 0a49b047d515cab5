"""`jetsight data`: check recorded data of any format, and convert it to a clean dataset."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jetsight.cli import BLOCKED
from jetsight.cli.options import quiet_option
from jetsight.clock import MonotonicClock
from jetsight.errors import UsageError
from jetsight.progress import Progress
from jetsight.signals import interruption_advice
from jetsight_train.cli.collect import Size

if TYPE_CHECKING:
    from jetsight.datasets.dataset import FeatureMap
    from jetsight_train.conversion.convert import ConvertedDataset
    from jetsight_train.curation.findings import Finding
    from jetsight_train.curation.survey import CheckOptions, DatasetSurvey

PATH = click.Path(path_type=Path)


class Crop(click.ParamType):
    """Text `center`, `full`, or TOP,LEFT,HEIGHT,WIDTH in pixels."""

    name = "center|full|T,L,H,W"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert `"0,80,480,480"` to (0, 80, 480, 480)."""
        if value in ("center", "full"):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(
                f"{value!r} is not a crop, expected center, full, or for example 0,80,480,480 "
                "(top, left, height, width)",
                param,
                ctx,
            )
        return tuple(int(part) for part in parts)


@click.group()
def data() -> None:
    """Check recorded data of any robot, and convert it to a clean LeRobot v3 dataset."""


def _sheet_name(path: Path) -> Path:
    return Path(f"{path.resolve().name.split('.')[0]}-check.png")


def _check_options(options: dict[str, Any]) -> tuple[FeatureMap, CheckOptions]:
    from jetsight.datasets.dataset import FeatureMap
    from jetsight_train.curation.survey import CheckOptions

    features = FeatureMap.parse(options["pairs"], options["cameras"])
    more: dict[str, Any] = {}
    if options["recipe"]:
        from jetsight_train.recipe import load_recipe

        recipe = load_recipe(options["recipe"])
        action = recipe.action
        more["window"] = (recipe.window - 1) * recipe.timing.action_block + 1
        pairs = zip(action.low, action.high, strict=True)
        more["limits"] = dict(zip(action.names, pairs, strict=True))
    return features, CheckOptions(features, every_frame=options["every_frame"], **more)


def _recipe_findings(survey: DatasetSurvey, name: str | None) -> list[Finding]:
    from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
    from jetsight.errors import DataError
    from jetsight_train.curation.findings import Finding
    from jetsight_train.recipe import load_recipe

    if name is None:
        return []
    used = [camera for camera in survey.cameras if camera.key in survey.pictures]
    height, width = (used[0].height, used[0].width) if used else (0, 0)
    names = [dimension.name for dimension in survey.actions]
    spec = RecordingSpec(height, width, survey.timing.declared_hz, names)
    try:
        check_dataset_fits(survey.path, spec, load_recipe(name).recording_spec)
    except DataError as problem:
        return [
            Finding("error", "recipe", str(problem), "convert the dataset, or change the recipe")
        ]
    return []


@contextlib.contextmanager
def _frame_bar() -> Iterator[Callable[[int, int], None]]:
    with Progress("decode", None, "frame") as shown:
        yield shown.reach


@data.command()
@click.argument("path", metavar="DIR", type=PATH)
@click.option(
    "--camera", "cameras", multiple=True, help="Camera to look at; repeat for several, or all."
)
@click.option(
    "--map",
    "pairs",
    multiple=True,
    metavar="ROLE=FEATURE",
    help="Feature of a role where names do not decide: action=KEY, state=KEY, camera=KEY[,KEY], "
    "rate=HZ.",
)
@click.option("--recipe", help="Recipe to compare with: frame, rate, actions, limits, window.")
@click.option("--all", "every_frame", is_flag=True, help="Decode every frame, not a sample.")
@click.option("--picture", type=PATH, help="Contact sheet to write.  [default: NAME-check.png]")
@click.option("--no-picture", is_flag=True, help="Write no contact sheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the page as one JSON object.")
def check(path: Path, **options: Any) -> None:
    """Check DIR, recorded data of any format, and print one page with what to do next.

    Decodes a sample of the frames, at most 6 episodes and 3000 frames unless one is longer; --all
    decodes every one. Ends with exit code 13 if it finds errors, which block training or make a
    model learn something false.
    """
    from jetsight_train.curation import contact_sheet, findings, next_steps, page

    target = None if options["no_picture"] else options["picture"] or _sheet_name(path)
    features, wanted = _check_options(options)
    if target is not None:
        contact_sheet.check_target(target)
    with _frame_bar() as progress:
        from jetsight_train.curation.survey import examine

        survey, episodes = examine(path, wanted, progress)
    found = findings.find(survey)
    found = [*_recipe_findings(survey, options["recipe"]), *found]
    steps = next_steps.next_steps(survey, found, features)
    if target is not None:
        contact_sheet.draw_sheet(survey, episodes, target)
    if options["as_json"]:
        click.echo(json.dumps(page.as_dict(survey, found, steps, target)))
    else:
        click.echo("\n".join(page.page(survey, found, steps, target)))
    if any(finding.level == "error" for finding in found):
        sys.exit(BLOCKED)


@data.command()
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@click.option("--hz", type=float, help="Rate of the result; that of SRC by default.")
@click.option(
    "--actions",
    type=click.Choice(["hold", "mean"]),
    default="hold",
    show_default=True,
    help="Action of a longer tick: the one in force at its start (right for positions), or the "
    "mean over it (right for velocities).",
)
@click.option("--size", type=Size(), help="Frame size of the result, e.g. 96x96; antialiased.")
@click.option(
    "--crop",
    type=Crop(),
    default="center",
    show_default=True,
    help="Region in use before the resize: the largest centred one of the new shape, the full "
    "frame, or one in pixels of SRC.",
)
@click.option(
    "--camera", "cameras", multiple=True, help="Camera to keep; repeat for several, or all."
)
@click.option("--map", "pairs", multiple=True, metavar="ROLE=FEATURE", help="See: data check.")
@click.option("--episodes", help="Episodes to convert, e.g. 0:50,60; all by default.")
@click.option(
    "--hold-out",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="Put this share of the episodes, spread evenly, into a second dataset, DST-val.",
)
@click.option(
    "--shift-actions",
    "shift",
    type=int,
    default=0,
    metavar="ROWS",
    help="Move actions so many rows of SRC later, negative for earlier; see: data check.",
)
@click.option("--lossless", is_flag=True, help="Store PNG pictures in place of a video.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--resume", is_flag=True, help="Continue an interrupted conversion.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@quiet_option
def convert(source: Path, target: Path, **options: Any) -> None:
    """Convert SRC, recorded data of any format, into DST, a clean LeRobot v3 dataset.

    Actions are bit for bit those of SRC where the rate stays. DST appears once complete; an
    interrupted conversion keeps its finished episodes in a hidden folder beside it, and --resume
    continues it, with the same files as without interruption.
    """
    from jetsight_train.record.staging import finished

    def advice() -> str:
        return (
            f"{finished(target)} episodes are kept; run the same command with --resume to continue"
        )

    with interruption_advice(advice):
        _convert(source, target, options)


def _convert(source: Path, target: Path, options: dict[str, Any]) -> None:
    from jetsight.datasets.dataset import FeatureMap
    from jetsight.storage import atomic
    from jetsight_train.conversion.convert import convert as run
    from jetsight_train.conversion.plan import check_space, plan_conversion
    from jetsight_train.conversion.recipe import ConversionOptions
    from jetsight_train.record.staging import finished

    if not options["resume"]:
        atomic.refuse_used(target)
    if source.resolve() == target.resolve():
        raise UsageError(f"SRC and DST are both {source}; choose another DST")
    size = options["size"]
    keys = ("hz", "actions", "crop", "episodes", "hold_out", "shift", "lossless")
    wanted = ConversionOptions(
        features=FeatureMap.parse(options["pairs"], options["cameras"]),
        size_hw=size and size[::-1],
        **{key: options[key] for key in keys},
    )
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    plan = plan_conversion(source, wanted)
    check_space(plan, target)
    total = len(plan.recipe.episodes) + len(plan.held_out)
    kept = finished(target) if options["resume"] else 0
    with Progress("convert", total, "episode", initial=kept) as shown:
        how = {key: options[key] for key in ("workers", "resume")}
        results = run(plan, target, progress=shown.update, **how)
    seconds = (clock.now_ns() - start_ns) / 1e9
    if options["as_json"]:
        rows = [asdict(result) | {"path": str(result.path)} for result in results]
        click.echo(json.dumps({"seconds": round(seconds, 2), "datasets": rows}))
        return
    for result in results:
        click.echo(_line(result))
    episodes = sum(result.episodes - result.resumed for result in results)
    click.echo(f"{seconds:.1f} s, {seconds / max(episodes, 1):.2f} s per episode")
    click.echo(f"next: jetsight recipe new --data {target}")


def _line(result: ConvertedDataset) -> str:
    text = f"{result.path}: {result.episodes} episodes, {result.frames} frames"
    if result.resumed:
        text += f" ({result.resumed} episodes of an earlier run)"
    if result.most_levels:
        text += f"; stored pixels differ by {result.mean_levels:.1f} of 255 levels on average, at "
        text += f"most {result.most_levels}"
    if result.offset_s > 1e-3:
        text += f"; frames are at most {1e3 * result.offset_s:.0f} ms off their tick"
    return text
