"""A tiny bundle whose graphs really run: a linear camera and a linear world, in fp32 and int8.

8 x 12 px camera at 10 Hz, K=3, B=2, H=2, a=2, D=4, as in `bundle_factory`. The numpy functions here
are the reference of every backend; `golden.npz` is made with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.runtime.bundle_factory import make_golden, make_manifest
from jetsight.bundle import golden
from jetsight.bundle.bundle import Bundle, write_bundle

HEIGHT, WIDTH, D, K, H, A = 8, 12, 4, 3, 2, 4
_RNG = np.random.default_rng(7)
PIXELS = (_RNG.standard_normal((HEIGHT * WIDTH * 3, D)) / 255 / 8).astype(np.float32)
LAST = np.array([[0, 0, 1], [0, 0, 1]], np.float32)  # [H,K]: start from the newest latent
SUM = np.array([[1, 0], [1, 1]], np.float32)  # [H,H]: actions add up
ACTIONS = (_RNG.standard_normal((A, D)) * 1e-3).astype(np.float32)
PAST = np.full((H, K - 1), 0.5, np.float32)
MOMENTUM = (_RNG.standard_normal((A, D)) * 1e-4).astype(np.float32)

NDArray = np.ndarray[Any, Any]


def encode(frame_hwc_u8: NDArray) -> NDArray:
    """z [D] of one frame."""
    return frame_hwc_u8.reshape(-1).astype(np.float32) @ PIXELS


def forecast(z_hist: NDArray, a_hist: NDArray, actions: NDArray) -> NDArray:
    """z_future [H,D]."""
    return LAST @ z_hist + SUM @ (actions @ ACTIONS) + PAST @ (a_hist @ MOMENTUM)


def _tensor(name: str, value: NDArray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _value(name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def encode_graph(scale: float = 1.0, *, height: int = HEIGHT, int8: bool = False) -> bytes:
    """ONNX bytes of `encode`; `scale` spoils it for negative controls."""
    weight = PIXELS[: height * WIDTH * 3] * np.float32(scale)
    shape = _tensor("row", np.array([1, height * WIDTH * 3], np.int64))
    flat = _tensor("flat", np.array([D], np.int64))
    nodes = [
        helper.make_node("Cast", ["frame_hwc_u8"], ["f32"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f32", "row"], ["x"]),
    ]
    constants = [shape, flat]
    if int8:
        nodes += _quantized_matmul("x", weight, "y", 1.0, 0, constants)
    else:
        nodes.append(helper.make_node("MatMul", ["x", "W"], ["y"]))
        constants.append(_tensor("W", weight))
    nodes.append(helper.make_node("Reshape", ["y", "flat"], ["z"]))
    inputs = [_value("frame_hwc_u8", (height, WIDTH, 3), TensorProto.UINT8)]
    return _model(nodes, inputs, [_value("z", (D,))], constants)


def _quantized_matmul(
    x: str, weight: NDArray, out: str, x_scale: float, x_zero: int, constants: list[Any]
) -> list[Any]:
    """u8s8 Q/DQ around a MatMul, as ONNX Runtime's quantizer writes it."""
    w_scale = np.float32(np.abs(weight).max() / 127)
    constants += [
        _tensor("xs", np.float32(x_scale)),
        _tensor("xz", np.uint8(x_zero)),
        _tensor("ws", w_scale),
        _tensor("wz", np.int8(0)),
        _tensor("Wq", np.round(weight / w_scale).astype(np.int8)),
    ]
    return [
        helper.make_node("QuantizeLinear", [x, "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["Wq", "ws", "wz"], ["Wd"]),
        helper.make_node("MatMul", ["xd", "Wd"], [out]),
    ]


def forecast_graph() -> bytes:
    """ONNX bytes of `forecast`."""
    names = {"last": LAST, "sum": SUM, "M": ACTIONS, "past": PAST, "P": MOMENTUM}
    nodes = [
        helper.make_node("MatMul", ["last", "z_hist"], ["start"]),
        helper.make_node("MatMul", ["actions", "M"], ["moves"]),
        helper.make_node("MatMul", ["sum", "moves"], ["moved"]),
        helper.make_node("MatMul", ["a_hist", "P"], ["pushes"]),
        helper.make_node("MatMul", ["past", "pushes"], ["pushed"]),
        helper.make_node("Add", ["start", "moved"], ["sofar"]),
        helper.make_node("Add", ["sofar", "pushed"], ["z_future"]),
    ]
    inputs = [_value("z_hist", (K, D)), _value("a_hist", (K - 1, A)), _value("actions", (H, A))]
    constants = [_tensor(name, value) for name, value in names.items()]
    return _model(nodes, inputs, [_value("z_future", (H, D))], constants)


def reference() -> dict[str, NDArray]:
    """Golden arrays: random inputs and what numpy makes of them."""
    arrays = make_golden(make_manifest(), samples=3)
    arrays["z"] = np.stack([encode(frame) for frame in arrays["frame_hwc_u8"]])
    inputs = zip(arrays["z_hist"], arrays["a_hist"], arrays["actions"], strict=True)
    arrays["z_future"] = np.stack([forecast(*each) for each in inputs]).astype(np.float32)
    return arrays


def make_live_bundle(
    target: Path, graphs: dict[str, bytes] | None = None, **changes: Any
) -> Bundle:
    """Write the bundle to `target`; `graphs` replaces graph files by bundle path."""
    files = {
        "graphs/cpu-fp32/encode.onnx": encode_graph(),
        "graphs/cpu-fp32/forecast.onnx": forecast_graph(),
        "graphs/cpu-int8/encode.onnx": encode_graph(int8=True),
        "graphs/cpu-int8/forecast.onnx": forecast_graph(),
        "golden.npz": golden.dump(reference()),
    }
    return write_bundle(target, make_manifest(**changes), {**files, **(graphs or {})})
