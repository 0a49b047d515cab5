"""CUDA graphs and a query without the GIL, which PyCUDA lacks, through ctypes.

Handles are plain integers, valid in the device's primary context.
"""

from __future__ import annotations

import ctypes
from typing import Any

from jetsight.errors import EngineError

_SUCCESS, _NOT_READY = 0, 600
_THREAD_LOCAL = 1  # CUstreamCaptureMode of trtexec: other threads may allocate during a capture

_HANDLE, _OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
# Symbols that libcuda exports under these names from CUDA 12.0 to 13; cuda.h of both maps
# cuGraphInstantiate to the one with flags.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
    "cuStreamQuery": (_HANDLE,),
    "cuCtxGetCurrent": (_OUT,),
    "cuCtxPopCurrent_v2": (_OUT,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class GraphDriver:
    """CUDA graphs through ctypes on `libcuda`; the context must be current.

    Args:
        library: an opened libcuda; None for the system's.

    Raises:
        EngineError: there is none, or it is too old for CUDA graphs.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1") if library is None else library
            for name, arguments in _SIGNATURES.items():
                function = getattr(self._library, name)
                # Else ctypes would pass handles as 32-bit integers.
                function.argtypes, function.restype = arguments, ctypes.c_int
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"libcuda.so.1 cannot be used ({error}); expected the driver of CUDA 12 or newer: "
                "update the NVIDIA driver, see jetsight doctor"
            ) from error

    def begin_capture(self, stream: int) -> None:
        """Collect what is enqueued on `stream` instead of running it."""
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Stop collecting and make a launchable graph of it.

        Raises:
            EngineError: some of the work cannot be captured, or the graph is refused. The stream
                has left capture mode in any case.
        """
        template, graph = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            self._call("cuStreamEndCapture", stream, ctypes.byref(template))
            if not template.value:
                raise EngineError("cuStreamEndCapture returned no graph; the capture was void")
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), template, 0)
        finally:
            if template.value:
                self._library.cuGraphDestroy(template)  # the executable graph is a copy
        if not graph.value:
            raise EngineError("cuGraphInstantiateWithFlags returned no graph")
        return graph.value

    def launch(self, graph: int, stream: int) -> None:
        """Run a graph on `stream`."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy(self, graph: int) -> None:
        """Release a graph."""
        self._call("cuGraphExecDestroy", graph)

    def is_done(self, stream: int) -> bool:
        """Return whether everything enqueued on `stream` has finished."""
        # Not `_call`: NOT_READY is an answer, not an error. ctypes releases the GIL.
        code = self._library.cuStreamQuery(stream)
        if code == _NOT_READY:
            return False
        if code != _SUCCESS:
            raise self._failed("cuStreamQuery", code)
        return True

    def forget_context(self, context: int) -> None:
        """Pop `context` from this thread's stack of current contexts if it is on top."""
        # PyCUDA leaves a primary context there after it has released it.
        current = ctypes.c_void_p()
        self._library.cuCtxGetCurrent(ctypes.byref(current))
        if current.value == context:
            self._library.cuCtxPopCurrent_v2(ctypes.byref(current))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != _SUCCESS:
            raise self._failed(name, code)

    def _failed(self, name: str, code: int) -> EngineError:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(code, ctypes.byref(text))
        error = (text.value or b"an unknown error").decode(errors="replace")
        return EngineError(f"the CUDA driver refused {name}: {error} ({code})")
