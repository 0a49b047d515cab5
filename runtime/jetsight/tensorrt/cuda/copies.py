"""Copies as parts of a chain: on the GPU, and back to the host."""

from __future__ import annotations

from typing import Protocol

from jetsight.errors import EngineError
from jetsight.tensorrt.cuda.arrays import CudaArray
from jetsight.tensorrt.cuda.stream import CudaQueue, Parameters


class Work(Protocol):
    """Part of a chain, such as an engine."""

    @property
    def queue(self) -> CudaQueue:
        """Stream in which it is enqueued."""
        ...

    def require_open(self) -> None:
        """Raise `EngineError` once a resource of it was closed."""
        ...

    def prepare(self) -> Parameters:
        """Return all parameters that a CUDA graph of it freezes."""
        ...

    def enqueue(self) -> None:
        """Enqueue it on the stream."""
        ...

    def finish(self) -> None:
        """Note that it has run."""
        ...


class CudaCopy:
    """Copy from one array to another of the same queue, or between rows of their first axis.

    Raises:
        EngineError: the two sides differ in size.
    """

    def __init__(
        self, source: CudaArray, target: CudaArray, source_row: int | None, target_row: int | None
    ) -> None:
        self._source, self._target = source, target
        self._rows = source_row, target_row
        self.queue = source.queue
        self.require_open()

    def require_open(self) -> None:
        """Raise `EngineError` once one of the arrays was released."""
        self._ends()

    def prepare(self) -> Parameters:
        """Return both addresses and the size."""
        # Computed anew: `share` moves an array to another address.
        return self._ends()

    def enqueue(self) -> None:
        """Enqueue the copy on the stream."""
        self.queue.device.copy(*self._ends(), self.queue.stream)

    def _ends(self) -> tuple[int, int, int]:
        source, size = self._source.place(self._rows[0])
        target, room = self._target.place(self._rows[1])
        if size != room:
            raise EngineError(
                f"{size} bytes cannot be copied to {room}; copy between arrays or rows of one size"
            )
        return target, source, size

    def finish(self) -> None:
        """Note that the host's content of the target is stale."""
        self._target.was_written()


class CudaFetch:
    """Copy of an array to the host, so that reading it after the chain does not wait."""

    def __init__(self, array: CudaArray) -> None:
        self._array = array
        array.share()  # moves it to device memory, and leaves the copy back to this part
        self.queue = array.queue

    def require_open(self) -> None:
        """Raise `EngineError` once the array was released."""
        self._array.place(None)

    def prepare(self) -> Parameters:
        """Return its address and size."""
        return self._array.place(None)

    def enqueue(self) -> None:
        """Enqueue the copy on the stream."""
        self._array.enqueue_download()

    def finish(self) -> None:
        """Note that the host memory is up to date."""
        self._array.was_fetched()
