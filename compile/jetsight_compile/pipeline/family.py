"""The graphs of a family, and what families share: exports and quantizations, each made once.

The float32 graph of a family's structure is where quantization is found and what its internal taps
are compared with; the graphs that ship are that one, or its float16 or bfloat16 twin, with the
quantization written in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import cast

import onnx

from jetsight.bundle import manifest
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import UsageError
from jetsight_compile.calibration.data import (
    CALIBRATION_FRAMES,
    CALIBRATION_WINDOWS,
    Episodes,
    Side,
    samples,
    spread,
)
from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.config.precision import FLOATS, METHODS
from jetsight_compile.config.targets import FamilyPlan
from jetsight_compile.export.encoder import float_layers, why_no_form
from jetsight_compile.export.layers import Compute, Style
from jetsight_compile.export.onnx_export import Ports, Sizes, export_encode, export_forecast
from jetsight_compile.export.onnx_graph import matches_any
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_compile.quantize import qdq, schemes
from jetsight_compile.quantize.mixed_precision import PrecisionTrial
from jetsight_compile.quantize.quantized import Quantized, Sample
from jetsight_train.model.world_model import WorldModel

Samples = Sequence[Sample]
EXPORTS = {"encode": export_encode, "forecast": export_forecast}


@dataclass(frozen=True)
class Options:
    """Options of every quantization.

    Attributes:
        methods: candidates for finding ranges.
        keep_float: patterns of layers that stay float.
    """

    methods: Sequence[str] = METHODS
    keep_float: Sequence[str] = ()


@dataclass(frozen=True)
class FamilyGraphs:
    """The graphs of one family, by name; each pass of the pipeline fills in more.

    Attributes:
        plan: the family as it was requested.
        exact: the float32 graphs.
        precision: of each graph; where the plan says `auto`, the one that was chosen.
        graphs: as they ship.
        quantized: how each quantized graph was made.
        trials: rows of the search, if there was one.
    """

    plan: FamilyPlan
    exact: Mapping[str, onnx.ModelProto]
    precision: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, onnx.ModelProto] = field(default_factory=dict)
    quantized: Mapping[str, Quantized] = field(default_factory=dict)
    trials: tuple[PrecisionTrial, ...] = ()

    def describe(self) -> manifest.Family:
        """Build the family's entry in the manifest."""
        tensors = sum(each.tensors for each in self.quantized.values())
        return manifest.Family(
            name=self.plan.name,
            opset=self.graphs["encode"].opset_import[0].version,
            precision=self.precision,
            targets=self.plan.targets,
            tensors=tensors if self.quantized else None,
        )

    def provenance(self) -> Iterator[tuple[str, str]]:
        """Return the quantizer's version, and the quantization of each graph by `family/graph`."""
        recipes = [each.recipe for each in self.quantized.values()]
        if any(isinstance(r, qdq.QuantizationRecipe) and r.activations for r in recipes):
            yield "nvidia-modelopt", metadata.version("nvidia-modelopt")  # places the Q/DQ pairs
        for graph, each in self.quantized.items():
            text = f"{each.method}, {len(each.layers)} layers, {each.share:.1%} of the products"
            text += f"; float for the gates: {', '.join(each.kept)}" if each.kept else ""
            yield f"{self.plan.name}/{graph}", text


@dataclass
class FamilyBuilder:
    """Exports and quantizations of one model, each made when it is first needed and then kept.

    Attributes:
        model: the float model.
        episodes: recorded data; its calibration half is used here.
        options: how graphs are quantized.
        say: is called with a line for each export and quantization.
        planners: every family has one `imagine` graph for each.
    """

    model: WorldModel
    episodes: Episodes
    options: Options
    say: Callable[[str], None]
    planners: Sequence[PlannerSpec] = ()
    _exporters: dict[Style, PlannerExporter] = field(default_factory=dict)
    _exported: dict[tuple[str, Style], onnx.ModelProto] = field(default_factory=dict)
    _quantized: dict[tuple[str, Style, str], Quantized] = field(default_factory=dict)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs of every family, in the order they are made."""
        return (*EXPORTS, *self._specs)

    def exported(self, graph: str, style: Style) -> onnx.ModelProto:
        """Return a float graph; not to be modified."""
        if (graph, style) not in self._exported:
            self.say(f"export {graph}, opset {style.opset}, {style.compute}")
            self._exported[graph, style] = self._export(graph, style)
        return self._exported[graph, style]

    def exact(self, plan: FamilyPlan) -> dict[str, onnx.ModelProto]:
        """Return the float32 graphs of a family's structure, by name; not to be modified."""
        return {graph: self.exported(graph, plan.style.computing("fp32")) for graph in self.graphs}

    def quantized(self, plan: FamilyPlan, graph: str, precision: str) -> Quantized:
        """Quantize the float32 graph by the scheme of the family's backend."""
        # The CPU's scheme and TensorRT's INT8 differ, but so do the styles of their graphs.
        style = plan.style.computing("fp32")
        key = (graph, style, precision)
        if key not in self._quantized:
            exact = self.exported(graph, style)
            self.say(f"quantize {graph} for {plan.name}")
            request = schemes.QuantizeRequest(
                exact,
                precision,
                self.samples[graph],
                self.options.methods,
                self.keep_float(plan, graph),
            )
            self._quantized[key] = schemes.quantize(request, plan.backend)
        return self._quantized[key]

    @functools.cached_property
    def samples(self) -> dict[str, Samples]:
        """Calibration inputs of every graph."""
        calibration = self.episodes.calibration
        # From calibration windows alone: held-out ones judge the result.
        of_planners = {
            name: imagine_samples(calibration.windows, spec, self.model)
            for name, spec in self._specs.items()
        }
        return {**samples_of(calibration), **of_planners}

    def keep_float(self, plan: FamilyPlan, graph: str) -> list[str]:
        """Patterns that concern a graph; one that fits no graph concerns all, and fails there."""
        exact = self.exact(plan)
        always = float_layers(self.model) if graph == "encode" else ()
        return [
            pattern
            for pattern in (*self.options.keep_float, *always)
            if matches_any(exact[graph], pattern)
            or not any(matches_any(each, pattern) for each in exact.values())
        ]

    def ports(self, graph: str) -> Ports:
        """Return the inputs and outputs of a graph."""
        spec = self._specs.get(graph)
        return Sizes.of(self.model) if spec is None else ImaginePorts.of(self.model, spec)

    def _export(self, graph: str, style: Style) -> onnx.ModelProto:
        spec = self._specs.get(graph)
        if spec is None:
            return EXPORTS[graph](self.model, style)
        # One exporter per style, because it keeps the tokens that all planners share.
        if style not in self._exporters:
            self._exporters[style] = PlannerExporter(self.model, style)
        return self._exporters[style].export(spec)

    @functools.cached_property
    def _specs(self) -> dict[str, PlannerSpec]:
        return {spec.graph: spec for spec in self.planners}


def check_form(plan: FamilyPlan, model: WorldModel) -> None:
    """Refuse, before any work, a family that this model has no graph for.

    Raises:
        UsageError: the family's float format has no form of the encoder.
    """
    precision = plan.precision["encode"]
    # What is quantized, or not chosen yet, is written into the base format of the family.
    compute = as_compute(precision) if precision in FLOATS else plan.style.compute
    problem = why_no_form(model, plan.style.computing(compute))
    if problem is not None:
        raise UsageError(problem)


def samples_of(side: Side) -> dict[str, Samples]:
    """Select inputs of `encode` and `forecast` from the calibration episodes, evenly spread."""
    windows = side.windows.thinned(CALIBRATION_WINDOWS)
    rows = spread(len(side.frames_u8), CALIBRATION_FRAMES)
    return {
        "encode": samples(side.inputs(rows)),
        "forecast": [windows.inputs(index) for index in range(len(windows))],
    }


def searched(model: WorldModel, plan: FamilyPlan, graph: str) -> tuple[str, ...]:
    """Precisions that the target runs and the model has a graph for."""
    if graph == "encode" and why_no_form(model, plan.style.computing("bf16")) is not None:
        return tuple(precision for precision in plan.allowed if precision != "bf16")
    return plan.allowed


def as_compute(precision: str) -> Compute:
    """`precision`, which is one of the float formats."""
    assert precision in FLOATS
    return cast(Compute, precision)
