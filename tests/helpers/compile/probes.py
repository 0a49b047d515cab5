"""Graph inputs, hand-made graphs and ways to look into graphs, for the quantization tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.compile.tiny_model import HISTORY, HORIZON, LATENT
from jetsight_compile.calibration.data import CalibrationWindows
from jetsight_compile.export.onnx_export import Sizes

Sample = Mapping[str, np.ndarray]


def samples_of(exports, kind: str, name: str, count: int = 40) -> list[dict[str, np.ndarray]]:
    """Random inputs of a shared model's graph."""
    rng, size = np.random.default_rng(3), Sizes.of(exports.model(kind))
    if name == "encode":
        frames = rng.integers(0, 256, (count, *size.frame), dtype=np.uint8)
        return [{"frame_hwc_u8": frame} for frame in frames]
    return [
        {
            "z_hist": rng.standard_normal((size.K, size.D)).astype(np.float32),
            "a_hist": rng.uniform(-3, 3, (size.K - 1, size.A)).astype(np.float32),
            "actions": rng.uniform(-3, 3, (size.H, size.A)).astype(np.float32),
        }
        for _ in range(count)
    ]


def windows_of(count: int, size: int = LATENT, action_size: int = 4) -> CalibrationWindows:
    """Windows of a world in which nothing depends on anything."""
    rng, length = np.random.default_rng(5), HISTORY + HORIZON
    return CalibrationWindows(
        np.arange(count)[:, None] + np.arange(length)[None],
        rng.standard_normal((count, length, size)).astype(np.float32),
        rng.uniform(-3, 3, (count, length - 1, action_size)).astype(np.float32),
        HISTORY,
    )


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    tensors: Mapping[str, np.ndarray],
    opset: int = 20,
    **ports: tuple[int, ...],
) -> onnx.ModelProto:
    """A float32 graph of these nodes; `x` is its input and `y` its output, where given shapes."""
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ports.items()
    }
    outputs = [values.pop("y")]
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(list(nodes), "probe", list(values.values()), outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be broken on purpose; shared graphs may not."""
    return onnx.ModelProto.FromString(model.SerializeToString())


def tensors_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every initializer's numbers by its name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def nodes_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Every node by its name."""
    return {node.name: node for node in model.graph.node}


def makers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Which node makes a value."""
    return {value: node for node in model.graph.node for value in node.output}


def attribute_of(node: onnx.NodeProto, name: str) -> int | None:
    """An integer attribute, if it is there."""
    return next((a.i for a in node.attribute if a.name == name), None)
