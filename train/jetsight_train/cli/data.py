"""`jetsight data`: check recorded data of any format, and convert it to a clean dataset."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jetsight.clock import MonotonicClock
from jetsight.errors import UsageError
from jetsight_train.cli.collect import Size

if TYPE_CHECKING:
    from jetsight_train.curation.convert import ConvertedDataset

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
@click.option("--camera", "cameras", multiple=True, help="Camera to keep; repeat for several.")
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
    "--times",
    type=click.Choice(["recorded", "even"]),
    default="recorded",
    show_default=True,
    help="Place rows by their time stamps, or evenly by the declared rate.",
)
@click.option("--lossless", is_flag=True, help="Store PNG pictures in place of a video.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--resume", is_flag=True, help="Continue an interrupted conversion.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def convert(source: Path, target: Path, **options: Any) -> None:
    """Convert SRC, recorded data of any format, into DST, a clean LeRobot v3 dataset.

    Actions are bit for bit those of SRC where the rate stays. DST appears once complete; an
    interrupted conversion keeps its finished episodes in a hidden folder beside it, and --resume
    continues it, with the same files as without interruption.
    """
    from jetsight_train.record.staging import finished

    try:
        _convert(source, target, options)
    except KeyboardInterrupt:
        click.echo(
            f"jetsight: error: interrupted; {finished(target)} episodes are kept; "
            "run the same command with --resume to continue",
            err=True,
        )
        sys.exit(130)


def _convert(source: Path, target: Path, options: dict[str, Any]) -> None:
    from jetsight.datasets.dataset import FeatureMap
    from jetsight.storage import atomic
    from jetsight_train.curation.conversion import (
        ConversionOptions,
        check_space,
        plan_conversion,
    )
    from jetsight_train.curation.convert import convert as run
    from jetsight_train.progress import episode_bar

    if not options["resume"]:
        atomic.refuse_used(target)
    if source.resolve() == target.resolve():
        raise UsageError(f"SRC and DST are both {source}; choose another DST")
    size = options["size"]
    keys = ("hz", "actions", "crop", "episodes", "hold_out", "times", "lossless")
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
    with episode_bar(total, "train", "converting a dataset") as bar:
        how = {key: options[key] for key in ("workers", "resume")}
        results = run(plan, target, progress=bar.update, **how)
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
