"""The passes over one family: export, quantize, gate; `settle` has what follows a failed gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.registry import available
from jetsight.bundle import manifest
from jetsight.engine import Backend
from jetsight_compile.config.precision import AUTO, QUANTIZED, of_planners
from jetsight_compile.config.targets import FamilyPlan
from jetsight_compile.export.onnx_export import finished
from jetsight_compile.pipeline.family import (
    EXPORTS,
    FamilyBuilder,
    FamilyGraphs,
    as_compute,
    searched,
)
from jetsight_compile.quantize import mixed_precision
from jetsight_compile.quantize.mixed_precision import PrecisionTrial
from jetsight_compile.quantize.quantized import Quantized, rebase
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate.metrics import FloatReference
from jetsight_compile.validate.plan_agreement import question


def export_family(builder: FamilyBuilder, family: FamilyPlan) -> FamilyGraphs:
    """Export a family with its float32 graphs alone.

    Raises:
        UsageError: the float format has no form for this model.
        EngineError: an exported graph fails a check of `onnx_export`.
    """
    return FamilyGraphs(family, builder.exact(family))


def quantize_family(builder: FamilyBuilder, family: FamilyGraphs) -> FamilyGraphs:
    """Convert an exported family to the graphs that ship, in the precisions of its plan.

    Raises:
        UsageError: an option matches nothing, or a format has no form for this model.
        EngineError: a graph breaks a promise, or a quantizer did nothing.
        GateError: no precision passes the search.
    """
    plan = family.plan
    precision: dict[str, str] = {}
    graphs, quantized = {}, {}
    trials: tuple[PrecisionTrial, ...] = ()
    for graph in builder.graphs:
        # Planners follow `forecast`, whose precision is known by then: EXPORTS come first.
        wanted = plan.precision[graph] if graph in EXPORTS else _of_planners(plan, precision)
        made: Quantized | None = None
        if wanted == AUTO:
            choice = mixed_precision.choose(_search(builder, plan, graph))
            trials += choice.trials
            wanted, made = choice.precision, choice.made
        elif wanted in QUANTIZED:
            made = builder.quantized(plan, graph, wanted)
        precision[graph] = wanted
        if made is None:
            graphs[graph] = builder.exported(graph, plan.style.computing(as_compute(wanted)))
            continue
        if made.recipe is not None:  # found in float32, written into the family's float format
            made = rebase(made, builder.exported(graph, plan.style))
        quantized[graph] = made
        # Checked again, because the graph that ships is the quantizer's and not the exporter's.
        graphs[graph] = finished(made.model, graph, builder.ports(graph))
    return replace(family, precision=precision, graphs=graphs, quantized=quantized, trials=trials)


def _of_planners(plan: FamilyPlan, chosen: Mapping[str, str]) -> str:
    """Precision of a planner's graph, once that of `forecast` is chosen."""
    return of_planners({**plan.precision, **chosen}, plan.style.compute)


def _search(builder: FamilyBuilder, plan: FamilyPlan, graph: str) -> mixed_precision.Task:
    """Search the precision of one graph, on calibration episodes."""
    windows = builder.episodes.calibration.windows
    return mixed_precision.Task(
        graph=graph,
        export=lambda compute: builder.exported(graph, plan.style.computing(as_compute(compute))),
        allowed=searched(builder.model, plan, graph),
        base=plan.style.compute,
        samples=builder.samples[graph],
        methods=builder.options.methods,
        keep_float=builder.keep_float(plan, graph),
        query=question(windows) if graph == "forecast" else None,
        module=mixed_precision.smallest_module(plan.targets),
        say=builder.say,
    )


def gate_family(family: FamilyGraphs, expected: FloatReference) -> list[manifest.Gate]:
    """Every gate of a family's `encode` and `forecast`, passed or not, with its negative control.

    Raises:
        EngineError: a graph cannot be run.
    """
    pair = {graph: family.graphs[graph] for graph in manifest.GRAPHS}
    under_test = gate.FamilyUnderTest(
        family.plan.name, family.precision, **pair, exact=family.exact
    )
    return gate.judge(under_test, expected, judges(family.plan))


def judges(family: FamilyPlan) -> list[Backend]:
    """List the gates' backends: those that would run it; for TensorRT the graph as written."""
    if family.backend != "cpu":
        # Its optimiser alters float16 and FP8 Q/DQ pairs; TensorRT gets the graph as written.
        return [OnnxRuntimeBackend(optimise=False)]
    backends: list[Backend] = [OnnxRuntimeBackend()]
    if any(b.name == "openvino" and b.reason is None and b.runs(family.name) for b in available()):
        from jetsight.backends.openvino import OpenVinoBackend

        backends.append(OpenVinoBackend())
    return backends
