"""`jetsight bench`: measure jetsight and torch on this machine in one run, as ratios with bars."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(short_help="Measure this machine against torch.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Recipe to measure with random weights, or 'shipped'.  [default: shipped and lewm]",
)
@click.option(
    "--checkpoint", type=_PATH, help="Checkpoint used as 'shipped'.  [default: pusht-nano]"
)
@click.option(
    "--data", type=_PATH, help="LeRobot dataset to take frames from.  [default: calib_data/pusht]"
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of every contestant.  [default: one per physical core]",
)
@click.option("--quick", is_flag=True, help="A tenth of the rounds: shows that it works, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def bench(
    models: tuple[str, ...],
    checkpoint: Path | None,
    data: Path | None,
    threads: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Compare encoders with torch eager and torch.compile, and check the project's requirements.

    Contestants take turns in one run with the same frames and the same number of threads; close
    other programs first. First calls have a separate column. A missed bar is printed as MISSED and
    is not an error. Takes about three minutes, half of it torch.compile.
    """
    import json

    from jetsight_compile.bench.session import bench_session, report_lines

    results = bench_session(
        models, checkpoint, data, threads, quick=quick, say=lambda text: click.echo(text, err=True)
    )
    click.echo(
        json.dumps(results.as_dict(), indent=2) if as_json else "\n".join(report_lines(results))
    )
