"""OpenVINO on the CPU: the fastest engine on x86, for float and for u8s8 Q/DQ graphs."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from jetsight.backends.host_arrays import HostArray, HostEngine
from jetsight.engine import static_shape
from jetsight.errors import EngineError, MissingDependency, first_line
from jetsight.machine.cpu import default_threads

_DTYPES = {
    "f32": np.float32,
    "u8": np.uint8,
    "i64": np.int64,
    "i32": np.int32,
    "boolean": np.bool_,
}


class OpenVinoBackend:
    """Loads graphs into OpenVINO's CPU plugin.

    Graphs run in their own precision; Q/DQ graphs run in INT8.

    Args:
        threads: inference threads; None for one per physical core.

    Raises:
        MissingDependency: openvino is not installed.
    """

    name = "openvino"

    def __init__(self, *, threads: int | None = None) -> None:
        _silence_telemetry()
        try:
            import openvino
        except ImportError:
            raise MissingDependency("openvino", "cpu", "running a bundle on the CPU") from None
        self._library = openvino
        self._core = _core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Else the plugin turns float graphs into bfloat16 on CPUs that have it, and parity with
            # the reference would depend on the machine.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": "1",  # one request runs at a time
            # A pinned thread waits for other programs on its core, like a camera's decoder.
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_NUM_THREADS": str(threads or default_threads()),
        }

    def load(self, graph: bytes) -> OpenVinoEngine:
        """Load checked ONNX bytes.

        Raises:
            EngineError: the library refuses the graph, or its shapes are not static.
        """
        try:
            model = self._core.read_model(graph)
            compiled = self._core.compile_model(model, "CPU", self._options)
        except Exception as error:  # mostly RuntimeError; the library's errors share no base
            version = self._library.__version__.split("-")[0]
            raise EngineError(
                f"openvino {version} cannot load the graph: {first_line(error)}"
            ) from error
        return OpenVinoEngine(self._library, compiled)


@functools.cache
def _core() -> Any:
    """Return the one core of this process, which is never released."""
    import openvino

    # On CPUs with AMX the plugin installs a stack for signal handlers in the thread that loads it,
    # and removes it when it is unloaded. With a second core, or when another thread unloads it, the
    # wrong stack is left behind, and the next signal ends the process (openvino 2026.4).
    return openvino.Core()


def _silence_telemetry() -> None:
    """Keep `import openvino` from reporting to an analytics service."""
    # To report it starts a thread, forks this process, and without a network delays the exit by
    # seconds. OpenVINO has a stub for the case that the package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class OpenVinoEngine(HostEngine):
    """One compiled graph with one inference request over preallocated tensors."""

    def __init__(self, library: Any, compiled: Any) -> None:
        self._library = library
        self._compiled = compiled
        self._ports = {port.get_any_name(): port for port in [*compiled.inputs, *compiled.outputs]}
        # Before the base class, which binds the arrays.
        self._request = compiled.create_infer_request()
        super().__init__(
            {port.get_any_name(): self._array(port) for port in compiled.inputs},
            {port.get_any_name(): self._array(port) for port in compiled.outputs},
        )

    def _array(self, port: Any) -> HostArray:
        name, kind = port.get_any_name(), port.get_element_type().get_type_name()
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise EngineError(f"{name!r} is a {kind}; expected one of {list(_DTYPES)}")
        sizes = [d.get_length() if d.is_static else str(d) for d in port.get_partial_shape()]
        return HostArray(
            static_shape(name, sizes),
            np.dtype(dtype),
            lambda host: self._library.Tensor(host, shared_memory=True),
        )

    def _point(self, name: str, array: HostArray) -> None:
        self._request.set_tensor(self._ports[name], array.handle)

    def run(self) -> None:
        """Compute the outputs.

        Raises:
            EngineError: the library failed, or the engine was closed.
        """
        if self._request is None:
            raise EngineError("the engine was closed and cannot run; load the graph again")
        try:
            self._request.infer(share_outputs=True)  # no copy: results are read from our tensors
        except Exception as error:
            raise EngineError(f"openvino failed to run: {first_line(error)}") from error

    def close(self) -> None:
        """Release the request, the compiled graph and every array the engine holds."""
        self._request = None
        self._compiled = None
        self._ports = {}
        self._inputs, self._outputs = {}, {}
