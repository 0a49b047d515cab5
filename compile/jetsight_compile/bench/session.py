"""One benchmark from start to finish: choose models, compile, measure, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jetsight.machine.cpu import default_threads
from jetsight_compile.bench import report
from jetsight_compile.bench.contestants import Subject, gemm_flop
from jetsight_compile.bench.models import recipe_subject, trained_subject
from jetsight_compile.bench.run import QUICK, BenchResults, Effort, run_bench
from jetsight_compile.pipeline.environment import machine_spec, versions
from jetsight_compile.pipeline.shipped import compile_model, find_checkpoint, find_data
from jetsight_train.checkpoint import load as load_checkpoint
from jetsight_train.recipe import load_recipe

SHIPPED = "shipped"


@dataclass(frozen=True)
class Measured:
    """Results, and the machine and versions they were measured with."""

    machine: dict[str, Any]
    versions: dict[str, str]
    threads: int
    quick: bool
    results: BenchResults

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `--json`."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "threads": self.threads,
            "quick": self.quick,
            **self.results.as_dict(),
        }


def bench_session(
    models: Sequence[str] = (),
    checkpoint: Path | None = None,
    data: Path | None = None,
    threads: int | None = None,
    *,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Measure the given models.

    Args:
        models: `"shipped"`, or names of recipes; none for the shipped model and LeWM's geometry.
        checkpoint: the model `"shipped"`; None for pusht-nano.
        data: dataset of the frames; None for `calib_data/pusht`.
        threads: None for one per physical core.
        quick: a tenth of the rounds.
        say: called with a line about each step.

    Raises:
        CheckpointError: the checkpoint was refused.
        DataError: the dataset is missing or unreadable.
        UsageError: there is no such recipe.
        EngineError: a measuring process failed.
    """
    machine = machine_spec()  # first: later the load would include the benchmark itself
    folder, source = find_checkpoint(checkpoint), find_data(data)
    threads = threads or default_threads()
    load_checkpoint(folder)  # refuses a bad checkpoint now, not after a minute
    models = models or (SHIPPED, "lewm")
    for name in set(models) - {SHIPPED}:
        load_recipe(name)
    subjects: list[Callable[[], Subject]] = [
        partial(trained_subject, folder, source)
        if model == SHIPPED
        else partial(recipe_subject, model, source)
        for model in models
    ]
    with tempfile.TemporaryDirectory(prefix="jetsight-bench-") as scratch:
        say("compile a bundle to measure the memory of a streaming process")
        bundle = compile_model(folder, source, Path(scratch) / "bench.jetsight")
        effort = QUICK if quick else Effort()
        results = run_bench(subjects, bundle.path, threads, effort=effort, say=say)
    return Measured(machine, versions(), threads, quick, results)


def report_lines(measured: Measured) -> Iterator[str]:
    """Format the whole benchmark as text."""
    results = measured.results
    yield from report.header(measured.machine, measured.versions, measured.threads)
    if measured.quick:
        yield "QUICK: too few rounds for numbers to be quoted"
    peaks = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in results.peaks.items())
    yield ""
    yield f"peak in this run, 1024 x 1024 x 1024 product: {peaks}"
    yield from report.race_table(results.products, gemm_flop(), results.peaks)
    for each in results.races:
        yield ""
        yield f"encode one frame, {each.model}: {each.flop / 1e9:.3g} GFLOP"
        yield from report.race_table(each.timings, each.flop, results.peaks)
    yield ""
    yield from report.bar_table(results.rows())
