"""Who races: each backend on each family, torch eager and torch.compile, on the same frames.

Shapes: h, w frame size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jetsight.backends import registry
from jetsight.engine import Engine, NDArray
from jetsight_compile.bench.timing import Contestant
from jetsight_train.model.world_model import WorldModel

EAGER, COMPILED = "torch eager", "torch.compile"


@dataclass(frozen=True)
class Subject:
    """A model in all its forms, and the frames everybody encodes.

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
    """Everyone who can encode a frame of `subject` here, torch eager first."""
    frames = list(subject.frames_u8)
    engines = [
        _engine(f"{name} {family}", name, family, graph, "frame_hwc_u8", frames, threads)
        for family, graph in subject.graphs.items()
        for name in installed(family)
    ]
    return [_eager(subject), _compiled(subject), *engines]


def gemm_contestants(
    graphs: Mapping[str, bytes], inputs: Sequence[NDArray], threads: int
) -> list[Contestant]:
    """One large product through everything that may be fastest at it; `graphs` by family."""
    engines = [
        _engine(f"{name} {family}", name, family, graph, "x", inputs, threads)
        for family, graph in graphs.items()
        for name in installed(family)
    ]
    return [_torch_gemm(inputs), *engines]


def installed(family: str) -> list[str]:
    """Names of the backends that can run `family` here, the preferred one first."""
    return [info.name for info in registry.available() if info.reason is None and info.runs(family)]


def _engine(
    label: str, backend: str, family: str, graph: bytes, port: str, pool: Sequence[NDArray],
    threads: int,
) -> Contestant:  # fmt: skip
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

    return Contestant(label, prepare, close)


def _eager(subject: Subject) -> Contestant:
    return Contestant(EAGER, lambda: _torch_call(subject.model.encode, subject.frames_u8))


def _compiled(subject: Subject) -> Contestant:
    def prepare() -> Callable[[int], object]:
        encode = torch.compile(subject.model.encode, dynamic=False)
        return _torch_call(encode, subject.frames_u8)

    # What inductor compiled for this model is of no use to the next one.
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
