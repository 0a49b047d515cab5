"""`jetsight demo`: compile the shipped model, stream held-out episodes, report."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from jetsight.cli.dataset_options import dataset_options
from jetsight.datasets.dataset import FeatureMap

_PATH = click.Path(path_type=Path)


@click.command(short_help="Compile, stream and report, in one go.")
@click.option(
    "--out",
    type=_PATH,
    default=Path("build/demo"),
    show_default=True,
    help="Folder for report.html, report.json and the bundle.",
)
@click.option(
    "--checkpoint", type=_PATH, help="Checkpoint folder.  [default: the shipped pusht-nano]"
)
@click.option(
    "--data",
    type=_PATH,
    help="Recorded dataset to calibrate on and to stream.  [default: calib_data/pusht]",
)
@dataset_options
@click.option("--backend", help="onnxruntime or openvino.  [default: the fastest installed]")
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=270,
    show_default=True,
    help="Frames to stream, including the planted change of scene.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of a summary.")
def demo(
    out: Path,
    checkpoint: Path | None,
    data: Path | None,
    features: FeatureMap,
    backend: str | None,
    frames: int,
    as_json: bool,
) -> None:
    """Compile pusht-nano to cpu-int8, stream held-out episodes at camera rate, and report.

    One unannounced change of scene is planted; surprise has to detect it. Every measurement has its
    negative control in the report. Takes about a minute.
    """
    import json

    from jetsight_compile.demo.run import summary_lines, tour

    say = functools.partial(click.echo, err=True)
    report = tour(out, checkpoint, data, backend=backend, frames=frames, features=features, say=say)
    text = json.dumps(report, indent=2) if as_json else "\n".join(summary_lines(report, out))
    click.echo(text)
