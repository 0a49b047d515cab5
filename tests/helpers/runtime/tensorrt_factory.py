"""Tiny engines on a fake GPU: doubling, adding up, and a backend to load them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jetsight.tensorrt.backend import TensorRtBackend, TensorRtEngine
from jetsight.testing import FakeDevice, FakeTensorRt

NDArray = np.ndarray[Any, Any]
X = {"x": ((3,), np.float32)}
Y = {"y": ((3,), np.float32)}


def double(inputs: Mapping[str, NDArray], outputs: Mapping[str, NDArray]) -> None:
    """`y = 2 x`."""
    outputs["y"][...] = 2 * inputs["x"]


class Rig:
    """A fake GPU, a fake TensorRT on it, and a backend.

    Args:
        device: the GPU; a default one if None.
        options: of the backend.
    """

    def __init__(self, device: FakeDevice | None = None, **options: Any) -> None:
        self.device = device or FakeDevice()
        self.trt = FakeTensorRt(self.device)
        self.backend = TensorRtBackend(device=self.device, library=self.trt.library, **options)

    def doubler(self, scratch_bytes: int = 1024) -> TensorRtEngine:
        """`y = 2 x`, three numbers."""
        return self.backend.load_plan(self.trt.plan(X, Y, double, scratch_bytes))


def run(engine: TensorRtEngine, *values: float) -> list[float]:
    """What a doubler makes of three numbers."""
    engine.inputs["x"].write(np.float32(values))
    engine.run()
    found: list[float] = engine.outputs["y"].read().tolist()
    return found
