"""The whole benchmark: encoders, loop, start and memory, in sequence on a quiet machine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jetsight.clock import Clock, MonotonicClock
from jetsight.testing.overhead import Overhead, loop_overhead
from jetsight_compile.bench import contestants as work
from jetsight_compile.bench import process, requirements
from jetsight_compile.bench.contestants import Subject, contestants, gemm_contestants, installed
from jetsight_compile.bench.requirements import BenchRow
from jetsight_compile.bench.timing import CallTimes, race
from jetsight_compile.export.onnx_graph import graph_flop

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """Duration of the measurements.

    Args:
        rounds: turns of each contestant in a race of encoders.
        budget_s: time for one such race.
        peak_rounds: turns in the race of large products.
        overhead_frames: frames through null engines.
        imports: processes that import jetsight.
    """

    rounds: int = 40
    budget_s: float = 60.0
    peak_rounds: int = 8
    overhead_frames: int = 2000
    imports: int = 15


QUICK = Effort(rounds=5, budget_s=10.0, peak_rounds=2, overhead_frames=300, imports=3)


@dataclass(frozen=True)
class EncodeRace:
    """Times of all contestants that encode frames of one model, and its arithmetic."""

    model: str
    flop: int
    timings: Mapping[str, CallTimes]


@dataclass(frozen=True)
class BenchResults:
    """All measurements of one run.

    Args:
        peaks: GFLOP/s of the best large product, by precision.
        products: times of the large products.
        races: encoder times, one per model.
        overhead: of the loop.
        imports: import times in ms.
        memory: MB by `backend family`.
    """

    peaks: Mapping[str, float]
    products: Mapping[str, CallTimes]
    races: Sequence[EncodeRace]
    overhead: Overhead
    imports: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, Mapping[str, Any]]

    def rows(self) -> list[BenchRow]:
        """Rate all requirements of the project."""
        encode = [requirements.encode_rows(each.model, each.timings) for each in self.races]
        return [
            *itertools.chain(*encode),
            *requirements.overhead_rows(self.overhead),
            *requirements.import_rows(self.imports),
            *requirements.memory_rows(self.memory),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `--json`."""
        return {
            "bars": [
                {**dataclasses.asdict(row), "met": row.met, "what": row.what.strip()}
                for row in self.rows()
            ],
            "encode": {
                each.model: {
                    "flop": each.flop,
                    "contestants": {name: t.as_dict() for name, t in each.timings.items()},
                }
                for each in self.races
            },
            "peak_gflops": dict(self.peaks),
            "peak_products": {name: t.as_dict() for name, t in self.products.items()},
            "overhead": dataclasses.asdict(self.overhead),
            "imports": self.imports,
            "memory": self.memory,
        }


def run_bench(
    subjects: Sequence[Callable[[], Subject]],
    bundle: Path,
    threads: int,
    *,
    effort: Effort | None = None,
    clock: Clock | None = None,
    say: Say = lambda text: None,
) -> BenchResults:
    """Measure encoders, loop, start and memory.

    Loop, start and memory are measured first, before torch has warmed the machine.

    Args:
        subjects: constructors of the models, called in turn.
        bundle: streamed to measure the memory of a process.
        threads: CPU threads of every contestant.
        effort: duration of the measurements.
        clock: time source.
        say: called with a line about each step.

    Raises:
        EngineError: a measuring process failed.
    """
    effort, clock = effort or Effort(), clock or MonotonicClock()
    torch.set_num_threads(threads)
    say("import time and memory, each in processes of their own")
    imports = process.import_times(effort.imports)
    memory = {
        f"{backend} {family}": process.session_memory(bundle, backend, family)
        for family in ("cpu-int8",)
        for backend in installed(family)
    }
    say("loop overhead with null engines")
    overhead = loop_overhead(frames=effort.overhead_frames)
    products = product_race(threads, effort, clock, say)
    races = []
    for make in subjects:
        subject = make()
        say(f"encode, {subject.name}")
        entered, rounds, budget_s = contestants(subject, threads), effort.rounds, effort.budget_s
        timings = race(entered, clock, rounds=rounds, budget_s=budget_s, say=say)
        flop = graph_flop(subject.graphs["cpu-fp32"])
        races.append(EncodeRace(subject.name, flop, timings))
    return BenchResults(peak_rates(products), products, races, overhead, imports, memory)


def product_race(threads: int, effort: Effort, clock: Clock, say: Say) -> dict[str, CallTimes]:
    """Time one large product with torch and with every backend."""
    say("peak: one 1024 x 1024 x 1024 product")
    pool = work.gemm_inputs(2)
    graphs = {"cpu-fp32": work.gemm_graph(int8=False), "cpu-int8": work.gemm_graph(int8=True)}
    entered = gemm_contestants(graphs, pool, threads)
    return race(entered, clock, rounds=effort.peak_rounds, inputs=len(pool), say=say)


def peak_rates(products: Mapping[str, CallTimes]) -> dict[str, float]:
    """Compute the best rate in GFLOP/s by precision; int8 operations count like float ones."""
    peaks: dict[str, float] = {}
    for name, timing in products.items():
        if timing.failed is None and timing.calls_ms.count:
            key = "int8" if name.endswith("int8") else "fp32"
            # The fastest call, not the median: a peak is an upper bound.
            peaks[key] = max(peaks.get(key, 0.0), work.gemm_flop() / timing.calls_ms.min / 1e6)
    return peaks
