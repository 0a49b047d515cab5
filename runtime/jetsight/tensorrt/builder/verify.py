"""Parity and latency of a built engine, measured on the machine of the build."""

from __future__ import annotations

from pathlib import Path

from jetsight.bundle.golden import planner_key
from jetsight.bundle.parity import rank_agreement, smallest_agreement, smallest_cosine, worst_cosine
from jetsight.clock import Clock
from jetsight.engine import Engine, NDArray
from jetsight.errors import EngineError
from jetsight.histogram import Histogram
from jetsight.machine.clocks import clocks
from jetsight.tensorrt.record import Latency, Parity

# Output of each graph that always has a reference in golden.npz.
REFERENCE = {"encode": "z", "forecast": "z_future"}
_WARM_UP, _RUNS = 50, 500
_LONGEST_NS = 10_000_000_000  # after this a slow engine gets no more runs than _FEWEST
_FEWEST = 20


def can_compare(golden: dict[str, NDArray], graph: str) -> bool:
    """Return whether there is reference data for a graph; for planners it is optional."""
    return graph in REFERENCE or planner_key(graph, "costs") in golden


def parity(
    engine: Engine, golden: dict[str, NDArray], graph: str, precision: str, what: str
) -> Parity:
    """Compare an engine with PyTorch's outputs in the bundle.

    Args:
        engine: loaded.
        golden: the bundle's reference data.
        graph: its name; of planners, the ranks of candidates are compared.
        precision: of the graph, which determines the limit.
        what: name of the engine in messages.

    Raises:
        EngineError: another signature, or an output that deviates from PyTorch's.
    """
    planner = graph not in REFERENCE
    output = "costs" if planner else REFERENCE[graph]
    names = [planner_key(graph, n) for n in engine.inputs] if planner else list(engine.inputs)
    if not golden.keys() >= set(names) or output not in engine.outputs:
        raise EngineError(
            f"{what}: inputs {sorted(engine.inputs)} and outputs {sorted(engine.outputs)} are not "
            f"those of graph {graph!r}; compile the bundle again: jetsight compile"
        )
    if planner:
        return _planner_parity(engine, golden, graph, precision, what)
    limit = smallest_cosine(precision)
    worst = worst_cosine(engine, golden, output)
    if not worst >= limit:  # also when it is NaN
        raise EngineError(
            f"{what}: does not agree with PyTorch, cosine {worst:.4f} on the bundle's "
            f"reference data, expected at least {limit}; nothing was kept, build a family of "
            "higher precision (--family), or compile with more layers in float (--keep-float)"
        )
    return Parity(len(golden[output]), worst, limit)


def _planner_parity(
    engine: Engine, golden: dict[str, NDArray], graph: str, precision: str, what: str
) -> Parity:
    limit = smallest_agreement(precision)
    worst = rank_agreement(engine, golden, graph)
    if worst is None or not worst >= limit:
        raise EngineError(
            f"{what}: does not rank plans like PyTorch, rank correlation {worst} on the bundle's "
            f"reference data, expected at least {limit}; nothing was kept, build a family of "
            "higher precision (--family)"
        )
    return Parity(len(golden[planner_key(graph, "costs")]), worst, limit)


def latency(engine: Engine, clock: Clock, root: Path) -> Latency:
    """Time the runs of an engine.

    Args:
        engine: loaded, inputs written.
        clock: clock of the measurements.
        root: `/`, for the machine's clock rates.
    """
    start = clock.now_ns()
    for warm_up in range(1, _WARM_UP + 1):  # noqa: B007 - the number of runs is reported
        engine.run()
        if clock.now_ns() - start > _LONGEST_NS // 10:
            break
    times, begin = Histogram(), clock.now_ns()
    while times.count < _RUNS and (times.count < _FEWEST or clock.now_ns() - begin < _LONGEST_NS):
        before = clock.now_ns()
        engine.run()
        times.add((clock.now_ns() - before) / 1e6)
    return Latency(
        runs=times.count,
        warm_up=warm_up,
        p50_ms=times.percentile(50),
        p90_ms=times.percentile(90),
        p99_ms=times.percentile(99),
        max_ms=times.max,
        clocks=clocks(root),  # right after the last run
    )
