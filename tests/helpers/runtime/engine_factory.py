"""Hand-made graphs with the tiny bundle's signatures, plans, records, and a bundle of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.runtime.bundle_factory import make_bundle
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.tensorrt.fingerprint import BuildOptions, Fingerprint, HostSpec
from jetsight.tensorrt.record import BuildRecord, Parity, Port

FAMILY = "trt-op23-fp16"
F32 = TensorProto.FLOAT
ORIN = HostSpec(
    library="tensorrt",
    version="10.3.0.26",
    driver="540.4.0",
    cuda="12.6",
    gpu="Orin",
    sm="8.7",
    multiprocessors=16,
    memory_mb=16384,
    l4t="36.4.3",
    power_mode="0",
)


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


def make_plan(
    version: tuple[int, int, int, int] = (10, 3, 0, 26), *, body: bytes = b"kernels" * 40
) -> bytes:
    """Bytes with the header of an engine; TensorRT-RTX's if the major version says so."""
    tag = b"vtrt" if version[0] < 8 else b"ftrt"
    size = (28 + len(body)).to_bytes(8, "little")
    return tag + bytes(4) + (2).to_bytes(8, "little") + size + bytes(version) + body


def make_record(plan: bytes, **changes: Any) -> BuildRecord:
    """A proven record of that plan; keyword arguments replace fields of it or its fingerprint."""
    print_of: dict[str, Any] = {
        "graph_sha256": "ab" * 32,
        "family": "trt-op20-fp16",
        "precision": "fp16",
        "options": BuildOptions(),
        "host": ORIN,
    }
    print_of = {key: changes.pop(key, value) for key, value in print_of.items()}
    fields: dict[str, Any] = {
        "fingerprint": Fingerprint(**print_of),
        "bundle": "tiny",
        "graph": "encode",
        "built_utc": "2026-01-31T12:00:00.000Z",
        "seconds": 1.5,
        "plan_bytes": len(plan),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_version": "TensorRT 10.3.0.26",
        "inputs": {"frame_hwc_u8": Port("uint8", (8, 12, 3))},
        "outputs": {"z": Port("float32", (4,))},
        "layers": {"MATRIX_MULTIPLY": 1},
        "parity": Parity(2, 0.9999, 0.999),
    }
    return BuildRecord(**{**fields, **changes})
