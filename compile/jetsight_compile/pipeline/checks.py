"""Checks of a compile before its checkpoint is read: methods, tools, and the number of stages."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle.manifest import GRAPHS
from jetsight.errors import MissingDependency
from jetsight_compile.config.precision import AUTO, QUANTIZED, WEIGHT_ONLY
from jetsight_compile.config.targets import FamilyPlan, plan
from jetsight_compile.quantize import schemes, vendor

if TYPE_CHECKING:
    from jetsight_compile.pipeline.compile import CompileRequest


def expected_stages(request: CompileRequest) -> int:
    """Count the stages that a compile announces, before blocks go back to float or are searched.

    Raises:
        UsageError: see `compile_checkpoint`.
    """
    families, planners = plan(request.targets, request.precisions, request.base), request.planners
    graphs = len(GRAPHS) + len(planners)
    # The float32 graphs of a style are exported for every family, others where they ship as such.
    styles = {f.style.computing("fp32") for f in families} | {f.style for f in families}
    quantized = sum(
        f.precision.get(graph, f.precision["forecast"]) in (*QUANTIZED, AUTO)
        for f in families
        for graph in (*GRAPHS, *(["imagine"] * len(planners)))
    )
    gates = len(families) * (1 + len(planners))
    return 2 + graphs * len(styles) + quantized + len(planners) + gates + 1


def check_methods(family: FamilyPlan, methods: Sequence[str]) -> None:
    """Refuse methods none of which a family's quantizer has.

    Raises:
        UsageError: a graph needs ranges, and the quantizer finds them by none of these.
    """
    for graph, precision in family.precision.items():
        # A search may end in any of them, so each has to have a method.
        for each in family.allowed if precision == AUTO else (precision,):
            if each in QUANTIZED:
                schemes.check_methods(family.backend, graph, each, methods)


def check_tools(plans: Sequence[FamilyPlan]) -> None:
    """Miss a package now, and not after a minute of work."""
    OnnxRuntimeBackend()
    # torch.onnx imports it only during an export.
    if importlib.util.find_spec("onnxscript") is None:
        raise MissingDependency("onnxscript", "compile", "exporting a graph")
    tensorrt = {p for each in plans if each.backend == "trt" for p in each.precision.values()}
    # 4-bit weights are written by `quantize.qdq` alone, without ModelOpt.
    if tensorrt & {AUTO, *QUANTIZED} - set(WEIGHT_ONLY):
        vendor.check_modelopt()
