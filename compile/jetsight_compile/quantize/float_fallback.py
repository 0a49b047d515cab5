"""Blocks of a quantized graph back to float, the most harmful first.

A search uses it on calibration episodes (`mixed_precision`), the gates of the planners on held-out
ones (`pipeline.compile`). Both decide after each block whether the graph is good enough; nothing
else about a quantization is ever changed to pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import onnx

from jetsight.errors import UsageError
from jetsight_compile.export.onnx_graph import block_of, blocks_of, share
from jetsight_compile.quantize.quantized import (
    F32,
    Quantized,
    Recipe,
    Sample,
    applied,
    error_of,
    outputs,
    parted,
)

# A quantization that keeps less than this part of the products is not worth its reformats.
FEWEST_SHARE = 0.5


def fallbacks(
    whole: Quantized,
    exact: onnx.ModelProto,
    samples: Sequence[Sample],
    graph: onnx.ModelProto | None = None,
) -> Iterator[Quantized]:
    """Yield a quantization with one block float again, with two, and so on.

    Ends when less than half of the products would stay quantized. The order of the
    blocks is measured before the first one, by one run over the judging samples for each.

    Args:
        whole: the quantization; without a recipe nothing is yielded.
        exact: the float32 graph, on which blocks are compared.
        samples: calibration inputs; those that judge are taken.
        graph: the float graph of any format that the result is written into; `exact` if None.

    Raises:
        EngineError: ONNX Runtime cannot run the graph.
    """
    if whole.recipe is None:
        return
    _, judging = parted(samples)
    order = most_harmful(exact, whole.recipe, judging, outputs(exact, judging))
    # Never every block, which would be the float graph under a quantized name.
    for count in range(1, len(order)):
        kept = order[:count]
        if share(exact, without(whole.layers, kept)) < FEWEST_SHARE:
            return
        yield restore_float(whole, exact if graph is None else graph, kept)


def restore_float(made: Quantized, graph: onnx.ModelProto, blocks: Collection[str]) -> Quantized:
    """Apply the same quantization to `graph`, some blocks float again; its error is the old one.

    Raises:
        UsageError: it has no recipe, as that of `cpu_int8`.
    """
    if made.recipe is None:
        raise UsageError("the CPU's quantization has no recipe; quantize again with keep_float")
    fewer = replace(made.recipe, layers=without(made.layers, blocks))
    again = applied(graph, fewer, made.method, made.tried)
    return replace(again, kept=tuple(blocks))


def most_harmful(
    graph: onnx.ModelProto, recipe: Recipe, judging: Sequence[Sample], expected: F32
) -> list[str]:
    """Blocks by how much error goes when this one alone is float again, most first."""
    errors = {}
    for block in blocks_of(recipe.layers):
        fewer = replace(recipe, layers=without(recipe.layers, [block]))
        errors[block] = error_of(graph, fewer, judging, expected)
    # The less error is left without a block, the more of it was that block's.
    return sorted(errors, key=errors.__getitem__)


def without(layers: Sequence[str], blocks: Collection[str]) -> tuple[str, ...]:
    """List the layers that are in none of these blocks."""
    return tuple(name for name in layers if block_of(name) not in blocks)
