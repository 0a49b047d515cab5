"""`jetsight eval`: measure a bundle in closed loop, beside PyTorch and baselines."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jetsight.cli.dataset_options import map_option
from jetsight.cli.options import quiet_option
from jetsight.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jetsight_compile.closed_loop.config import EvalConfig
    from jetsight_compile.closed_loop.rollout import EpisodeResult
    from jetsight_compile.closed_loop.runner import Evaluated

_FILMS = 4  # episodes in the video
_PATH = click.Path(path_type=Path)


@click.command("eval", short_help="Let a bundle act in a simulator.")
@click.argument("bundle", type=click.Path())
@click.option(
    "--env", "env_id", default="gym_pusht/PushT-v0", show_default=True, help="Gymnasium id."
)
@click.option(
    "--camera",
    "env_cameras",  # those of a dataset for --video are given with --map
    multiple=True,
    metavar="KEY",
    help="Observation to take frames from, like pixels.top, or render; again for each further "
    "camera. [default: those of the model, else the only picture, else the render]",
)
@click.option(
    "--success",
    metavar="FORMULA",
    help="What success is, like 'hypot(x - goal_x, y - goal_y) < 0.1', or MODULE:FUNCTION.  "
    "[default: the environment's own]",
)
@click.option(
    "--driver",
    default="scripted",
    show_default=True,
    metavar="POLICY",
    help="Policy that reaches starts and goals: scripted, random or MODULE:FUNCTION.",
)
@click.option(
    "--goal-ticks",
    default=25,
    show_default=True,
    metavar="TICKS",
    help="From start to goal in the driver's episode.",
)
@click.option("--ticks", default=50, show_default=True, help="To reach the goal in.")
@click.option("--episodes", default=100, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Base seed of all randomness.")
@click.option("--against", metavar="CKPT", help="Checkpoint to run beside it in PyTorch.")
@click.option("--baselines/--no-baselines", default=True, help="No-op, random, replay; on.")
@click.option("--keep-out", is_flag=True, help="Measure violations with and without constraint.")
@click.option(
    "--constrain/--no-constrain", default=None, help="Respect hazards.  [default: with --keep-out]"
)
@click.option("--region", metavar="X,Y,RADIUS", help="Of the hazard, in units of the state.")
@click.option(
    "--region-columns", metavar="X,Y", help="State columns that hold the robot's position."
)
@click.option("--planner", metavar="NAME", help="Graph to plan with.  [default: the first]")
@click.option("--iterations", type=int, help="Planner iterations.  [default: the planner's own]")
@click.option("--budget-ms", type=float, help="Plan until this deadline instead.")
@click.option(
    "--replan-every",
    type=int,
    default=1,
    show_default=True,
    metavar="TICKS",
    help="Ticks of a plan that are executed before the next one.",
)
@click.option(
    "--arrive",
    metavar="TICKS",
    type=click.IntRange(min=0),
    help="Ticks until the goal is due, counted over plans, then at once; 0: a horizon after each.  "
    "[default: --goal-ticks]",
)
@click.option("--workers", default=1, show_default=True, help="Processes that share episodes.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of each engine.")
@click.option("--backend", help="As in `jetsight run`.")
@click.option("--family", help="As in `jetsight run`.")
@click.option("--data", type=_PATH, help="Recorded dataset for --video.")
@map_option
@click.option("--video", type=_PATH, help="MP4 of the first episodes.")
@click.option("--out", type=_PATH, help="Results as a JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@quiet_option
def eval_(video: Path | None, out: Path | None, **options: Any) -> None:
    """Let BUNDLE act in a live simulator: camera frames in, plans out, success counted.

    Each episode starts in a state that a driver reached in an episode outside the training data;
    the goal is the driver's camera frame 25 ticks later. Success is what --success says, at any of
    50 ticks: a formula over the state, the same names at the goal with goal_ in front, info.NAME,
    and what the bundle's probe reads; angle() takes a difference of angles the short way round.
    PushT has its own: agent and block within 20 px and the block's angle within 20 degrees. Every
    arm starts from the same states, bit for bit, and PyTorch draws the same noise.
    """
    from jetsight.storage import atomic, strict_json
    from jetsight_compile.closed_loop.report import report_lines
    from jetsight_compile.closed_loop.runner import evaluate
    from jetsight_compile.closed_loop.video import Studio

    data, as_json = options.pop("data"), options.pop("as_json")
    # The dataset of the video names its cameras otherwise: --map camera=KEY.
    features, options["cameras"] = options.pop("features"), options.pop("env_cameras")
    settings = _settings(options, films=_FILMS if video else 0)
    for path, option in ((out, "--out"), (video, "--video")):
        _check_place(path, option)
    studio = None if video is None else Studio.open(settings, video, data, features)
    with _progress(settings.episodes) as progress:
        evaluation: Evaluated = evaluate(settings, progress)
    file = strict_json.dump(evaluation.results)
    # Printed before any file is written: a full disk must not cost an hour of simulation.
    click.echo(
        file.decode() if as_json else "\n".join(report_lines(evaluation.results)), nl=not as_json
    )
    if out is not None:
        atomic.write_file(out, file)
    if studio is not None:
        studio.publish(evaluation.films, evaluation.task, evaluation.region)
    for path in (out, video):
        if path is not None and not as_json:
            click.echo(f"look at {path}")


def _check_place(path: Path | None, option: str) -> None:
    """Refuse a path now that could not be written after the evaluation."""
    from jetsight.errors import StorageError

    if path is None:
        return
    if path.is_dir():
        raise StorageError(f"{path} is a folder, expected a file name for {option}")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"cannot write into {folder}; give a file in a writable folder with {option}"
        )


def _settings(options: dict[str, Any], films: int) -> EvalConfig:
    from jetsight_compile.closed_loop.config import EvalConfig, PlanOptions
    from jetsight_compile.closed_loop.tasks.region import Region

    names = ("planner", "iterations", "budget_ms", "replan_every", "arrive", "constrain")
    plan = {name: options.pop(name) for name in names}
    # Without a keep-out region the task has nothing that a hazard represents.
    if plan["constrain"] is None:
        plan["constrain"] = options["keep_out"]
    if plan["arrive"] is None:
        plan["arrive"] = options["goal_ticks"]
    options["cameras"] = options.pop("env_cameras")
    columns = options.pop("region_columns")
    options["region_columns"] = (
        () if columns is None else tuple(name.strip() for name in columns.split(","))
    )
    text = options.pop("region")
    region = None if text is None else Region.parse(text)
    return EvalConfig(**options, films=films, use=PlanOptions(**plan), region=region)


@contextmanager
def _progress(episodes: int) -> Iterator[Callable[[Sequence[EpisodeResult]], None]]:
    """Show the progress with the successes so far."""
    solved: dict[str, int] = {}
    with Progress("evaluate", episodes, "episode") as shown:

        def show(rows: Sequence[EpisodeResult]) -> None:
            for row in rows:
                solved[row.arm] = solved.get(row.arm, 0) + row.success
            shown.update(notes=solved)

        yield show
