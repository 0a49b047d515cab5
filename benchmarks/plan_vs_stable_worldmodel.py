"""One CEM plan, jetsight against stable-worldmodel's own solver, in one run on one machine.

LeWorldModel's geometry with random weights, identical draws for all, 300 samples, 30
iterations, 5 blocks of 5 two-dimensional actions, 30 elites, a history of one frame. Every
contestant plans once per round, in an order that rotates; first plans stand apart. Needs an
environment of its own, which `make bench-plan` makes.
"""

from __future__ import annotations

import json

import click
from planrace.problem import lewm_problem

from jetsight.clock import MonotonicClock
from jetsight.errors import JetsightError
from jetsight.machine.cpu import default_threads
from jetsight_compile.bench.report import header
from jetsight_compile.pipeline.environment import machine_spec, versions

_ROUNDS, _QUICK_ROUNDS, _QUICK_ITERATIONS = 7, 2, 4


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), help="Plans per contestant.  [default: 7]")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of every contestant.  [default: one per physical core]",
)
@click.option("--quick", is_flag=True, help="Few rounds of few iterations: shows that it works.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def main(rounds: int | None, threads: int | None, quick: bool, as_json: bool) -> None:
    """Race CEM planners on this machine, which should have nothing else to do.

    Where it has, --threads 1 and the processor time of a plan are what can be compared. A missed
    bar is printed as MISSED; missing one is no error. Takes about ten minutes on two quiet cores,
    two of them torch.compile.
    """
    from planrace import report
    from planrace.run import run

    machine = machine_spec()  # first, while the load is still that of others
    threads = threads or default_threads()
    problem = lewm_problem(_QUICK_ITERATIONS if quick else 30)
    rounds = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    try:
        found = run(
            problem, threads, rounds, MonotonicClock(), lambda text: click.echo(text, err=True)
        )
    except JetsightError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        facts = {"machine": machine, "versions": versions(), "threads": threads, "quick": quick}
        click.echo(json.dumps({**facts, **report.as_dict(found)}, indent=2))
        return
    for line in header(machine, versions(), threads):
        click.echo(line)
    if quick:
        click.echo("QUICK: too few iterations and rounds for numbers to be quoted")
    for line in report.lines(found):
        click.echo(line)


if __name__ == "__main__":
    main()
