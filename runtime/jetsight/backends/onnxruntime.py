"""ONNX Runtime on the CPU: the portable default, and the reference for every other backend."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from jetsight.backends.host_arrays import HostArray, HostEngine
from jetsight.engine import static_shape
from jetsight.errors import EngineError, MissingDependency, first_line
from jetsight.machine.cpu import default_threads, has_vnni

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeBackend:
    """Loads graphs into ONNX Runtime's CPU provider.

    Args:
        threads: threads inside one operator; None for one per physical core.
        spin: let worker threads wait actively between operators: lower latency, but the cores stay
            busy; off by default, because camera decoder and planner share them.
        optimise: let the library rewrite the graph; off to compute its exact operators, as in the
            gates of graphs that are meant for another compiler.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(
        self, *, threads: int | None = None, spin: bool = False, optimise: bool = True
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency("onnxruntime", "cpu", "running a bundle on the CPU") from None
        self._library = onnxruntime
        self._threads = threads or default_threads()
        self._spin = spin
        self._optimise = optimise

    def load(self, graph: bytes) -> OnnxRuntimeEngine:
        """Load checked ONNX bytes.

        Raises:
            EngineError: the library refuses the graph, or its shapes are not static.
        """
        library = self._library
        try:
            session = self._session(graph)
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"onnxruntime {library.__version__} cannot load the graph: {first_line(error)}"
            ) from error
        return OnnxRuntimeEngine(library, session)

    def _session(self, graph: bytes) -> Any:
        providers = ["CPUExecutionProvider"]
        options = self._options()
        if not has_vnni():
            # u8s8 kernels would saturate in 16 bits. The rewrite to u8u8 that avoids it costs no
            # time, but fails on graphs whose weights share one zero point: they run as they are.
            options.add_session_config_entry("session.x64quantprecision", "1")
            with contextlib.suppress(Exception):
                return self._library.InferenceSession(graph, options, providers=providers)
            options = self._options()
        return self._library.InferenceSession(graph, options, providers=providers)

    def _options(self) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # nothing on stderr; failures are raised as exceptions
        if not self._optimise:
            # onnxruntime 1.32 turns float16 and FP8 Q/DQ pairs around a ReLU into something else.
            off = self._library.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = off
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._spin)))
        return options


class OnnxRuntimeEngine(HostEngine):
    """One loaded graph with its binding to the arrays."""

    def __init__(self, library: Any, session: Any) -> None:
        self._library = library
        self._session = session
        self._binding = session.io_binding()  # before the base class, which binds the arrays
        super().__init__(
            {node.name: self._array(node) for node in session.get_inputs()},
            {node.name: self._array(node) for node in session.get_outputs()},
        )

    def _array(self, node: Any) -> HostArray:
        dtype = _DTYPES.get(node.type)
        if dtype is None:
            raise EngineError(f"{node.name!r} is a {node.type}; expected one of {list(_DTYPES)}")
        wrap = self._library.OrtValue.ortvalue_from_numpy  # shares the memory on the CPU
        return HostArray(static_shape(node.name, node.shape), np.dtype(dtype), wrap)

    def _point(self, name: str, array: HostArray) -> None:
        binding = self._binding
        bind = binding.bind_ortvalue_input if name in self._inputs else binding.bind_ortvalue_output
        bind(name, array.handle)

    def run(self) -> None:
        """Compute the outputs.

        Raises:
            EngineError: the library failed, or the engine was closed.
        """
        if self._session is None:
            raise EngineError("the engine was closed and cannot run; load the graph again")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"onnxruntime failed to run: {first_line(error)}") from error

    def close(self) -> None:
        """Release the session and every array the engine holds."""
        self._binding = None
        self._session = None
        self._inputs, self._outputs = {}, {}
