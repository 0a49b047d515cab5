"""TensorRT on an NVIDIA GPU: engines that were built and proven on this machine, run as graphs.

graph -> engine_cache -> SharedRuntime, EngineContext    execution.py: TensorRT's own objects
                         CudaArray                       cuda/arrays.py: inputs and outputs
                         Runner                          cuda/stream.py: plain, captured or replayed
                         Device                          cuda/driver.py: the driver
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import Array, Engine
from jetsight.errors import EngineError, UsageError
from jetsight.tensorrt.bindings import TensorRtModule, open_library
from jetsight.tensorrt.cuda.arrays import CudaArray, matching
from jetsight.tensorrt.cuda.copies import CudaCopy, CudaFetch, Work
from jetsight.tensorrt.cuda.driver import Device, require_gpu
from jetsight.tensorrt.cuda.stream import CudaQueue, Parameters, Runner, checked_sync
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.execution import EngineContext, SharedRuntime
from jetsight.tensorrt.fingerprint import HostSpec, host_spec


class TensorRtBackend:
    """Loader of the engines that `jetsight build` made for graphs.

    Its engines run in turn, in one thread: they share a stream and a scratch block. Both, and the
    GPU if the backend opened it, are released with the last engine.

    Args:
        device: the GPU, owned by the caller; None for the first one, through PyCUDA.
        store: the built engines; None for this user's.
        library: the TensorRT; None for the installed one.
        sync: mode of waiting for the GPU, `"spin"`, `"block"` or `"hybrid"`; see `CudaQueue`.
        graphs: replay runs as CUDA graphs.
        timing: measure every run with events, for `device_ms`.
        clock: clock of `sync`.

    Raises:
        EngineError: there is no GPU.
        MissingDependency: no TensorRT or no PyCUDA is installed.
        UsageError: no such sync mode.
    """

    name = "tensorrt"

    def __init__(
        self,
        *,
        device: Device | None = None,
        store: EngineStore | None = None,
        library: TensorRtModule | None = None,
        sync: str = "hybrid",
        graphs: bool = True,
        timing: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if device is None:
            require_gpu()  # now: the device itself is opened with the first engine
        self._device = device
        self._library = library or open_library()
        self._store = store or EngineStore()
        self._sync = checked_sync(sync)
        self._options = {"graphs": graphs, "timing": timing}
        self._clock = clock or MonotonicClock()
        self._host: HostSpec | None = None
        self._shared: SharedRuntime | None = None
        self._engines: weakref.WeakSet[TensorRtEngine] = weakref.WeakSet()
        self._closed = False

    def load(self, graph: bytes) -> TensorRtEngine:
        """Load the engine that was built here for checked ONNX bytes.

        Raises:
            EngineError: there is none, it is for another machine, or the GPU refuses it.
        """
        if self._host is None:  # once: it reads package records and asks the driver
            self._host = host_spec(self._library)
        stored = self._store.find(hashlib.sha256(graph).hexdigest(), self._host)
        return self.load_plan(stored.plan, stored.record.renamed)

    def load_plan(self, plan: bytes, renamed: Mapping[str, str] | None = None) -> TensorRtEngine:
        """Load a serialized engine that was checked: deserializing may run code that is in it.

        Args:
            plan: bytes of the engine.
            renamed: the engine's names of tensors to the graph's, if they differ.

        Raises:
            EngineError: TensorRT or the GPU refuses it; nothing stays allocated.
        """
        if self._closed:
            raise EngineError("the backend was closed and loads nothing; open it again")
        with ExitStack() as owned:
            shared = self._enter(owned)
            engine = TensorRtEngine(shared, plan, renamed or {}, owned, **self._options)
            engine._own(owned.pop_all())  # until here an exception releases everything
        self._engines.add(engine)
        return engine

    def _enter(self, owned: ExitStack) -> SharedRuntime:
        """Count one more user of the parts that engines share; open them for the first one."""
        if self._shared is None or not self._shared.users:  # the last engine released it
            self._shared = SharedRuntime(self._library, self._device, self._sync, self._clock)
        self._shared.users += 1
        owned.callback(self._shared.leave)  # entered first, so it runs after all of the engine's
        return self._shared

    def capture(self, work: Sequence[Work]) -> TensorRtChain:
        """Combine engines of this backend into one launch, in this order.

        Args:
            work: engines, bound to one another as needed, and results of `copy` and `fetch`; each
                may appear more than once.

        Example: encode and forecast of a frame as one graph.
            >>> forecast.bind("z_hist", encode.outputs["z"])
            >>> both = backend.capture([encode, forecast])
            >>> both.run()
        """
        return TensorRtChain(work, **self._options)

    def array(self, engine: Engine, shape: tuple[int, ...], what: str) -> CudaArray:
        """Allocate a float32 array on the GPU for `copy`, released with `engine`.

        Raises:
            EngineError: out of memory, or the engine is of another backend or was closed.
        """
        if not isinstance(engine, TensorRtEngine):
            raise EngineError(f"{what} needs an engine of backend {self.name!r}; load one with it")
        return engine.beside(shape, what)

    def copy(
        self,
        source: Array,
        target: Array,
        source_row: int | None = None,
        target_row: int | None = None,
    ) -> Work:
        """Make a copy on the GPU for `capture`, of whole arrays or of one row of their first axis.

        Raises:
            EngineError: the sides differ in size, or belong to another backend.
        """
        return CudaCopy(_own(source), _own(target), source_row, target_row)

    def fetch(self, array: Array) -> Work:
        """Make a copy of an array to the host for `capture`; reading it then does not wait.

        Raises:
            EngineError: it belongs to another backend.
        """
        return CudaFetch(_own(array))

    def close(self) -> None:
        """Close every engine and release the shared parts. Idempotent."""
        self._closed = True
        for engine in list(self._engines):
            engine.close()


class _Replayed:
    """State of the runs of an engine or a chain."""

    _runner: Runner

    @property
    def graph_problem(self) -> str | None:
        """Reason why runs are not replayed as a CUDA graph; None without one."""
        return self._runner.problem

    @property
    def replays(self) -> bool:
        """True if the last run was launched as a CUDA graph."""
        return self._runner.replays

    @property
    def device_ms(self) -> float | None:
        """GPU time of the last run; None without `timing`."""
        return self._runner.device_ms


class TensorRtEngine(_Replayed):
    """One loaded engine with its arrays on the GPU; see `TensorRtBackend.load`."""

    def __init__(
        self,
        shared: SharedRuntime,
        data: bytes,
        renamed: Mapping[str, str],
        owned: ExitStack,
        *,
        graphs: bool,
        timing: bool,
    ) -> None:
        self._queue = queue = shared.queue
        self._names: dict[str, str] = {}  # the graph's name of a tensor to the engine's
        self._inputs: dict[str, CudaArray] = {}
        self._outputs: dict[str, CudaArray] = {}
        self._pointed: Parameters | None = None  # set last in the context
        with queue.device as device:
            self._plan = EngineContext(shared, data, owned)
            for own_name, is_input, shape, dtype in self._plan.tensors():
                name = renamed.get(own_name, own_name)
                mapped = device.integrated and used_once(is_input, dtype)
                what = f"{'input' if is_input else 'output'} {name!r}"
                array = CudaArray(queue, shape, dtype, what, mapped=mapped)
                owned.callback(array.free)
                self._names[name] = own_name
                (self._inputs if is_input else self._outputs)[name] = array
        self._runner = Runner(queue, graphs=graphs, timing=timing)
        owned.callback(self._runner.close)
        self._collect()

    def _own(self, owned: ExitStack) -> None:
        """Release everything with `close`, or when the engine is garbage-collected."""
        self._owned = owned
        # No callback in `owned` may refer to the engine, else it would never be collected.
        self._release = weakref.finalize(self, owned.close)

    def _collect(self) -> None:
        both = {**self._inputs, **self._outputs}
        self._arrays = [(own_name, both[name]) for name, own_name in self._names.items()]

    @property
    def inputs(self) -> Mapping[str, CudaArray]:
        """Input arrays by name."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, CudaArray]:
        """Output arrays by name."""
        return self._outputs

    def bind(self, name: str, array: Array) -> None:
        """Use `array` as input or output `name`, without a copy.

        The GPU then reads it more than once, so it moves to device memory, and is copied back to
        the host only on `read`.

        Raises:
            EngineError: no such name, another shape or dtype, an array of another backend, or no
                memory.
        """
        self.require_open()
        side = self._inputs if name in self._inputs else self._outputs
        own = side.get(name)
        bound = matching(name, array, own, list(self._names))
        if bound in (self._outputs if side is self._inputs else self._inputs).values():
            raise EngineError(
                f"{name!r} would be read and written in one run; bind it to an array of another "
                "engine"
            )
        bound.share()
        side[name] = bound
        self._collect()
        if own is not None and own is not bound and not own.shared:
            own.free()  # no other engine uses it

    @property
    def queue(self) -> CudaQueue:
        """Stream in which its runs are enqueued."""
        return self._queue

    def beside(self, shape: tuple[int, ...], what: str) -> CudaArray:
        """Allocate a float32 array in device memory, released with the engine."""
        self.require_open()
        array = CudaArray(self._queue, shape, np.dtype(np.float32), what, mapped=False)
        self._owned.callback(array.free)
        return array

    def run(self) -> None:
        """Compute the outputs; return when they are ready.

        Raises:
            EngineError: TensorRT or the GPU failed, or a resource was closed.
        """
        self.require_open()
        with self._queue.device:
            self._runner.run(self.prepare(), self.enqueue)
        self.finish()

    def prepare(self) -> Parameters:
        """Set the addresses in TensorRT, and return all parameters that a CUDA graph freezes."""
        queue = self._queue
        parameters: Parameters = (
            queue.stream,
            queue.scratch_address,
            queue.scratch_bytes,
            # `eager` decides whether a captured graph contains the copy to the host.
            *((array.address, array.shape, array.eager) for _, array in self._arrays),
        )
        if parameters != self._pointed:
            for name, array in self._arrays:
                if not array.address:
                    raise EngineError(
                        f"{name!r} is bound to an array of an engine that was closed; load both "
                        "again"
                    )
            self._plan.point(self._arrays)
            self._pointed = parameters
        return parameters

    def enqueue(self) -> None:
        """Enqueue one run on the stream."""
        self._plan.enqueue()
        for array in self._outputs.values():
            if array.eager:
                array.enqueue_download()

    def finish(self) -> None:
        """Note a run: the host's content of the outputs is stale unless the run copied it."""
        for array in self._outputs.values():
            array.was_written()

    def require_open(self) -> None:
        """Raise `EngineError` once the engine was closed."""
        if not self._release.alive:
            raise EngineError("the engine was closed and cannot run; load the graph again")

    def close(self) -> None:
        """Release graph, arrays and engine; the last engine also releases the GPU."""
        self._release()
        self._inputs, self._outputs, self._arrays = {}, {}, []


class TensorRtChain(_Replayed):
    """Engines and copies of one backend as one launch; see `TensorRtBackend.capture`.

    Args:
        work: engines and copies, in this order.
        graphs: replay it as one CUDA graph.
        timing: measure every run.

    Raises:
        UsageError: no engines, or work of different backends.
    """

    def __init__(self, work: Sequence[Work], *, graphs: bool, timing: bool) -> None:
        queues = {id(each.queue) for each in work}
        engines = [each for each in work if isinstance(each, TensorRtEngine)]
        if len(queues) != 1 or not engines:
            raise UsageError(
                f"{len(engines)} engines on {len(queues)} streams cannot run as one; pass engines "
                "of one backend"
            )
        self._work = tuple(work)
        for each in work:
            each.require_open()
        self._queue = engines[0].queue
        self._runner = Runner(self._queue, graphs=graphs, timing=timing)
        # The first engine that is closed also closes the graph, which would launch freed memory.
        for engine in set(engines):  # an engine may appear more than once
            engine._owned.callback(self._runner.close)

    def run(self) -> None:
        """Run everything in turn; return when the last output is ready.

        Raises:
            EngineError: TensorRT or the GPU failed, or a resource was closed.
        """
        for each in self._work:
            each.require_open()  # all of them before any is enqueued: no half chain runs
        with self._queue.device:
            parameters = tuple(each.prepare() for each in self._work)
            self._runner.run(parameters, self._enqueue)
        for each in self._work:
            each.finish()

    def _enqueue(self) -> None:
        for each in self._work:
            each.enqueue()

    def close(self) -> None:
        """Release the graph; the engines stay open."""
        self._runner.close()


def _own(array: Array) -> CudaArray:
    if not isinstance(array, CudaArray):
        raise EngineError("only arrays of engines of backend 'tensorrt' can be copied on the GPU")
    return array


def used_once(is_input: bool, dtype: np.dtype[Any]) -> bool:
    """Return whether the GPU reads or writes a tensor only once per run."""
    # Outputs are written once. Inputs of raw bytes are read once, by the cast; latents and actions
    # are read by many kernels.
    return not is_input or dtype == np.uint8
