"""From a float model to the graphs of one family: exported once, quantized where asked.

The float32 graph of a family's structure is where quantization is found and what its internal taps
are compared with; the graphs that ship are that one, or its float16 or bfloat16 twin, with the
quantization written in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import onnx

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import UsageError
from jetsight_compile.calibration.data import (
    CALIBRATION_FRAMES,
    CALIBRATION_WINDOWS,
    Episodes,
    Side,
    spread,
)
from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.config.precision import (
    AUTO,
    FLOATS,
    IMAGINE,
    QUANTIZED,
    WEIGHT_ONLY,
    of_planners,
)
from jetsight_compile.config.targets import FamilyPlan
from jetsight_compile.export.encoder import float_layers, why_no_form
from jetsight_compile.export.layers import Compute, Style
from jetsight_compile.export.onnx_export import (
    Ports,
    Sizes,
    export_encode,
    export_forecast,
    finished,
)
from jetsight_compile.export.onnx_graph import matches_any
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_compile.quantize import mixed_precision, schemes
from jetsight_compile.validate.plan_agreement import question
from jetsight_train.model.world_model import WorldModel

Samples = Sequence[schemes.Sample]
EXPORTS = {"encode": export_encode, "forecast": export_forecast}


@dataclass(frozen=True)
class Options:
    """How graphs are quantized.

    Attributes:
        methods: candidates for finding ranges.
        keep_float: patterns of layers that stay float.
    """

    methods: Sequence[str] = schemes.METHODS
    keep_float: Sequence[str] = ()


@dataclass(frozen=True)
class FamilyGraphs:
    """The graphs of one family.

    Attributes:
        plan: what was asked.
        precision: of each graph; where the plan says `auto`, what was chosen.
        graphs: as they ship.
        exact: the float32 graphs of the same structure.
        quantized: how each quantized graph came to be.
        trials: rows of the search, if there was one.
    """

    plan: FamilyPlan
    precision: Mapping[str, str]
    graphs: Mapping[str, onnx.ModelProto]
    exact: Mapping[str, onnx.ModelProto]
    quantized: Mapping[str, schemes.Quantized]
    trials: tuple[mixed_precision.PrecisionTrial, ...] = ()


@dataclass
class FamilyBuilder:
    """Makes families of one model; exports and quantizations are shared between them.

    Attributes:
        model: the model.
        episodes: what to calibrate with.
        options: how graphs are quantized.
        say: told what is being made.
        planners: one `imagine` graph is made for each.
    """

    model: WorldModel
    episodes: Episodes
    options: Options
    say: Callable[[str], None]
    planners: Sequence[PlannerSpec] = ()
    _imaginations: dict[Style, PlannerExporter] = field(default_factory=dict)
    _exported: dict[tuple[str, Style], onnx.ModelProto] = field(default_factory=dict)
    _found: dict[tuple[str, Style, str], schemes.Quantized] = field(default_factory=dict)

    def make(self, plan: FamilyPlan) -> FamilyGraphs:
        """All graphs of one family.

        Raises:
            UsageError: an option matches nothing, or a format has no form for this model.
            EngineError: a graph breaks a promise, or a quantizer did nothing.
            GateError: no precision passes the search.
        """
        precision = {graph: plan.precision[graph] for graph in EXPORTS}
        asked = {IMAGINE: plan.precision[IMAGINE]} if IMAGINE in plan.precision else {}
        trials: list[mixed_precision.PrecisionTrial] = []
        quantized: dict[str, schemes.Quantized] = {}
        for graph in self.graphs:
            if graph in self._specs:
                precision[graph] = of_planners({**precision, **asked}, plan.style.compute)
            if precision[graph] == AUTO:
                choice = self._search(plan, graph)
                trials += choice.trials
                precision[graph] = choice.precision
                if choice.made is not None:
                    quantized[graph] = choice.made
            elif precision[graph] in QUANTIZED:
                quantized[graph] = self._quantized(plan, graph, precision[graph])
        quantized = {name: self._in_base(plan, name, made) for name, made in quantized.items()}
        return FamilyGraphs(
            plan,
            precision,
            {
                graph: self._shipped(plan, graph, precision[graph], quantized)
                for graph in self.graphs
            },
            {graph: self.exported(graph, plan.style.computing("fp32")) for graph in self.graphs},
            quantized,
            tuple(trials),
        )

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs of every family, in the order they are made."""
        return (*EXPORTS, *self._specs)

    def exported(self, graph: str, style: Style) -> onnx.ModelProto:
        """A float graph, exported when it is first needed; not to be modified."""
        if (graph, style) not in self._exported:
            self.say(f"export {graph}, opset {style.opset}, {style.compute}")
            self._exported[graph, style] = self._export(graph, style)
        return self._exported[graph, style]

    def ports(self, graph: str) -> Ports:
        """What knows the inputs and outputs of a graph."""
        spec = self._specs.get(graph)
        return Sizes.of(self.model) if spec is None else ImaginePorts.of(self.model, spec)

    def _export(self, graph: str, style: Style) -> onnx.ModelProto:
        spec = self._specs.get(graph)
        if spec is None:
            return EXPORTS[graph](self.model, style)
        if style not in self._imaginations:
            self._imaginations[style] = PlannerExporter(self.model, style)
        return self._imaginations[style].export(spec)

    @functools.cached_property
    def _specs(self) -> dict[str, PlannerSpec]:
        return {spec.graph: spec for spec in self.planners}

    def _in_base(self, plan: FamilyPlan, graph: str, made: schemes.Quantized) -> schemes.Quantized:
        """A quantization found in float32, written into the family's float format."""
        if made.recipe is None:
            return made
        return schemes.rebase(made, self.exported(graph, plan.style))

    def _shipped(
        self,
        plan: FamilyPlan,
        graph: str,
        precision: str,
        quantized: Mapping[str, schemes.Quantized],
    ) -> onnx.ModelProto:
        if graph in quantized:
            return finished(quantized[graph].model, graph, self.ports(graph))
        return self.exported(graph, plan.style.computing(_float(precision)))

    def _quantized(self, plan: FamilyPlan, graph: str, precision: str) -> schemes.Quantized:
        # The CPU's scheme and TensorRT's INT8 differ, but so do the styles of their graphs.
        key = (graph, plan.style.computing("fp32"), precision)
        if key not in self._found:
            exact = self.exported(graph, plan.style.computing("fp32"))
            self.say(f"quantize {graph} for {plan.name}")
            self._found[key] = self._by_scheme(plan, exact, precision, self.samples[graph])
        return self._found[key]

    def _by_scheme(
        self, plan: FamilyPlan, exact: onnx.ModelProto, precision: str, samples: Samples
    ) -> schemes.Quantized:
        keep = self._keep_float(plan, exact.graph.name)
        methods = self.options.methods
        if plan.targets == ("cpu",) and exact.graph.name in self._specs:
            return schemes.cpu_rows(exact, samples, keep_float=keep)
        if plan.targets == ("cpu",):
            return schemes.cpu_int8(exact, samples, methods=methods, keep_float=keep)
        if precision in WEIGHT_ONLY:
            return schemes.weight_only(exact, precision, samples, keep_float=keep)
        return schemes.tensorrt(exact, precision, samples, methods=methods, keep_float=keep)

    def _search(self, plan: FamilyPlan, graph: str) -> mixed_precision.PrecisionChoice:
        style = plan.style
        windows = self.episodes.calibration.windows
        return mixed_precision.choose(
            mixed_precision.Task(
                graph=graph,
                export=lambda compute: self.exported(graph, style.computing(_float(compute))),
                allowed=_searched(self.model, plan, graph),
                base=style.compute,
                samples=self.samples[graph],
                methods=self.options.methods,
                keep_float=self._keep_float(plan, graph),
                asked=question(windows) if graph == "forecast" else None,
                module=mixed_precision.smallest_module(plan.targets),
                say=self.say,
            )
        )

    @functools.cached_property
    def samples(self) -> dict[str, Samples]:
        """Calibration inputs of every graph."""
        calibration = self.episodes.calibration
        of_planners = {
            name: imagine_samples(calibration.windows, spec, self.model)
            for name, spec in self._specs.items()
        }
        return {**samples_of(calibration), **of_planners}

    def _keep_float(self, plan: FamilyPlan, graph: str) -> list[str]:
        """Patterns about this graph; one that fits no graph goes to all, and fails there."""
        exact = {name: self.exported(name, plan.style.computing("fp32")) for name in self.graphs}
        always = float_layers(self.model) if graph == "encode" else ()
        return [
            pattern
            for pattern in (*self.options.keep_float, *always)
            if matches_any(exact[graph], pattern)
            or not any(matches_any(each, pattern) for each in exact.values())
        ]


def check(plan: FamilyPlan, model: WorldModel) -> None:
    """Refuse before any work what this model has no graph for.

    Raises:
        UsageError: the family's float format has no form of the encoder.
    """
    precision = plan.precision["encode"]
    compute = _float(precision) if precision in FLOATS else plan.style.compute
    problem = why_no_form(model, plan.style.computing(compute))
    if problem is not None:
        raise UsageError(problem)


def samples_of(side: Side) -> dict[str, Samples]:
    """Graph inputs out of the calibration episodes, evenly spread."""
    windows = side.windows.thinned(CALIBRATION_WINDOWS)
    frames = side.frames_u8[spread(len(side.frames_u8), CALIBRATION_FRAMES)]
    return {
        "encode": [{"frame_hwc_u8": frame} for frame in frames],
        "forecast": [windows.inputs(index) for index in range(len(windows))],
    }


def _searched(model: WorldModel, plan: FamilyPlan, graph: str) -> tuple[str, ...]:
    """Precisions worth trying: what the target runs and the model has a graph for."""
    if graph == "encode" and why_no_form(model, plan.style.computing("bf16")) is not None:
        return tuple(precision for precision in plan.allowed if precision != "bf16")
    return plan.allowed


def _float(precision: str) -> Compute:
    """`precision`, which is one of the float formats."""
    assert precision in FLOATS
    return cast(Compute, precision)
