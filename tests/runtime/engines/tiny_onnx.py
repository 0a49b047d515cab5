"""Hand-made graphs with the tiny bundle's signatures, and a bundle that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from bundle_factory import make_bundle
from onnx import TensorProto, helper, numpy_helper

from jetsight.bundle import Bundle
from jetsight.manifest import Family

FAMILY = "trt-op23-fp16"
F32 = TensorProto.FLOAT


def encode(seed: int = 0, extra: Sequence[onnx.NodeProto] = ()) -> onnx.ModelProto:
    """`frame_hwc_u8 [8, 12, 3] -> z [4]`: one product, in float16."""
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((288, 4)).astype(np.float16) / 1000
    half = TensorProto.FLOAT16
    nodes = [
        helper.make_node("Cast", ["frame_hwc_u8"], ["c"], to=half, name="cast"),
        helper.make_node("Flatten", ["c"], ["flat"], axis=0, name="flat"),
        helper.make_node("MatMul", ["flat", "w"], ["m"], name="product"),
        helper.make_node("Reshape", ["m", "size"], ["r"], name="row"),
        helper.make_node("Cast", ["r"], ["z"], to=F32, name="back"),
        *extra,
    ]
    size = numpy_helper.from_array(np.array([4], np.int64), "size")
    ports = [helper.make_tensor_value_info("frame_hwc_u8", TensorProto.UINT8, (8, 12, 3))]
    out = [helper.make_tensor_value_info("z", F32, (4,))]
    return _model(nodes, ports, out, [numpy_helper.from_array(weight, "w"), size])


def forecast() -> onnx.ModelProto:
    """`z_hist [3, 4], a_hist [2, 4], actions [2, 4] -> z_future [2, 4]`: sums."""
    nodes = [
        helper.make_node("Add", ["a_hist", "actions"], ["a"], name="actions"),
        helper.make_node("ReduceSum", ["z_hist", "axes"], ["s"], name="sum"),
        helper.make_node("Add", ["a", "s"], ["z_future"], name="add"),
    ]
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    shapes = {"z_hist": (3, 4), "a_hist": (2, 4), "actions": (2, 4)}
    ports = [helper.make_tensor_value_info(name, F32, shape) for name, shape in shapes.items()]
    return _model(nodes, ports, [helper.make_tensor_value_info("z_future", F32, (2, 4))], [axes])


def make_tensorrt_bundle(
    target: Path, *, families: Sequence[str] = (FAMILY,), seed: int = 0, **graphs: bytes
) -> Bundle:
    """The tiny bundle with TensorRT families; `encode` and `forecast` replace their graphs."""
    content = {
        "encode": graphs.get("encode") or encode(seed).SerializeToString(),
        "forecast": graphs.get("forecast") or forecast().SerializeToString(),
    }
    return make_bundle(
        target,
        families=tuple(
            Family(name, 23, dict.fromkeys(content, name.rpartition("-")[2]), ("rtx",))
            for name in families
        ),
        gates=(),
        graphs={
            f"graphs/{family}/{name}.onnx": data
            for family in families
            for name, data in content.items()
        },
    )


def _model(nodes, ports, outputs, weights) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", ports, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
