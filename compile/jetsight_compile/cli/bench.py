"""`jetsight bench`: this machine, jetsight and torch in one run, as ratios with their bars."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Measure this machine against torch.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Recipe to race with random weights, or 'shipped'.  [default: shipped and lewm]",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Checkpoint that stands for 'shipped'.  [default: pusht-nano]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="LeRobot dataset to take frames from.  [default: calib_data/pusht]",
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
    """Race encoders against torch eager and torch.compile, and check the project's promises.

    Contestants take turns in one run with the same frames and the same number of threads, on a
    machine that should have nothing else to do. First calls stand in a column of their own. A
    missed bar is printed as MISSED; missing one is no error. Takes about three minutes, half of it
    torch.compile.
    """
    import json

    from jetsight_compile.bench.session import bench_session, report_lines

    found = bench_session(
        models, checkpoint, data, threads, quick=quick, say=lambda text: click.echo(text, err=True)
    )
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(report_lines(found)))
