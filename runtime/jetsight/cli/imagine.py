"""`jetsight imagine BUNDLE`: make one plan, and show its iterations and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from jetsight.bundle.planner_spec import MOST_ITERATIONS
from jetsight.cli.dataset_options import dataset_options
from jetsight.cli.table import fields, table
from jetsight.plan_report.report import PlanReport, as_json
from jetsight.planning.plan import BROKEN_COST, PlanReason
from jetsight.progress import Progress

_SHOWN_ITERATIONS = 10
_PARTS = ("goal", "noise", "result", "iterations")
_WHY = {
    PlanReason.DEADLINE: "the budget is shorter than one iteration; raise --budget-ms",
    PlanReason.INFEASIBLE: "every candidate violates a constraint; the scene or the goal may be "
    "inside a hazard, see what --no-constraint finds",
    PlanReason.ALL_INVALID: "no candidate has a finite cost; try another --family",
    PlanReason.GOAL_NOT_FINITE: "the goal's latent is not finite; try another --family",
    PlanReason.LATENT_NOT_FINITE: "a latent of the frames is not finite; try another --family",
    PlanReason.STATE_UNKNOWN: "the state beside this frame is no finite number; give another",
    PlanReason.ACTIONS_UNKNOWN: "the actions before this frame were not recorded",
    PlanReason.ENGINE_FAILED: "the engine failed; see: jetsight doctor",
    PlanReason.PLAN_REFUSED: "the result is not finite or violates the limits",
}
_FRAME = "an image, IMG,IMG of several cameras, or DATASET#EPISODE:TICK for a recorded tick"


@click.command(short_help="Plan actions towards a goal, once.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--frame", required=True, metavar="IMG", help=f"Current camera frame: {_FRAME}.")
@click.option("--goal", metavar="IMG", help=f"Camera frame at the end: {_FRAME}.")
@click.option(
    "--probe-goal",
    "targets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value that a quantity of the probe should have at the end; repeatable.",
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
@click.option("--state", metavar="X,Y", help="State beside images, for a model that reads one.")
@click.option("--goal-state", metavar="X,Y", help="State beside the image of --goal.")
@click.option("--planner", metavar="NAME", help="Graph to plan with.  [default: the first]")
@click.option(
    "--iterations",
    type=click.IntRange(1, MOST_ITERATIONS),
    help="Number of iterations.  [default: until the search has converged]",
)
@click.option("--budget-ms", type=float, help="Plan until this deadline.")
@click.option(
    "--arrive",
    type=click.IntRange(min=1),
    metavar="TICKS",
    help="Time at which to be at the goal, and to stay.  [default: the end of the horizon]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise.")
@click.option("--low", metavar="X,Y", help="Smallest action, inside the robot's own bounds.")
@click.option("--high", metavar="X,Y", help="Largest action.")
@click.option("--no-constraint", is_flag=True, help="Plan without the bundle's hazards.")
@click.option("--resize", is_flag=True, help="Resize frames of another size than the model's.")
@dataset_options
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
@click.option("--json", "json_wanted", is_flag=True, help="Print everything as one JSON object.")
def imagine(bundle: Path, picture: Path | None, json_wanted: bool, **options: Any) -> None:
    """Plan from a camera frame towards a goal, once, and show the planner's iterations.

    A frame alone means a scene at rest; a recorded tick has its history and the actions that were
    really executed. Exit code 11 means that there is no plan, for the reason printed.
    """
    from jetsight.bundle.bundle import Bundle
    from jetsight.cli import NO_PLAN
    from jetsight.plan_report import figure
    from jetsight.plan_report.run import OfflinePlanArgs, plan_once

    if picture is not None:
        figure.check(picture)  # before the plan, which may take long
    report, shown = plan_once(Bundle.open(bundle), OfflinePlanArgs(**options), _progress)
    if picture is not None:
        figure.write(picture, report, shown)
    if json_wanted:
        click.echo(json.dumps(as_json(report)))
    else:
        click.echo("\n".join(describe(report)))
        if picture is not None:
            click.echo(f"look at {picture}")
    if not report.plan.valid:
        click.get_current_context().exit(NO_PLAN)


@contextmanager
def _progress(frames: int) -> Iterator[Callable[[int], None]]:
    """Show the progress while a library is encoded."""
    with Progress("encode library", frames, "frame") as shown:
        yield shown.update


def describe(report: PlanReport) -> Iterator[str]:
    """Render a plan as readable lines."""
    ran_on, blocks, (start, goal) = report.ran_on, report.facts.horizon, report.told
    yield (
        f"{ran_on.bundle}: {report.facts.graph} on {ran_on.backend} {ran_on.family} "
        f"({ran_on.precision}), {blocks} blocks of {report.block} actions, "
        f"{blocks * report.block / report.hz:g} s ahead"
    )
    yield f"from {start}"
    yield f"to   {goal}"
    if report.plan.actions is not None:
        yield ""
        yield from _blocks(report, report.plan.actions)
    if report.plan.iterations:
        yield ""
        yield from _iterations(report)
    yield ""
    yield from fields(_verdict(report))


def _blocks(report: PlanReport, actions: Any) -> Iterator[str]:
    """Format first and last action of each block, and its distance to the goal."""
    block, action = report.block, report.action
    far, near = report.distances, report.neighbours
    named = zip(action.names, action.units, strict=True)
    head = ["block", "seconds", *(f"{n} ({u})" if u else n for n, u in named)]
    head += ["to goal"] * (far is not None) + ["looks like"] * bool(near)
    rows = []
    for k in range(report.facts.horizon):
        row = [str(k + 1), "-".join(f"{t * block / report.hz:.3g}" for t in (k, k + 1))]
        for i, (low, high) in enumerate(zip(action.low, action.high, strict=True)):
            ends = (actions[t, i] for t in (k * block, (k + 1) * block - 1))
            row.append(" .. ".join(_number(value, high - low) for value in ends))
        row += [] if far is None else [f"{far[k]:.4g}"]
        row += [f"{near[k].episode}:{near[k].tick}, {near[k].distance:.2f} off"] if near else []
        rows.append(row)
    yield from table(head, rows)
    if near:
        yield f"looks like: episode:tick of {report.library}; off: RMS, in spreads of the latent"


def _iterations(report: PlanReport) -> Iterator[str]:
    plan = report.plan
    # Fewer iterations repeat numbers.
    shown = np.unique(np.linspace(0, plan.iterations - 1, _SHOWN_ITERATIONS).round().astype(int))
    rows = [(str(i + 1), _cost(plan.costs[i]), f"{100 * plan.spread[i]:.1f} %") for i in shown]
    return table(("iteration", "best cost", "spread"), rows)


def _verdict(report: PlanReport) -> Iterator[tuple[str, str]]:
    plan = report.plan
    if plan.iterations:
        parts = " + ".join(f"{value:.4g} {name}" for name, value in report.cost_parts.items())
        yield "cost", _cost(plan.cost) + (f" = {parts}" if parts else "")
        yield "constraint", _constraint(report)
        tried = plan.iterations * report.facts.samples
        yield "candidates", f"{tried} tried, {plan.invalid} invalid"
    far, now = report.distances, report.distance_now
    if far is not None and now is not None:
        end = float(far[-1])
        share = (
            f", {100 * end / now:.3g} % of it" if end <= now and now > 0 else ", which is farther"
        )
        yield "to goal", f"{now:.4g} now, {end:.4g} at the imagined end{share}"
    yield "time", _times(report)
    if not plan.valid:
        yield "no plan", f"{plan.reason}: {_WHY.get(plan.reason, 'see docs/imagination.md')}"


def _constraint(report: PlanReport) -> str:
    if not report.constrained:
        return "none"
    if report.plan.violation > 0:
        return f"violated by {report.plan.violation:.3g}"
    refused = int(report.refused.sum())
    return f"kept; {refused} of the last {len(report.refused)} candidates violate it"


def _times(report: PlanReport) -> str:
    plan = report.plan
    words = [f"{n} {plan.parts_ms[n]:.2f}" for n in _PARTS if n in plan.parts_ms]
    work_ms = plan.parts_ms.get("iterations", 0.0)
    each = f", {work_ms / plan.iterations:.2f} each" if plan.iterations else ""
    return (
        f"{plan.planned_ms:.2f} ms: {', '.join(words) or 'nothing ran'} ({plan.iterations}{each})"
    )


def _cost(value: float) -> str:
    return f"{value:.4g}" if value < BROKEN_COST else "invalid"


def _number(value: float, span: float) -> str:
    """Format with the decimals of a thousandth of the span."""
    return f"{value:.{max(0, 3 - math.floor(math.log10(span)))}f}"
