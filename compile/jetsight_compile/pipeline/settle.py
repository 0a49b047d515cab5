"""Return of graphs to float, as far as their gates need it.

A graph whose gate fails gets blocks back to float, then all of it, then float32, until its gates
pass; a family or planner that still fails is left out. First goes the block at which a gate saw
most error inside, then the one that takes most error of the outputs with it on the calibration
episodes; the gates on held-out episodes decide when it is enough. Nothing else is ever changed to
pass them, and never a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from jetsight.bundle import manifest
from jetsight.bundle.fallbacks import Action, Fallback
from jetsight_compile.config.precision import QUANTIZED
from jetsight_compile.export.onnx_export import finished
from jetsight_compile.pipeline.family import EXPORTS, FamilyBuilder, FamilyGraphs, as_compute
from jetsight_compile.pipeline.family_passes import gate_family, judges
from jetsight_compile.quantize.float_fallback import BlockFallback
from jetsight_compile.quantize.quantized import Quantized
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.layer_gates import worst_block
from jetsight_compile.validate.limits import graphs_of
from jetsight_compile.validate.metrics import FloatReference
from jetsight_compile.validate.planner_gates import PlannerUnderTest
from jetsight_compile.validate.planner_reference import Truth
from jetsight_compile.validate.runner import GateResult


@dataclass(frozen=True)
class GraphForm:
    """One form in which a graph may ship.

    Attributes:
        model: the graph.
        precision: of it, or of its quantized layers.
        quantized: how it was quantized; None in a float format.
    """

    model: onnx.ModelProto
    precision: str
    quantized: Quantized | None = None


@dataclass(frozen=True)
class SettledFamily:
    """A family after its gates.

    Attributes:
        family: with the forms that passed; as it was if none did.
        gates: of that.
        reasons: why a graph went back to float, by its name.
    """

    family: FamilyGraphs
    gates: list[manifest.Gate]
    reasons: dict[str, str] = field(default_factory=dict)


def settle_graphs(
    builder: FamilyBuilder, family: FamilyGraphs, expected: FloatReference
) -> SettledFamily:
    """Give as much of `encode` and `forecast` back to float as their gates need.

    Raises:
        EngineError: a graph cannot be run.
    """
    settled = first = SettledFamily(family, gate_family(family, expected))
    forms = {graph: LessQuantized(builder, family, graph) for graph in EXPORTS}
    while wrong := [each for each in settled.gates if not each.passed]:
        block = worst_block(wrong[0], settled.gates)
        tries = ((graph, forms[graph].next(block)) for graph in _suspects(wrong))
        graph, form = next((each for each in tries if each[1] is not None), ("", None))
        if form is None:
            # What was tried on the way is worth nothing; the first values say what is wrong.
            return first
        own = [each for each in wrong if graph in graphs_of(each.name)]
        builder.say(f"gate {family.plan.name} again")
        changed = with_form(settled.family, graph, form)
        reasons = {graph: gate.verdicts(own[:1]), **settled.reasons}
        settled = SettledFamily(changed, gate_family(changed, expected), reasons)
    return settled


@dataclass(frozen=True)
class SettledPlanner:
    """A family after the gates of one planner.

    Attributes:
        family: with the last form tried.
        result: the gates of that form.
        reasons: why the graph went back to float, by its name; empty if it did not.
    """

    family: FamilyGraphs
    result: GateResult
    reasons: dict[str, str]

    @property
    def verdict(self) -> str:
        """The failed gates in words."""
        gates = self.result.gates(self.family.plan.name)
        return gate.verdicts([each for each in gates if not each.passed])


def settle_planner(
    builder: FamilyBuilder, family: FamilyGraphs, truth: Truth, *, whole: bool = True
) -> SettledPlanner:
    """Give as much of a planner back to float as its gates need.

    Args:
        builder: makes its other forms.
        family: with the planner's graph as it was requested.
        truth: the float planner's plans.
        whole: also the whole graph, where blocks are not enough.

    Raises:
        EngineError: a backend cannot load a graph.
    """
    graph, backends = truth.facts.graph, judges(family.plan)
    builder.say(f"gate {family.plan.name} {graph}")
    forms = LessQuantized(builder, family, graph, whole=whole)
    reasons: dict[str, str] = {}
    while True:
        planner = PlannerUnderTest(
            graph, family.precision[graph], family.graphs[graph], family.exact[graph], truth
        )
        settled = SettledPlanner(family, planner_gates.judge(planner, backends), reasons)
        form = None if settled.result.passed else forms.next()
        if form is None:
            return settled
        reasons = reasons or {graph: settled.verdict}
        family = with_form(family, graph, form)


class LessQuantized:
    """The forms of a graph with one block in float, with two and so on, in float, in float32.

    Args:
        builder: makes the forms.
        family: with the graph as it was requested.
        graph: its name.
        whole: also all of the graph in float.
    """

    def __init__(
        self, builder: FamilyBuilder, family: FamilyGraphs, graph: str, *, whole: bool = True
    ) -> None:
        self._builder, self._plan, self._graph = builder, family.plan, graph
        self._precision = family.precision[graph]
        self._blocks: BlockFallback | None = None
        if graph in family.quantized:
            base = builder.exported(graph, self._plan.style)
            self._blocks = BlockFallback(
                family.quantized[graph], family.exact[graph], builder.samples[graph], base
            )
        quantized = self._precision in QUANTIZED
        steps = (self._plan.style.compute, "fp32") if quantized else ("fp32",)
        self._floats = [step for step in dict.fromkeys(steps) if step != self._precision]
        self._floats = self._floats if whole else []

    def next(self, suspect: str = "") -> GraphForm | None:
        """Return the next form; None after the last.

        Args:
            suspect: the block that is to go back to float first.

        Raises:
            EngineError: ONNX Runtime cannot run the graph.
        """
        builder, graph, name = self._builder, self._graph, f"{self._plan.name} {self._graph}"
        made = None if self._blocks is None else self._blocks.next(suspect)
        if made is not None:
            builder.say(f"{name}: {', '.join(made.kept)} in float")
            shipped = finished(made.model, graph, builder.ports(graph))
            return GraphForm(shipped, self._precision, made)
        self._blocks = None
        if not self._floats:
            return None
        compute = as_compute(self._floats.pop(0))
        builder.say(f"{name}: all in {compute}")
        return GraphForm(builder.exported(graph, self._plan.style.computing(compute)), compute)


def with_form(family: FamilyGraphs, graph: str, form: GraphForm) -> FamilyGraphs:
    """Return the family with another form of one graph."""
    quantized = {name: made for name, made in family.quantized.items() if name != graph}
    if form.quantized is not None:
        quantized[graph] = form.quantized
    return replace(
        family,
        precision={**family.precision, graph: form.precision},
        graphs={**family.graphs, graph: form.model},
        quantized=quantized,
    )


def without_planner(family: FamilyGraphs, graph: str) -> FamilyGraphs:
    """Return the family without a planner's graph."""
    return replace(
        family,
        precision={name: each for name, each in family.precision.items() if name != graph},
        graphs={name: each for name, each in family.graphs.items() if name != graph},
        quantized={name: each for name, each in family.quantized.items() if name != graph},
    )


def fallbacks_of(family: FamilyGraphs, reasons: Mapping[str, str]) -> list[Fallback]:
    """Describe what of a family was given back to float, for `reasons` by graph."""
    found = []
    for graph, reason in reasons.items():
        made = family.quantized.get(graph)
        action: Action = "float" if made is None else "blocks"
        detail = family.precision[graph] if made is None else ", ".join(made.kept)
        found.append(Fallback(family.plan.name, graph, action, detail, reason))
    return found


def _suspects(failed: Sequence[manifest.Gate]) -> list[str]:
    """Graphs to change for these gates: one that fails a gate of its own, else either."""
    each = [graphs_of(gate.name) for gate in failed]
    alone = [graphs[0] for graphs in each if len(graphs) == 1]
    # The forecast first: gates of the encoder alone would have shown what that loses.
    return alone[:1] or ["forecast", "encode"]
