"""`jetsight collect`: record a Gymnasium environment as a LeRobot v3 dataset."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from jetsight.cli.options import quiet_option
from jetsight.clock import MonotonicClock
from jetsight.progress import Progress
from jetsight.signals import interruption_advice


class Size(click.ParamType):
    """WIDTHxHEIGHT in pixels."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Convert `"96x64"` to (96, 64)."""
        parts = str(value).lower().split("x")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is not a size, expected for example 96x96", param, ctx)
        return int(parts[0]), int(parts[1])


class Names(click.ParamType):
    """Names separated by commas."""

    name = "A,B,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Convert `"v,w"` to ("v", "w"), and nothing to ()."""
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",")) if value else ()


_RECIPE = ("episodes", "steps", "seed", "policy", "fps", "cameras", "action_names")
_RECIPE += ("action_units", "keep")


@click.command()
@click.argument("env_id")
@click.option("--out", required=True, type=click.Path(), help="Dataset folder to create.")
@click.option("--episodes", default=10, show_default=True, help="Number of episodes.")
@click.option("--steps", default=200, show_default=True, help="Longest episode, in frames.")
@click.option("--seed", default=0, show_default=True, help="Base seed of all randomness.")
@click.option(
    "--policy",
    default="scripted",
    show_default=True,
    metavar="NAME",
    help="scripted, random, or your own as MODULE:FUNCTION or FILE.py:FUNCTION, called as "
    "function(observation, rng).",
)
@click.option("--size", type=Size(), default="96x96", show_default=True, help="Frame size.")
@click.option(
    "--fps",
    type=click.FloatRange(min=0.01, max=1000),
    help="Frame rate of an environment whose metadata declares none.",
)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="KEY",
    help="Observation to take frames from, like pixels.top, or render; again for each further "
    "camera. [default: the only picture, else the render]",
)
@click.option(
    "--action-names",
    type=Names(),
    default="",
    help="Of the action's dimensions, like v,w. [default: those of the environment's metadata]",
)
@click.option(
    "--units",
    "action_units",
    type=Names(),
    default="",
    help="One per action name, like m/s,rad/s. [default: those of the metadata]",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="info.KEY",
    help="Entry of info to keep as a column: a truth value or a number; again for each further.",
)
@click.option("--workers", default=1, show_default=True, help="Processes that record.")
@click.option("--resume", is_flag=True, help="Continue an interrupted recording.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@quiet_option
def collect(env_id: str, out: str, **options: Any) -> None:
    """Record ENV_ID, any Gymnasium environment with pixels, as a LeRobot v3 dataset.

    MODULE:ID or FILE.py:ID imports the module that registers the id first. Names, units and kept
    info come from the environment's metadata (action_names, action_units, state_names,
    state_units, keep), or from the options. Frames of another size than --size are resized by
    area averaging, as in jetsight run and jetsight eval.

    An interrupted recording keeps its finished episodes in a hidden folder beside OUT; --resume
    continues it, with the same result as without interruption. OUT appears once complete.
    """
    from jetsight_train.record.episode import RecordingRecipe
    from jetsight_train.record.staging import finished

    width, height = options["size"]
    recipe = RecordingRecipe(
        env_id,
        height_px=height,
        width_px=width,
        **{name: options[name] for name in _RECIPE},
    )

    def advice() -> str:
        return (
            f"{finished(out)} of {recipe.episodes} episodes are kept; run the same command with "
            "--resume to continue"
        )

    with interruption_advice(advice):
        _run(recipe, out, options)


def _run(recipe: Any, out: str, options: dict[str, Any]) -> None:
    from jetsight.datasets.lerobot import LeRobotDataset
    from jetsight_train.record.collect import collect as record
    from jetsight_train.record.staging import finished

    clock = MonotonicClock()
    start_ns = clock.now_ns()
    kept = finished(out) if options["resume"] else 0
    with Progress("record", recipe.episodes, "episode", initial=kept) as shown:
        how = {name: options[name] for name in ("workers", "resume")}
        result = record(recipe, out, progress=shown.update, **how)
    took_s = (clock.now_ns() - start_ns) / 1e9
    if options["as_json"]:
        digest = LeRobotDataset.open(result.path, result.cameras[0]).digest()
        row = asdict(result) | {"path": str(result.path), "seconds": took_s, "sha256": digest}
        click.echo(json.dumps(row))
        return
    click.echo(
        f"{result.path}: {result.episodes} episodes, {result.frames} frames in {took_s:.0f} s"
        + (f" ({result.resumed} episodes of an earlier run)" if result.resumed else "")
    )
