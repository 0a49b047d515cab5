"""Planners that a quantization misleads get blocks back to float until they plan as before.

The block goes first whose return to float takes most of the error of the candidates' costs on the
calibration episodes; the gates on held-out episodes say when it is enough. Nothing else is ever
changed to please them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from jetsight.engine import Backend
from jetsight_compile.export.onnx_export import finished
from jetsight_compile.pipeline.family import FamilyBuilder, FamilyGraphs
from jetsight_compile.quantize.float_fallback import fallbacks
from jetsight_compile.quantize.quantized import Quantized
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.planner_gates import GateResult, PlannerUnderTest
from jetsight_compile.validate.planner_reference import Truth


def settled(
    shop: FamilyBuilder,
    made: FamilyGraphs,
    truths: Mapping[str, Truth],
    backends: Sequence[Backend],
    say: Callable[[str], None],
) -> tuple[FamilyGraphs, list[GateResult]]:
    """A family whose planners passed their gates, as far as that is possible, and the verdicts.

    Args:
        shop: where the family was made.
        made: the family.
        truths: the float planner of each planner's graph.
        backends: what judges; see `planner_gates`.
        say: told what is given back.

    Raises:
        EngineError: a backend cannot load a graph.
    """
    verdicts = []
    for graph, truth in truths.items():
        say(f"gate {made.plan.name} {graph}")
        judged = planner_gates.judge(_planner(made, graph, truth), backends)
        tries = _given_back(shop, made, graph)
        while not judged.passed and (fewer := next(tries, None)):
            say(f"{made.plan.name} {graph}: {', '.join(fewer.quantized[graph].kept)} in float")
            made = fewer
            judged = planner_gates.judge(_planner(made, graph, truth), backends)
        verdicts.append(judged)
    return made, verdicts


def _given_back(shop: FamilyBuilder, made: FamilyGraphs, graph: str) -> Iterator[FamilyGraphs]:
    """The family with one block of a planner float, with two, and so on while it is worth it."""
    whole = made.quantized.get(graph)
    if whole is None:
        return
    exact = made.exact[graph]
    base = shop.exported(graph, made.plan.style)
    for fewer in fallbacks(whole, exact, shop.samples[graph], base):
        yield _with(shop, made, graph, fewer)


def _with(shop: FamilyBuilder, made: FamilyGraphs, graph: str, fewer: Quantized) -> FamilyGraphs:
    shipped = finished(fewer.model, graph, shop.ports(graph))
    return replace(
        made,
        graphs={**made.graphs, graph: shipped},
        quantized={**made.quantized, graph: fewer},
    )


def _planner(made: FamilyGraphs, graph: str, truth: Truth) -> PlannerUnderTest:
    return PlannerUnderTest(
        graph, made.precision[graph], made.graphs[graph], made.exact[graph], truth
    )
