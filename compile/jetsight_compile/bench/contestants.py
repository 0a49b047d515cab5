"""Contestants of a benchmark: backends with their families, torch eager and torch.compile.

Shapes: h, w frame size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from jetsight.backends import registry
from jetsight.engine import Engine, NDArray
from jetsight_compile.bench.timing import Contestant
from jetsight_train.model.world_model import WorldModel

EAGER, COMPILED = "torch eager", "torch.compile"
_EDGE = 1024  # size of the square matrices of the peak: large enough to be bound by arithmetic


@dataclass(frozen=True)
class Subject:
    """One model in all its forms, and the frames that all contestants encode.

    Args:
        name: e.g. `"pusht-nano"`.
        model: in torch, in evaluation mode.
        graphs: ONNX bytes of `encode` by family, `"cpu-fp32"` among them.
        frames_u8: `[n, h, w, 3]`.
    """

    name: str
    model: WorldModel
    graphs: Mapping[str, bytes]
    frames_u8: NDArray


def contestants(subject: Subject, threads: int) -> list[Contestant]:
    """List the contestants that can encode a frame of `subject` here, torch eager first."""
    engines = _engines(subject.graphs, "frame_hwc_u8", list(subject.frames_u8), threads)
    return [_eager(subject), _compiled(subject), *engines]


def gemm_contestants(
    graphs: Mapping[str, bytes], inputs: Sequence[NDArray], threads: int
) -> list[Contestant]:
    """List the contestants for one large product, torch first; `graphs` by family."""
    return [_torch_gemm(inputs), *_engines(graphs, "x", inputs, threads)]


def installed(family: str) -> list[str]:
    """List the backends that can run `family` here, the preferred one first."""
    return [info.name for info in registry.available() if info.reason is None and info.runs(family)]


def _engines(
    graphs: Mapping[str, bytes], port: str, pool: Sequence[NDArray], threads: int
) -> list[Contestant]:
    return [
        _engine(backend, family, graph, port, pool, threads)
        for family, graph in graphs.items()
        for backend in installed(family)
    ]


def _engine(
    backend: str, family: str, graph: bytes, port: str, pool: Sequence[NDArray], threads: int
) -> Contestant:
    loaded: list[Engine] = []

    def prepare() -> Callable[[int], object]:
        engine = registry.open_backend(backend, family, threads=threads).load(graph)
        loaded.append(engine)
        source, result = engine.inputs[port], next(iter(engine.outputs.values()))

        def call(number: int) -> NDArray:
            source.write(pool[number])
            engine.run()
            return result.read()

        return call

    def close() -> None:
        for engine in loaded:
            engine.close()

    return Contestant(f"{backend} {family}", prepare, close)


def _eager(subject: Subject) -> Contestant:
    return Contestant(EAGER, lambda: _torch_call(subject.model.encode, subject.frames_u8))


def _compiled(subject: Subject) -> Contestant:
    def prepare() -> Callable[[int], object]:
        encode = torch.compile(subject.model.encode, dynamic=False)
        return _torch_call(encode, subject.frames_u8)

    # The next model cannot use inductor's compiled code of this one.
    return Contestant(COMPILED, prepare, torch.compiler.reset)


def _torch_call(
    encode: Callable[[torch.Tensor], torch.Tensor], frames_u8: NDArray
) -> Callable[[int], object]:
    frames = [torch.from_numpy(np.ascontiguousarray(frame))[None] for frame in frames_u8]

    def call(number: int) -> NDArray:
        with torch.inference_mode():
            z: NDArray = encode(frames[number])[0].numpy()
        return z

    return call


def _torch_gemm(inputs: Sequence[NDArray]) -> Contestant:
    def prepare() -> Callable[[int], object]:
        pool = [torch.from_numpy(matrix) for matrix in inputs]
        weight = pool[0].clone()

        def call(number: int) -> object:
            with torch.inference_mode():
                return pool[number] @ weight

        return call

    return Contestant("torch fp32", prepare)


def gemm_graph(int8: bool) -> bytes:
    """Build a square product with a constant weight, in float32 or between u8s8 Q/DQ pairs."""
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
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (_EDGE, _EDGE)) for n in "xy"]
    graph = helper.make_graph(nodes, "gemm", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def gemm_inputs(count: int) -> list[NDArray]:
    """Draw different square float matrices."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal((_EDGE, _EDGE), dtype=np.float32) for _ in range(count)]


def gemm_flop() -> int:
    """Count the multiplications and additions of one such product."""
    return 2 * _EDGE**3


def _tensor(name: str, value: NDArray | Sequence[float] | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
