"""Blocks of a quantized graph back to float, the most harmful first.

A search uses it on calibration episodes (`mixed_precision`), the gates on held-out ones
(`pipeline.settle`). Both decide after each block whether the graph is good enough; nothing
else about a quantization is ever changed to pass.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from jetsight.errors import EngineError
from jetsight_compile.export.onnx_graph import (
    block_of,
    blocks_of,
    check_quantized,
    drop_unread,
    share,
)
from jetsight_compile.quantize.quantized import (
    F32,
    Quantized,
    Sample,
    applied,
    outputs,
    parted,
    relative_error,
)

# A quantization that keeps less than this part of the products is not worth its reformats.
FEWEST_SHARE = 0.5


@dataclass
class BlockFallback:
    """A quantization with ever more blocks in float, down to half of the products.

    Attributes:
        whole: the quantization.
        exact: the float32 graph, on which blocks are compared.
        samples: calibration inputs; those that judge are taken.
        graph: the float graph of any format that the result is written into; `exact` if None.
        kept: blocks in float, in the order in which they went back.
    """

    whole: Quantized
    exact: onnx.ModelProto
    samples: Sequence[Sample]
    graph: onnx.ModelProto | None = None
    kept: tuple[str, ...] = ()

    @functools.cached_property
    def order(self) -> list[str]:
        """Blocks, the most harmful first; measured by one run over the judging samples for each."""
        _, judging = parted(self.samples)
        return most_harmful(self.exact, self.whole, judging, outputs(self.exact, judging))

    def next(self, suspect: str = "") -> Quantized | None:
        """Give one block more back to float; None when half of the products would not stay.

        Args:
            suspect: the block to take, if it is one that is quantized; else the most harmful one.

        Raises:
            EngineError: ONNX Runtime cannot run the graph.
        """
        layers = self.whole.layers
        left = [block for block in blocks_of(layers) if block not in self.kept]
        # Never every block, which would be the float graph under a quantized name.
        if len(left) < 2:
            return None
        if suspect not in left or not self._leaves_half(suspect):
            suspect = next(block for block in self.order if block in left)
        if not self._leaves_half(suspect):
            return None
        self.kept = (*self.kept, suspect)
        graph = self.exact if self.graph is None else self.graph
        return restore_float(self.whole, graph, self.kept)

    def _leaves_half(self, block: str) -> bool:
        fewer = without(self.whole.layers, (*self.kept, block))
        return share(self.exact, fewer) >= FEWEST_SHARE


def restore_float(made: Quantized, graph: onnx.ModelProto, blocks: Collection[str]) -> Quantized:
    """Apply the same quantization to `graph`, some blocks float again; its error is the old one.

    Raises:
        EngineError: the quantized graph has no layers of the float graph's names.
    """
    layers = without(made.layers, blocks)
    if made.recipe is not None:
        again = applied(graph, replace(made.recipe, layers=layers), made.method, made.tried)
        return replace(again, kept=tuple(blocks))
    model = _reconnected(made.model, graph, set(made.layers) - set(layers))
    return replace(
        made,
        model=model,
        layers=layers,
        tensors=check_quantized(model, layers),
        share=share(graph, layers),
        kept=tuple(blocks),
    )


def _reconnected(
    model: onnx.ModelProto, exact: onnx.ModelProto, layers: Collection[str]
) -> onnx.ModelProto:
    """Let layers of a graph with Q/DQ pairs read again what they read in the float graph.

    For graphs of a quantizer that writes no recipe: ranges and all other layers stay as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = {node.name: node for node in exact.graph.node if node.name in layers}
    found = [node for node in copy.graph.node if node.name in wanted]
    if len(found) != len(wanted):
        raise EngineError(
            f"the quantizer renamed layers of graph {exact.graph.name!r}, so none can go back to "
            "float; check the installed onnxruntime against constraints.txt"
        )
    constants = {tensor.name: tensor for tensor in exact.graph.initializer}
    added: dict[str, onnx.TensorProto] = {}
    for node in found:
        node.input[:] = [_float_input(name, constants, added) for name in wanted[node.name].input]
    copy.graph.initializer.extend(added.values())
    _drop_dead(copy.graph)
    return copy


def _float_input(
    name: str, constants: Mapping[str, onnx.TensorProto], added: dict[str, onnx.TensorProto]
) -> str:
    """Name what a layer reads in float; a constant is `added`."""
    if name not in constants:
        return name
    # Under a name of its own: the quantizer gives its rounded bias the name of the exact one.
    if name not in added:
        tensor = added[name] = onnx.TensorProto()
        tensor.CopyFrom(constants[name])
        tensor.name = f"{name}.float"
    return str(added[name].name)


def _drop_dead(graph: onnx.GraphProto) -> None:
    """Remove the Q/DQ nodes that nothing reads any more, then their constants."""
    results = {value.name for value in graph.output}
    while True:
        read = results | {value for node in graph.node for value in node.input}
        alive = [node for node in graph.node if read.intersection(node.output)]
        if len(alive) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(alive)
    drop_unread(graph)


def most_harmful(
    graph: onnx.ModelProto, made: Quantized, judging: Sequence[Sample], expected: F32
) -> list[str]:
    """Blocks by how much error goes when this one alone is float again, most first."""
    errors = {}
    for block in blocks_of(made.layers):
        fewer = restore_float(made, graph, [block]).model
        errors[block] = relative_error(outputs(fewer, judging), expected)
    # The less error is left without a block, the more of it was that block's.
    return sorted(errors, key=errors.__getitem__)


def without(layers: Sequence[str], blocks: Collection[str]) -> tuple[str, ...]:
    """List the layers that are in none of these blocks."""
    return tuple(name for name in layers if block_of(name) not in blocks)
