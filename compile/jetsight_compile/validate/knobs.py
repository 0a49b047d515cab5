"""Advice after a failed gate: what to change in the next compilation, by number format."""

from __future__ import annotations

from jetsight.bundle.manifest import GRAPHS
from jetsight_compile.config.precision import (
    AUTO,
    FLOATS,
    IMAGINE,
    PRECISIONS,
    QUANTIZED,
    of_planners,
)
from jetsight_compile.validate.limits import graphs_of

# `{block}` ends at the worst tap; `{graph}` and `{other}` are the two graphs.
_KEEP = "the worst tap is after {block}: keep it in float with --keep-float '{block}[./]*'{auto}"
KNOBS = {
    "fp32": "report it: a float32 graph must agree with its model (the worst tap is after {block})",
    "fp16": "the worst tap is after {block}; if values leave float16's range there, compile this "
    "graph in bf16, else in fp32: --precision {graph}=fp32,{other}=fp16",
    "bf16": "the worst tap is after {block}; compile this graph in fp16, which rounds 8 times "
    "finer, or in fp32: --precision {graph}=fp32,{other}=bf16",
    "fp8": f"{_KEEP}, try another --method, or compile this graph in fp16",
    "int8": f"{_KEEP}, try another --method, calibrate with more varied episodes, or compile this "
    "graph in {float}",
    "int4": f"{_KEEP}, or compile this graph in int8 or fp16; nothing is calibrated in int4",
    "nvfp4": f"{_KEEP}, or compile this graph in fp8 or fp16; nothing is calibrated in nvfp4",
}
_CHOSEN = (
    "what was chosen by measurement is not close enough (the worst tap is after {block}); name a "
    "finer precision for each graph, like --precision encode=fp16,forecast=int8, or calibrate with "
    "more varied episodes"
)
_FLOAT = "compile the planners in {float}: --precision {others},imagine={float}"
IMAGINE_KNOBS = {
    "fp32": "report it: a float32 planner must agree with its model",
    "fp16": _FLOAT,
    "bf16": _FLOAT,
    **dict.fromkeys(
        QUANTIZED,
        "with less than half of its products left to quantize it is still too coarse; calibrate "
        f"with more varied episodes, or {_FLOAT}",
    ),
}


def next_knob(family: str, gate: str, block: str) -> str:
    """Advice for a failed gate.

    Args:
        family: name of the family, which holds its precisions.
        gate: name of the gate.
        block: the block that loses most.
    """
    named = [part for part in family.split("-") if part in (*PRECISIONS, AUTO)]
    if AUTO in named:
        return _CHOSEN.format(block=block)
    each = dict(zip(GRAPHS, (named[0], named[min(1, len(named) - 1)]), strict=True))
    about = graphs_of(gate)
    if about == (IMAGINE,):
        kind = of_planners({"forecast": named[-1]}, "fp16")
        finer = "fp32" if kind in FLOATS or family.startswith("cpu-") else "fp16"
        others = ",".join(f"{graph}={precision}" for graph, precision in each.items())
        return IMAGINE_KNOBS[kind].format(float=finer, others=others)
    graph = max(about, key=lambda name: PRECISIONS.index(each[name]))
    (other,) = (name for name in GRAPHS if name != graph)
    cpu = family.startswith("cpu-")
    return KNOBS[each[graph]].format(
        block=block,
        graph=graph,
        other=other,
        float="fp32" if cpu else "fp16",
        auto="" if cpu else " (--precision auto finds what to keep)",
    )
