"""A stand-in for TensorRT whose engines are numpy functions on a `FakeDevice`.

It has no name that TensorRT 10.3, 11 and TensorRT-RTX do not share, and it reads and writes device
memory only at the addresses it was given, when the device gets to it.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.engine import NDArray
from jetsight.tensorrt.bindings import TENSORRT, TensorRtModule
from jetsight.testing.device import FakeDevice
from jetsight.testing.engine import Compute
from jetsight.testing.imagine import Arrays

_VERSION = (10, 3, 0, 26)  # JetPack 6
_KINDS = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bool": "BOOL",
}


class _Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class _Logger:
    """Base of loggers."""

    INTERNAL_ERROR, ERROR, WARNING = _Severity

    def __init__(self) -> None:
        pass

    def log(self, severity: _Severity, message: str) -> None:
        """Overridden."""


class _TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class _TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class _Strategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


_DataType = enum.Enum("_DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4")


@dataclass(frozen=True)
class _Script:
    """Content of a plan."""

    inputs: Arrays
    outputs: Arrays
    compute: Compute | None
    scratch_bytes: int


class FakeTensorRt:
    """A TensorRT module for `TensorRtModule`, on one device.

    Args:
        device: where its engines compute.

    Attributes:
        refuse: names of calls that fail as TensorRT does, with a line in the log: any of
            `"deserialize_cuda_engine"`, `"create_execution_context"`, `"set_tensor_address"` and
            `"execute_async_v3"`. May be changed at any time.
        deserialized: how many plans were handed to it.

    Example:
        >>> device = FakeDevice()
        >>> trt = FakeTensorRt(device)
        >>> plan = trt.plan({"x": ((2,), np.float32)}, {"y": ((2,), np.float32)}, double)
        >>> engine = TensorRtBackend(device=device, library=trt.library).load_plan(plan)
        >>> engine.inputs["x"].write(np.float32([1, 2]))
        >>> engine.run()
        >>> engine.outputs["y"].read()
        array([2., 4.], dtype=float32)
    """

    ILogger = _Logger
    TensorLocation = _TensorLocation
    TensorIOMode = _TensorIOMode
    DataType = _DataType
    ExecutionContextAllocationStrategy = _Strategy

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.refuse: set[str] = set()
        self.deserialized = 0
        self._scripts: dict[bytes, _Script] = {}
        self.runtimes: list[_Runtime] = []

    @property
    def library(self) -> TensorRtModule:
        """It, as `TensorRtBackend` takes it: TensorRT 10.3.0.26."""
        return TensorRtModule(self, TENSORRT, _VERSION)

    def plan(
        self, inputs: Arrays, outputs: Arrays, compute: Compute | None, scratch_bytes: int = 1024
    ) -> bytes:
        """Serialize an engine that `compute`s; its header is a real one.

        Args:
            inputs: `{name: (shape, dtype)}`.
            outputs: `{name: (shape, dtype)}`.
            compute: fills outputs from inputs; None leaves the outputs as they are.
            scratch_bytes: what it needs beside them, and overwrites in every run.
        """
        body = f"{len(self._scripts)} {inputs} {outputs} {scratch_bytes}".encode()
        header = b"ftrt" + bytes(20) + bytes(_VERSION)
        plan = header + hashlib.sha256(body).digest()
        self._scripts[plan] = _Script(inputs, outputs, compute, scratch_bytes)
        return plan

    def Runtime(self, logger: Any) -> _Runtime:
        """Deserializer of plans."""
        self.runtimes.append(_Runtime(self, logger))
        return self.runtimes[-1]


class _Runtime:
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self._trt, self._logger = trt, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _CudaEngine | None:
        self._trt.deserialized += 1
        script = self._trt._scripts.get(bytes(serialized_engine))
        if script is None or self._fails("deserialize_cuda_engine"):
            self._error("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (stale)")
            return None
        return _CudaEngine(self, script)

    def _fails(self, call: str) -> bool:
        if call not in self._trt.refuse:
            return False
        self._error(f"{call} was refused as the script says")
        self._error("what follows from it")
        return True

    def _error(self, message: str) -> None:
        self._logger.log(_Severity.ERROR, message)


class _CudaEngine:
    def __init__(self, runtime: _Runtime, script: _Script) -> None:
        self._runtime, self._script = runtime, script
        self._tensors = {**script.inputs, **script.outputs}
        self.num_io_tensors = len(self._tensors)
        self.device_memory_size_v2 = script.scratch_bytes

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> _TensorIOMode:
        return _TensorIOMode.INPUT if name in self._script.inputs else _TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> Any:
        kind = np.dtype(self._tensors[name][1]).name
        return _DataType[_KINDS.get(kind, kind.upper())]

    def get_tensor_location(self, name: str) -> _TensorLocation:
        return _TensorLocation.DEVICE

    def create_execution_context(self, strategy: _Strategy) -> _Context | None:
        if self._runtime._fails("create_execution_context"):
            return None
        return _Context(self._runtime, self._script, strategy)


class _Context:
    def __init__(self, runtime: _Runtime, script: _Script, strategy: _Strategy) -> None:
        self._runtime, self._script = runtime, script
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._managed = strategy is _Strategy.USER_MANAGED

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = memory, size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._runtime._fails("set_tensor_address"):
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        script, (scratch, size) = self._script, self._scratch
        if self._runtime._fails("execute_async_v3"):
            return False
        # TensorRT refuses to run as long as an address is missing.
        if set(self._addresses) != {*script.inputs, *script.outputs}:
            self._runtime._error("IExecutionContext::enqueueV3: an address was not set")
            return False
        if self._managed and size < script.scratch_bytes:
            self._runtime._error("IExecutionContext::enqueueV3: no device memory was set")
            return False
        addresses = dict(self._addresses)  # frozen, as in a captured graph
        device = self._runtime._trt.device
        device.submit(stream_handle, lambda: _compute(device, script, addresses, scratch))
        return True


def _compute(
    device: FakeDevice, script: _Script, addresses: Mapping[str, int], scratch: int
) -> None:
    inputs = {n: _tensor(device, addresses[n], *spec) for n, spec in script.inputs.items()}
    outputs = {n: _tensor(device, addresses[n], *spec) for n, spec in script.outputs.items()}
    for array in inputs.values():
        # No graph may change its inputs.
        array.flags.writeable = False
    # Spoiled in every run, so that nothing kept in scratch memory by mistake survives.
    device.view(scratch, script.scratch_bytes)[...] = 0xFF
    if script.compute is not None:
        script.compute(inputs, outputs)


def _tensor(device: FakeDevice, address: int, shape: tuple[int, ...], dtype: type) -> NDArray:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return device.view(address, nbytes).view(dtype).reshape(shape)
