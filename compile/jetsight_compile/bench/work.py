"""How much arithmetic a graph asks for, and how much this machine can do at best.

Shapes: M rows, K inner, N columns of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jetsight.engine import NDArray
from jetsight.errors import EngineError

_EDGE = 1024  # of the square matrices of the peak: large enough to be bound by arithmetic


def graph_flop(graph: bytes) -> int:
    """Multiplications and additions of the matrix products and convolutions of a float graph.

    Everything else (norms, softmax, activations) is left out, as is the custom.

    Raises:
        EngineError: the shape of a product cannot be inferred.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph), data_prop=True)
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
    }
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return sum(_node_flop(node, shapes) for node in model.graph.node)


def _node_flop(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return 0
    found = [shapes.get(name, (0,)) for name in (*node.input[:2], node.output[0])]
    if 0 in found[1] or 0 in found[2]:
        raise EngineError(f"the shape of {node.name or node.op_type} is not static")
    left, right, out = found
    if node.op_type == "Conv":
        inner = math.prod(right[1:])  # input channels of a group times the kernel
    elif node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute):
        inner = left[0]
    else:
        inner = left[-1]
    return 2 * inner * math.prod(out)


def gemm_graph(int8: bool) -> bytes:
    """One square product with a constant weight, in float32 or as u8s8 Q/DQ around it."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((_EDGE, _EDGE), dtype=np.float32)
    constants = [_tensor("w", weight)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if int8:
        constants = [
            _tensor("x_scale", np.float32(0.02)),
            _tensor("x_zero", np.uint8(128)),
            _tensor("w_scale", np.float32(0.03)),
            _tensor("w_zero", np.int8(0)),
            _tensor("w", rng.integers(-127, 127, (_EDGE, _EDGE)).astype(np.int8)),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"]),
            helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        ]
    shape = (_EDGE, _EDGE)
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def gemm_inputs(count: int) -> list[NDArray]:
    """Different square float matrices."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal((_EDGE, _EDGE), dtype=np.float32) for _ in range(count)]


def gemm_flop() -> int:
    """Multiplications and additions of one such product."""
    return 2 * _EDGE**3


def _tensor(name: str, value: NDArray | Sequence[float] | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
