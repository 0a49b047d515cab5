"""`jetsight bench-compile`: build cost and numerical loss of every TensorRT family."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jetsight_compile.config.precision import METHODS

_PATH = click.Path(path_type=Path)


@click.command("bench-compile", short_help="Measure what each TensorRT family costs and loses.")
@click.option(
    "--checkpoint", type=_PATH, help="Checkpoint to compile.  [default: the shipped pusht-nano]"
)
@click.option(
    "--data",
    type=_PATH,
    help="LeRobot dataset: half calibrates, half is held out.  [default: calib_data/pusht]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("orin-jp6", "thor-jp7"),
    show_default=True,
    metavar="NAME",
    help="TensorRT rows of `jetsight targets`; repeatable.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    help="Calibration methods to try.  [default: all]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def bench_compile(
    checkpoint: Path | None,
    data: Path | None,
    targets: tuple[str, ...],
    methods: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile a model for TensorRT in every precision and print cost and loss.

    Per family: build seconds, engine bytes, layers, Q/DQ nodes, and every gate beside the negative
    control that must fail. A family that fails a gate is a result here, not an error. TensorRT-RTX
    needs no GPU for it. Takes about five minutes for the shipped model.
    """
    from jetsight_compile.bench.precision_table import lines, measure
    from jetsight_compile.pipeline.shipped import find_checkpoint, find_data

    results = measure(
        find_checkpoint(checkpoint),
        find_data(data),
        targets,
        methods or METHODS,
        lambda stage: click.echo(f"  {stage}", err=True),
    )
    click.echo(json.dumps(results.as_dict()) if as_json else "\n".join(lines(results)))
