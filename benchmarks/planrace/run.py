"""One race: prepare and compare all contestants, then plan in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from jetsight.clock import Clock
from jetsight.errors import first_line
from jetsight.histogram import Histogram
from jetsight_compile.bench.contestants import installed
from jetsight_compile.bench.run import QUICK, Effort, peak_rates, product_race
from planrace import flop, ours, profiles, theirs
from planrace.agreement import Agreement, agreement
from planrace.problem import Problem
from planrace.theirs import Solved

EAGER, COMPILED = "stable-worldmodel eager", "stable-worldmodel torch.compile"
_SETTLE_NS = 5_000_000  # thread pools spin for a while after their last task
_WARMUP_SEED = 999
_PROFILED = ("fp32", "int8")

Plan = Callable[[int], Solved]
Say = Callable[[str], None]


@dataclass
class Contestant:
    """One way to plan, and how it did.

    Attributes:
        name: e.g. `"jetsight openvino cpu-int8"`.
        precision: `"fp32"` or `"int8"`.
        flop: of one iteration.
        prepare: loads or compiles it.
        plans_ms: every plan that counts.
        iterations_ms: every iteration of these.
        busy_ms: processor time of every plan, all threads together; waiting costs none unless a
            thread waits actively, so with one thread other programs hardly change it.
        first_ms: loading, compiling and the first plan, which is in no other number.
        solved: the plans that count.
        agreed: how these compare with those of the first contestant.
        failed: why it could not take part.
    """

    name: str
    precision: str
    flop: int
    prepare: Callable[[], Plan]
    plans_ms: Histogram = field(default_factory=Histogram)
    iterations_ms: Histogram = field(default_factory=Histogram)
    busy_ms: Histogram = field(default_factory=Histogram)
    first_ms: float = 0.0
    solved: list[Solved] = field(default_factory=list)
    agreed: Agreement | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Results:
    """Everything that was measured.

    Attributes:
        api: interface of stable-worldmodel that was found.
        contestants: stable-worldmodel eager first.
        peaks: GFLOP/s of the best large product in this run, by precision.
        profiles: time by operator, by contestant.
    """

    api: str
    contestants: Sequence[Contestant]
    peaks: Mapping[str, float]
    profiles: Mapping[str, profiles.Shares]


def run(problem: Problem, threads: int, rounds: int, clock: Clock, say: Say) -> Results:
    """Measure everything on this machine.

    Args:
        problem: what to plan.
        threads: for every contestant.
        rounds: plans per contestant.
        clock: to time with.
        say: called with a line about each step.
    """
    torch.set_num_threads(threads)
    api = theirs.found_api()
    say("export and quantize our planner iteration")
    graph = ours.float_graph(problem)
    graphs = {
        "fp32": graph.SerializeToString(),
        "int8": ours.int8_graph(problem, graph).SerializeToString(),
    }
    entered = _theirs(problem, clock) + _ours(problem, graphs, flop.ours(graph), threads, clock)
    ready = _prepared(entered, clock, say)
    peaks = peak_rates(product_race(threads, QUICK if rounds < 5 else Effort(), clock, say))
    _race(entered, ready, rounds, clock, say)
    for contestant in entered:
        if contestant.solved:
            contestant.agreed = agreement(problem, entered[0].solved, contestant.solved)
    say("profile by operator")
    shares = {
        f"{backend} {precision}": profiles.by_operator(problem, graphs[precision], backend, threads)
        for precision in _PROFILED
        for backend in installed(f"cpu-{precision}")
    }
    return Results(api, entered, peaks, shares)


def _theirs(problem: Problem, clock: Clock) -> list[Contestant]:
    work = flop.theirs(problem.model, problem.samples, problem.horizon)
    return [
        Contestant(name, "fp32", work, partial(theirs.planner, problem, clock, compiled=compiled))
        for name, compiled in ((EAGER, False), (COMPILED, True))
    ]


def _ours(
    problem: Problem, graphs: Mapping[str, bytes], work: int, threads: int, clock: Clock
) -> list[Contestant]:
    return [
        Contestant(
            f"jetsight {backend} {family}",
            precision,
            work,
            partial(
                ours.planner,
                problem,
                graphs[precision],
                backend,
                family,
                threads=threads,
                clock=clock,
            ),
        )
        for precision in graphs
        for family in (f"cpu-{precision}",)
        for backend in installed(family)
    ]


def _prepared(entered: Sequence[Contestant], clock: Clock, say: Say) -> dict[str, Plan]:
    """Load all contestants and make a first plan apart."""
    ready: dict[str, Plan] = {}
    for contestant in entered:
        say(f"prepare {contestant.name}")
        start_ns = clock.now_ns()
        try:
            plan = contestant.prepare()
            plan(_WARMUP_SEED)
        except Exception as error:  # a missing compiler must not end the whole benchmark
            if not ready:
                raise
            contestant.failed = f"{type(error).__name__}: {first_line(error, most=1)}"
            continue
        contestant.first_ms = (clock.now_ns() - start_ns) / 1e6
        ready[contestant.name] = plan
    return ready


def _race(
    entered: Sequence[Contestant], ready: Mapping[str, Plan], rounds: int, clock: Clock, say: Say
) -> None:
    """Let all plan once per round, with the same seed, in an order that rotates."""
    racing = [contestant for contestant in entered if contestant.name in ready]
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        first = number % len(racing)
        for contestant in racing[first:] + racing[:first]:
            clock.sleep_ns(_SETTLE_NS)
            start_ns, busy_ns = clock.now_ns(), time.process_time_ns()
            solved = ready[contestant.name](number)
            contestant.plans_ms.add((clock.now_ns() - start_ns) / 1e6)
            contestant.busy_ms.add((time.process_time_ns() - busy_ns) / 1e6)
            contestant.solved.append(solved)
            for ms in solved.iterations_ms:
                contestant.iterations_ms.add(ms)
