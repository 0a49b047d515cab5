"""Number formats of graphs, and the notation that chooses them."""

from __future__ import annotations

from collections.abc import Mapping

from jetsight.bundle.manifest import GRAPHS
from jetsight.errors import UsageError

# Float formats first, then quantized ones, each group from exact to coarse.
FLOATS = ("fp32", "fp16", "bf16")
QUANTIZED = ("fp8", "int8", "int4", "nvfp4")
PRECISIONS = (*FLOATS, *QUANTIZED)
WEIGHT_ONLY = ("int4", "nvfp4")
# Prefix of the planners' graphs, and their common name in a choice of precisions.
IMAGINE = "imagine"
# Precision chosen by measurement: the cheapest that passes, block by block.
AUTO = "auto"
# Methods that find the range of an activation: all, those of ONNX Runtime's quantizer (CPU
# families), and those of `quantize.ranges` (TensorRT families).
METHODS = ("max", "percentile", "entropy", "mse")
CPU_METHODS = ("max", "percentile", "entropy")
TENSORRT_METHODS = ("max", "percentile", "mse")


def parse(text: str) -> dict[str, str]:
    """Parse a choice of precisions into one precision per graph.

    Args:
        text: one precision for all graphs, or one each: `encode=fp16,forecast=int8`. Planners'
            graphs consist mostly of `forecast` and get its precision unless `imagine=` follows; see
            `of_planners`.

    Raises:
        UsageError: a graph is unknown, missing or named twice, the precision is unknown, or
            planners gain nothing from it.

    Example:
        >>> parse("int8"), parse("encode=fp16,forecast=int8")
        ({'encode': 'int8', 'forecast': 'int8'}, {'encode': 'fp16', 'forecast': 'int8'})
        >>> parse("encode=fp16,forecast=fp16,imagine=int8")
        {'encode': 'fp16', 'forecast': 'fp16', 'imagine': 'int8'}
    """
    if "=" not in text:
        return dict.fromkeys(GRAPHS, _known(text))
    pairs = [part.partition("=") for part in text.split(",")]
    chosen = {graph.strip(): _known(precision.strip()) for graph, _, precision in pairs}
    if sorted({*chosen} - {IMAGINE}) != sorted(GRAPHS) or len(pairs) != len(chosen):
        raise UsageError(
            f"precision {text!r} must name each of {', '.join(GRAPHS)} once, "
            f"like encode=fp16,forecast=int8; {IMAGINE}= may follow"
        )
    if chosen.get(IMAGINE) in WEIGHT_ONLY:
        raise UsageError(
            f"planners cannot be in {chosen[IMAGINE]}: it only makes weights smaller, and a "
            "planner reads each of them for hundreds of candidates; choose int8, fp8 or fp16"
        )
    each = {graph: chosen[graph] for graph in GRAPHS}
    # Left out where it says nothing new, so that both spellings name the same family.
    if chosen.get(IMAGINE, AUTO) not in (AUTO, each["forecast"]):
        each[IMAGINE] = chosen[IMAGINE]
    return each


def of_planners(precision: Mapping[str, str], base: str) -> str:
    """Return the precision of planners' graphs, given that of `forecast`.

    Small weights pay if a weight is read for one row. A planner's products have hundreds of rows,
    and TensorRT-RTX 1.7 does not compile weight-only ones, so planners then stay in the base.

    Args:
        precision: of each graph.
        base: float format of the layers that are not quantized.

    Example:
        >>> of_planners({"forecast": "int8"}, "fp16"), of_planners({"forecast": "int4"}, "fp16")
        ('int8', 'fp16')
    """
    chosen = precision.get(IMAGINE, precision["forecast"])
    return base if chosen in WEIGHT_ONLY else chosen


def family_suffix(precision: Mapping[str, str], base: str, usual: str) -> str:
    """Return the last part of a family's name.

    Args:
        precision: of each graph.
        base: float format of the layers that are not quantized.
        usual: base that the name omits.

    Example:
        >>> family_suffix({"encode": "fp16", "forecast": "int8"}, "bf16", usual="fp16")
        'fp16-int8-overbf16'
    """
    each = [precision[graph] for graph in (*GRAPHS, IMAGINE) if graph in precision]
    parts = each[:1] if len(set(each)) == 1 else each
    # A float family has its format in the name already.
    unusual = base != usual and not set(each) <= set(FLOATS)
    return "-".join([*parts, f"over{base}"] if unusual else parts)


def _known(precision: str) -> str:
    if precision not in (*PRECISIONS, AUTO):
        raise UsageError(
            f"unknown precision {precision!r}; choose one of {', '.join((*PRECISIONS, AUTO))}"
        )
    return precision
