"""`jetsight imagine BUNDLE`: one plan, with everything that led to it, and a picture of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from jetsight.planner_facts import MOST_ITERATIONS

_MOMENT = "an image, or DATASET#EPISODE:TICK for a recorded moment"


@click.command(short_help="Plan actions towards a goal, once.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--frame", required=True, metavar="IMG", help=f"What the camera sees: {_MOMENT}.")
@click.option("--goal", metavar="IMG", help=f"What it shall see at the end: {_MOMENT}.")
@click.option(
    "--probe-goal",
    "targets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value that a quantity of the probe shall have at the end; repeatable.",
)
@click.option(
    "--history",
    multiple=True,
    metavar="IMG",
    help="Image before --frame, one block apart; repeat, oldest first.  [default: a scene at rest]",
)
@click.option(
    "--last-action", metavar="X,Y", help="Action held until now.  [default: the neutral one]"
)
@click.option("--planner", metavar="NAME", help="Graph to plan with.  [default: the first]")
@click.option(
    "--iterations",
    type=click.IntRange(1, MOST_ITERATIONS),
    help="Exactly so many.  [default: until the search has converged]",
)
@click.option("--budget-ms", type=float, help="Plan until this deadline.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of draws.")
@click.option("--low", metavar="X,Y", help="Smallest action, inside the robot's own bounds.")
@click.option("--high", metavar="X,Y", help="Largest action.")
@click.option("--no-constraint", is_flag=True, help="Do not heed the bundle's hazards.")
@click.option("--resize", is_flag=True, help="Resize frames of another size than the model's.")
@click.option(
    "--library",
    type=click.Path(path_type=Path),
    metavar="DATASET",
    help="Recorded frames that show what the imagined path looks like.",
)
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Write a .png, .svg or .pdf of it."
)
@click.option("--backend", help="As in `jetsight run`.")
@click.option("--family", help="As in `jetsight run`.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def imagine(bundle: Path, picture: Path | None, as_json: bool, **options: Any) -> None:
    """Plan from a camera frame towards a goal, once, and show how the planner got there.

    A frame alone means a scene at rest; a recorded moment comes with its history and the actions
    that were really executed. Exit code 11 means that there is no plan, for the reason printed.
    """
    from jetsight import plan_picture, plan_report
    from jetsight.bundle import Bundle
    from jetsight.cli import NO_PLAN
    from jetsight.plan_desk import Wishes, plan_once

    if picture is not None:
        plan_picture.check(picture)
    report, shown = plan_once(Bundle.open(bundle), Wishes(**options), _progress)
    if picture is not None:
        plan_picture.write(picture, report, shown)
    if as_json:
        click.echo(json.dumps(plan_report.as_json(report)))
    else:
        click.echo("\n".join(plan_report.lines(report)))
        if picture is not None:
            click.echo(f"look at {picture}")
    if not report.plan.valid:
        click.get_current_context().exit(NO_PLAN)


@contextmanager
def _progress(frames: int) -> Iterator[Callable[[int], None]]:
    """A bar while a library is encoded; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=frames, label="encode library", file=sys.stderr) as bar:
        yield bar.update
