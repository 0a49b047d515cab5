"""Number formats a graph can be in, and how a choice of them is written."""

from __future__ import annotations

from collections.abc import Mapping

from jetsight.bundle.manifest import GRAPHS
from jetsight.errors import UsageError

# Float formats first, then quantized ones, each group from exact to coarse.
FLOATS = ("fp32", "fp16", "bf16")
QUANTIZED = ("fp8", "int8", "int4", "nvfp4")
PRECISIONS = (*FLOATS, *QUANTIZED)
WEIGHT_ONLY = ("int4", "nvfp4")
# Prefix of the planners' graphs, and their common name where precisions are written.
IMAGINE = "imagine"
# Chosen by measurement: the cheapest that passes, block by block.
AUTO = "auto"
# Ways to find the range of an activation: all, those of ONNX Runtime's quantizer, which makes the
# CPU families, and those of `quantize.ranges`, which makes TensorRT's.
METHODS = ("max", "percentile", "entropy", "mse")
CPU_METHODS = ("max", "percentile", "entropy")
TENSORRT_METHODS = ("max", "percentile", "mse")


def parse(text: str) -> dict[str, str]:
    """A precision per graph.

    Args:
        text: one precision for all graphs, or one each: `encode=fp16,forecast=int8`. Planners'
            graphs, which mostly consist of it, get that of `forecast` unless `imagine=` follows;
            see `of_planners`.

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
    if chosen.get(IMAGINE, AUTO) not in (AUTO, each["forecast"]):
        each[IMAGINE] = chosen[IMAGINE]
    return each


def of_planners(precision: Mapping[str, str], base: str) -> str:
    """The precision of planners' graphs, once that of `forecast` is known.

    Small weights pay where a weight is read for one row. A planner's products have hundreds of
    rows, and TensorRT-RTX 1.7 does not compile them, so planners stay in the base beside them.

    Args:
        precision: of each graph.
        base: float format of what a quantization leaves float.

    Example:
        >>> of_planners({"forecast": "int8"}, "fp16"), of_planners({"forecast": "int4"}, "fp16")
        ('int8', 'fp16')
    """
    chosen = precision.get(IMAGINE, precision["forecast"])
    return base if chosen in WEIGHT_ONLY else chosen


def family_suffix(precision: Mapping[str, str], base: str, usual: str) -> str:
    """Last part of a family's name.

    Args:
        precision: of each graph.
        base: float format of what a quantization leaves float.
        usual: the base that is not named.

    Example:
        >>> family_suffix({"encode": "fp16", "forecast": "int8"}, "bf16", usual="fp16")
        'fp16-int8-overbf16'
    """
    each = [precision[graph] for graph in (*GRAPHS, IMAGINE) if graph in precision]
    parts = each[:1] if len(set(each)) == 1 else each
    unusual = base != usual and not set(each) <= set(FLOATS)
    return "-".join([*parts, f"over{base}"] if unusual else parts)


def _known(precision: str) -> str:
    if precision not in (*PRECISIONS, AUTO):
        raise UsageError(
            f"unknown precision {precision!r}; choose one of {', '.join((*PRECISIONS, AUTO))}"
        )
    return precision
