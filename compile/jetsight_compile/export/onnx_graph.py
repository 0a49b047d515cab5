"""Layers of a graph that may be quantized, the block of each, and its arithmetic.

A layer is a Conv, Gemm or MatMul node with a constant weight; a block is what falls back to float
as a whole, like one transformer block over all unrolled steps.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection, Iterable, Sequence

import onnx

from jetsight.errors import EngineError, UsageError

WEIGHTED = ("Conv", "Gemm", "MatMul")
# Never quantized: resizing is exact arithmetic on pixels, and the action embedding is a few
# numbers through layers of ten columns, where rounding costs much and saves nothing. The layers
# that score a planner's candidates must not add an error of their own.
ALWAYS_FLOAT = ("pixels/*", "action_embedding.*", "judge/*")
# Latents are compared and fed back, so their own layers stay float if they are few of the
# products: of pusht-nano's int8 noise a third came from them. In planners always, because each
# of 300 candidates has its own rounding.
_IMAGINE, _LATENTS, _FEW = "imagine_", "project[./]*", 0.02
_STEP = re.compile(r"step\d+/")
_OWNER = r"(?:\w+\.)?(?:cameras\.\d+\.)?"
_BLOCK = re.compile(rf"({_OWNER}(?:blocks|layers)\.\d+|{_OWNER}(?:last|projector|project))\b")


def quantizable(graph: onnx.ModelProto, keep_float: Sequence[str] = ()) -> list[str]:
    """Names of the layers that may be quantized, in the order they run.

    Raises:
        UsageError: a pattern matches no layer, or none is left.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    # Products of two activations, which are those of attention, have no constant and stay float.
    names = [n.name for n in weighted(graph) if constants.intersection(n.input[:2])]
    for pattern in keep_float:
        # A misspelt pattern would otherwise quantize the very layer that it was to protect.
        if not any(_matches(name, [pattern]) for name in names):
            raise UsageError(f"--keep-float {pattern!r} matches no layer; layers are {names}")
    latents = [name for name in names if _matches(name, [_LATENTS])]
    if not graph.graph.name.startswith(_IMAGINE) and share(graph, latents) > _FEW:
        latents = []
    always = [*ALWAYS_FLOAT, *keep_float]
    left = [name for name in names if name not in latents and not _matches(name, always)]
    if not left:
        raise UsageError("no layer is left to quantize; drop a --keep-float or choose fp32")
    return left


def weighted(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the matrix products and convolutions of a graph, with or without a constant weight."""
    return [node for node in graph.graph.node if node.op_type in WEIGHTED]


def matches_any(graph: onnx.ModelProto, pattern: str) -> bool:
    """Return whether a pattern of layer names fits any weighted node of a graph."""
    return any(_matches(node.name, [pattern]) for node in weighted(graph))


def block_of(layer: str) -> str:
    """Name the block a layer falls back to float with.

    Example:
        >>> block_of("step3/blocks.0.mlp.up/Gemm"), block_of("trunk.hidden/Gemm")
        ('blocks.0', 'trunk.hidden')
    """
    # Without the step, since unrolled steps share a weight and can only fall back together.
    plain = _STEP.sub("", layer).rsplit("/", 1)[0]
    match = _BLOCK.match(plain)
    return match[1] if match else plain


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node reads any more."""
    read = {value for node in graph.node for value in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    # In place: a repeated field of a protobuf message cannot be assigned.
    del graph.initializer[:]
    graph.initializer.extend(kept)


def blocks_of(layers: Iterable[str]) -> dict[str, list[str]]:
    """Layers by block, blocks in the order they run first."""
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        blocks.setdefault(block_of(layer), []).append(layer)
    return blocks


def work(graph: onnx.ModelProto) -> dict[str, int]:
    """Count the multiply-accumulates of every product and convolution, by node name.

    Raises:
        EngineError: a shape cannot be inferred.
    """
    return {node.name: count for node, count in _counted(graph)}


def graph_flop(graph: bytes) -> int:
    """Count the multiplications and additions of the products and convolutions of a float graph.

    Everything else (norms, softmax, activations) is left out, by convention.

    Raises:
        EngineError: a shape cannot be inferred.
    """
    return 2 * sum(count for _, count in _counted(onnx.load_from_string(graph)))


def share(graph: onnx.ModelProto, layers: Collection[str]) -> float:
    """Part of a float graph's multiply-accumulates that is in `layers`, 0 to 1."""
    each = work(graph)
    return sum(each[name] for name in layers) / max(sum(each.values()), 1)


def check_quantized(
    model: onnx.ModelProto, layers: Sequence[str], *, activations: bool = True
) -> int:
    """Count quantized tensors, having proved that each of `layers` reads dequantized ones.

    Quantizers have been seen to insert nothing without an error, hence the check.

    Args:
        model: the quantized graph.
        layers: names of the layers that were to be quantized.
        activations: the first input is quantized too, not the weight alone.

    Raises:
        EngineError: a layer is missing, or an input of it is still float.
    """
    nodes = {node.name: node for node in model.graph.node}
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for name in layers:
        inputs = [value in dequantized for value in nodes[name].input[:2]] if name in nodes else []
        if inputs != [activations, True]:
            raise EngineError(
                f"the quantizer left layer {name!r} in float (inputs quantized: {inputs}); check "
                "the installed onnxruntime and nvidia-modelopt against constraints.txt"
            )
    # A set, because unrolled steps read the same dequantized weight.
    read = {value for node in map(nodes.get, layers) if node for value in node.input[:2]}
    return len(read & dequantized)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a layer matches, with or without the prefix of its unrolled step."""
    plain = _STEP.sub("", name)
    # Plain fnmatch follows the operating system's rules for case and slashes.
    return any(fnmatch.fnmatchcase(n, p) for n in (name, plain) for p in patterns)


def _counted(graph: onnx.ModelProto) -> list[tuple[onnx.NodeProto, int]]:
    """Pair every weighted node with its multiply-accumulates."""
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    shapes = {name: shape for name, shape in shapes.items() if all(shape)}  # 0 is a dynamic size
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in graph.graph.initializer)
    try:
        return [(node, _products(node, shapes)) for node in weighted(graph)]
    except (KeyError, IndexError) as error:
        raise EngineError(
            f"graph {graph.graph.name!r} is not static: the shape of {error} is not known; export "
            "it with static shapes"
        ) from None


def _products(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    left, weight, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        inner = math.prod(weight[1:])  # input channels of a group times the kernel
    elif node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute):
        inner = left[0]
    else:
        inner = left[-1]
    return inner * math.prod(out)
