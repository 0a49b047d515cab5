"""Build, prove, keep, find, load and run, through the real backend on a stand-in for the GPU."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runtime.engine_factory import ORIN, make_tensorrt_bundle
from helpers.runtime.fake_builder import FakeTensorRT

from jetsight.errors import EngineError
from jetsight.tensorrt import backend as backend_module
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.tensorrt.builder import precision_proof
from jetsight.tensorrt.builder.build import build_bundle
from jetsight.tensorrt.builder.progress import ProgressLine
from jetsight.tensorrt.builder.request import BuildContext, BuildRequest
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.testing.device import FakeDevice
from jetsight.testing.tensorrt import FakeTensorRt

FAMILY = "trt-op20-fp16"
INSPECTED = json.dumps(
    {
        "Layers": [
            {
                "Name": "product",
                "LayerType": "gemm",
                "Inputs": [{"Dimensions": [1, 288], "Format/Datatype": "Half"}],
                "Outputs": [{"Dimensions": [1, 4], "Format/Datatype": "Half"}],
            }
        ]
    }
)


class Both:
    """One module that builds what a script says, and runs it on a device."""

    def __init__(self, device: FakeDevice, golden: Mapping[str, Any]) -> None:
        def encode(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
            same = [np.array_equal(x, inputs["frame_hwc_u8"]) for x in golden["frame_hwc_u8"]]
            outputs["z"][...] = golden["z"][same.index(True)] if any(same) else 0.0

        self._runs = FakeTensorRt(device)
        self._builds = FakeTensorRT(
            plan=self._runs.plan(
                {"frame_hwc_u8": ((8, 12, 3), np.uint8)}, {"z": ((4,), np.float32)}, encode
            )
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runs if hasattr(self._runs, name) else self._builds, name)


class Machine:
    """A bundle, a device, both halves of TensorRT, and this machine's store."""

    def __init__(self, tmp_path: Path) -> None:
        self.bundle = make_tensorrt_bundle(tmp_path / "t.jetsight", families=(FAMILY,))
        self.device, self.store = FakeDevice(), EngineStore(tmp_path / "engines")
        module = Both(self.device, self.bundle.golden())
        self.library = TensorRtModule(module, "tensorrt", (10, 3, 0, 26))

    def backend(self) -> TensorRtBackend:
        return TensorRtBackend(device=self.device, store=self.store, library=self.library)

    def build(self) -> Any:
        context = BuildContext(self.library, ORIN, None, self.store, self.backend)
        request = BuildRequest(graphs=("encode",))
        (made,) = build_bundle(self.bundle, request, context, ProgressLine(io.StringIO()))
        return made.record


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(precision_proof, "inspect", lambda library, plan: INSPECTED)
    monkeypatch.setattr(backend_module, "host_spec", lambda library: ORIN)
    return Machine(tmp_path)


def test_what_was_built_is_found_loaded_and_computes(machine) -> None:
    record = machine.build()
    assert record.parity.smallest_cosine == pytest.approx(1.0)
    assert record.latency.runs >= 20
    golden, backend = machine.bundle.golden(), machine.backend()
    engine = backend.load(machine.bundle.graph(FAMILY, "encode"))
    engine.inputs["frame_hwc_u8"].write(golden["frame_hwc_u8"][1])
    engine.run()
    assert np.array_equal(engine.outputs["z"].read(), golden["z"][1])
    backend.close()


def test_a_build_gives_everything_on_the_gpu_back(machine) -> None:
    machine.build()
    assert machine.device.live == []


def test_a_graph_that_was_not_built_is_refused(machine) -> None:
    machine.build()
    with pytest.raises(EngineError, match="no engine was built for this graph"):
        machine.backend().load(machine.bundle.graph(FAMILY, "forecast"))


def test_a_failing_gate_gives_everything_back_too(machine) -> None:
    golden = {name: np.array(x) for name, x in machine.bundle.golden().items()}
    golden["z"] = -golden["z"]
    machine.library = TensorRtModule(Both(machine.device, golden), "tensorrt", (10, 3, 0, 26))
    with pytest.raises(EngineError, match="does not agree with PyTorch"):
        machine.build()
    assert machine.device.live == []
    assert machine.store.records() == []
