"""TensorRT's own objects: the runtime that engines share, and one deserialized engine.

Only names in both TensorRT 10.3 (JetPack 6) and 11 are used, so that one file serves every board;
TensorRT-RTX has them too. The objects must be called `trt`, `runtime`, `cuda_engine` and `context`:
a test finds their attributes in use by these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from jetsight.clock import Clock
from jetsight.engine import static_shape
from jetsight.errors import EngineError, first_line
from jetsight.tensorrt.bindings import TensorRtModule, make_logger
from jetsight.tensorrt.cuda.arrays import CudaArray
from jetsight.tensorrt.cuda.driver import Device, PyCudaDevice
from jetsight.tensorrt.cuda.stream import CudaQueue
from jetsight.tensorrt.log_messages import cuda_failure, out_of_memory, shortened

# NumPy has no bfloat16 or float8, so inputs and outputs cannot be of these types.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class SharedRuntime:
    """Parts that the engines of one backend share, while at least one of them is open.

    Attributes:
        library: the TensorRT.
        queue: stream and scratch block.
        runtime: TensorRT's; one for all, because TensorRT keeps its first logger.
        users: number of open engines.
    """

    def __init__(
        self, library: TensorRtModule, device: Device | None, sync: str, clock: Clock
    ) -> None:
        self.library = library
        self.users = 0
        # Released in reverse: TensorRT's runtime before its logger, the stream and the context.
        with ExitStack() as owned:
            if device is None:
                device = PyCudaDevice()
                owned.callback(device.close)
            self.queue = CudaQueue(device, sync, clock)
            owned.callback(self.queue.close)
            self._logger = make_logger(library)
            owned.callback(self._logger.forget)
            with device:
                self.runtime = self._make_runtime()
            owned.callback(self._drop_runtime)
            self._owned = owned.pop_all()

    def _make_runtime(self) -> Any:
        trt = self.library.module
        try:
            runtime = trt.Runtime(self._logger)
        except Exception as error:  # the bindings raise TypeError if TensorRT returned nothing
            raise self.refused("cannot start", 0, first_line(error)) from error
        # A second barrier only: published attacks claim to pass it, so digests are checked before.
        runtime.engine_host_code_allowed = False  # an engine may carry code; it must not run
        return runtime

    def _drop_runtime(self) -> None:
        with self.queue.device:
            self.runtime = None

    def error_count(self) -> int:
        """Count the errors that TensorRT has reported."""
        return len(self._logger.errors)

    def refused(self, what: str, before: int, otherwise: str = "it gave no reason") -> EngineError:
        """Make the error of a failed call.

        Args:
            what: the failed call, as a verb phrase.
            before: `error_count` before the call; the next error is TensorRT's reason.
            otherwise: reason if TensorRT reported none.
        """
        # Only those since the call: the logger is shared with the other engines.
        errors = self._logger.errors[before:] or [otherwise]
        fix = cuda_failure("\n".join(errors))
        if out_of_memory(errors):
            with self.queue.device as device:
                free, total = device.memory_info()
            fix = (
                f"{free} of {total} bytes of GPU memory are free; close other programs that use it"
            )
        return EngineError(f"{self.library} {what}: {shortened(errors)}{f'; {fix}' if fix else ''}")

    def leave(self) -> None:
        """Count one user less; release everything after the last one."""
        self.users -= 1
        if not self.users:
            self._owned.close()


class EngineContext:
    """Deserialized engine and its execution context, which uses the shared scratch block.

    Args:
        shared: parts of the backend.
        data: the serialized engine.
        owned: receives the callback that releases it.

    Raises:
        EngineError: TensorRT refuses it, or memory ran out.
    """

    def __init__(self, shared: SharedRuntime, data: bytes, owned: ExitStack) -> None:
        trt, self._shared = shared.library.module, shared
        self.cuda_engine: Any = None
        self.context: Any = None
        owned.callback(self.close)  # before anything is made: a failure below releases what exists
        before = shared.error_count()
        self.cuda_engine = shared.runtime.deserialize_cuda_engine(data)
        if self.cuda_engine is None:
            what = "cannot load the engine (run: jetsight build BUNDLE --force)"
            raise shared.refused(what, before)
        shared.queue.reserve(self.cuda_engine.device_memory_size_v2)
        # Engines run in turn, so one block of the largest size serves all of them.
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.context = self.cuda_engine.create_execution_context(strategy)
        if self.context is None:
            raise shared.refused("cannot make an execution context", before)

    def close(self) -> None:
        """Release both, the context first."""
        with self._shared.queue.device:
            self.context = None
            self.cuda_engine = None

    def tensors(self) -> list[tuple[str, bool, tuple[int, ...], np.dtype[Any]]]:
        """List name, whether it is an input, shape and dtype of every input and output."""
        trt, cuda_engine = self._shared.library.module, self.cuda_engine
        found = []
        for index in range(cuda_engine.num_io_tensors):
            name = cuda_engine.get_tensor_name(index)
            kind = cuda_engine.get_tensor_dtype(name).name
            if kind not in _DTYPES:
                raise EngineError(f"{name!r} is a {kind}; expected one of {list(_DTYPES)}")
            # Shape tensors are in host memory, and every array here has a GPU address.
            if cuda_engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise EngineError(
                    f"{name!r} is a shape tensor; export the graph with static shapes"
                )
            shape = static_shape(name, [int(n) for n in cuda_engine.get_tensor_shape(name)])
            is_input = cuda_engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found.append((name, is_input, shape, np.dtype(_DTYPES[kind])))
        return found

    def point(self, arrays: Sequence[tuple[str, CudaArray]]) -> None:
        """Set the addresses of the tensors and of the scratch block in the context."""
        context, queue, before = self.context, self._shared.queue, self._shared.error_count()
        # Set with every change of address: another engine may have made the block grow.
        context.set_device_memory(queue.scratch_address, queue.scratch_bytes)
        for name, array in arrays:
            if not context.set_tensor_address(name, array.address):
                raise self._shared.refused(f"refuses the address of {name!r}", before)

    def enqueue(self) -> None:
        """Enqueue one run on the stream."""
        context, before = self.context, self._shared.error_count()
        # It releases the GIL, in TensorRT 10.3 and in 11.
        if not context.execute_async_v3(self._shared.queue.stream):
            raise self._shared.refused("failed to run", before)
