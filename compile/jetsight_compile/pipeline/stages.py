"""Number of stages that a compile announces, for its progress."""

from __future__ import annotations

from jetsight.bundle.manifest import GRAPHS
from jetsight_compile.config.precision import AUTO, QUANTIZED
from jetsight_compile.config.targets import plan
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
