"""Arrays of a GPU, in mapped or device memory.

On a board whose GPU shares memory with the processor, an array that is written once and read once
(a camera frame, a result) is in mapped host memory, without any copy. The GPU does not cache that
memory, so arrays that it reads more than once are in device memory, and copied through page-locked
host memory. On a discrete card all arrays are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jetsight.engine import Array, NDArray
from jetsight.errors import EngineError
from jetsight.tensorrt.cuda.stream import CudaQueue


class CudaArray:
    """Fixed-shape tensor on a queue's device.

    Args:
        queue: stream of its copies.
        shape: its shape, static.
        dtype: its element type.
        what: name in messages.
        mapped: the GPU reads and writes host memory directly.

    Attributes:
        address: GPU address; 0 once it was released.
        shared: other engines use it too.

    Raises:
        EngineError: out of memory.
    """

    def __init__(
        self,
        queue: CudaQueue,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        what: str,
        *,
        mapped: bool,
    ) -> None:
        self.queue, self._what = queue, what
        self._shape, self._dtype = shape, dtype
        # int64: NumPy's product of an empty shape is a float.
        self._nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.shared = False
        self._stale = False  # the GPU has newer content than the host memory
        self._copy: NDArray | None = None
        self._device_address = self.address = 0
        with queue.device as device:
            # At least one byte: CUDA refuses allocations of none.
            self._pinned = device.allocate_host(max(self._nbytes, 1), f"{what} (page-locked)")
            self._bytes: NDArray = self._pinned.array[: self._nbytes]
            self._host: NDArray = self._bytes.view(dtype).reshape(shape)
            # Page-locked memory is not cleared, and an input may stay unwritten.
            self._host[...] = 0
            self.address = self._pinned.address
            if not mapped:
                try:
                    self._move()
                except BaseException:
                    self.free()
                    raise

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._dtype

    @property
    def mapped(self) -> bool:
        """True if the GPU uses the host memory directly."""
        return not self._device_address

    @property
    def eager(self) -> bool:
        """True if a run that writes it also copies it back, so that `read` does not wait."""
        return bool(self._device_address) and not self.shared

    def write(self, value: NDArray) -> None:
        """Copy `value` in.

        Raises:
            EngineError: its shape or dtype differs; nothing is broadcast or cast.
        """
        self._require_open()
        if value.shape != self._shape or value.dtype != self._dtype:
            raise EngineError(
                f"the graph takes {self._dtype} {list(self._shape)}, but was given "
                f"{value.dtype} {list(value.shape)}"
            )
        # A copy of the last value may still be running; the one enqueued here follows it.
        self._host[...] = value
        self._stale = False
        if self._device_address:
            with self.queue.device as device:
                device.upload(self._device_address, self._bytes, self.queue.stream)

    def write_row(self, row: int, value: NDArray) -> None:
        """Copy `value` in as one row of the first axis.

        Raises:
            EngineError: its shape or dtype differs.
        """
        self._require_open()
        if value.shape != self._shape[1:] or value.dtype != self._dtype:
            raise EngineError(
                f"a row of {self._what} is {self._dtype} {list(self._shape[1:])}, but was given "
                f"{value.dtype} {list(value.shape)}"
            )
        # `_stale` stays as it is: the other rows may be newer on the GPU.
        self._host[row] = value
        if self._device_address:
            size = self._nbytes // self._shape[0]
            piece = self._bytes[row * size : (row + 1) * size]
            with self.queue.device as device:
                device.upload(self._device_address + row * size, piece, self.queue.stream)

    def read(self, out: NDArray | None = None) -> NDArray:
        """Copy into `out`, or return a read-only view valid until the next `run` or `write`."""
        self._require_open()
        if self._stale:
            with self.queue.device:
                self.enqueue_download()
                self.queue.wait()
            self._stale = False
        if out is not None:
            out[...] = self._host
            return out
        # Never a view of page-locked memory: if it outlived the engine, it would crash the process.
        if self._copy is None:
            self._copy = np.empty(self._shape, self._dtype)
        self._copy[...] = self._host
        view: NDArray = self._copy.view()
        view.flags.writeable = False
        return view

    def share(self) -> None:
        """Prepare for a second reader on the GPU: move to device memory, copy back on `read` only.

        Raises:
            EngineError: out of memory; nothing has changed then.
        """
        self._require_open()
        if self.mapped:
            with self.queue.device:
                self._move()
        self.shared = True

    def _move(self) -> None:
        """Allocate device memory and copy the content of the host memory into it."""
        device = self.queue.device
        address = device.allocate(max(self._nbytes, 1), self._what)
        self._device_address = self.address = address
        device.upload(address, self._bytes, self.queue.stream)
        self.queue.wait()

    def enqueue_download(self) -> None:
        """Enqueue the copy back to the host; call it inside `with device:`."""
        self.queue.device.download(self._bytes, self._device_address, self.queue.stream)

    def place(self, row: int | None) -> tuple[int, int]:
        """Return address and size in bytes of one row of the first axis; of all if None."""
        self._require_open()
        if row is None:
            return self.address, self._nbytes
        size = self._nbytes // self._shape[0]
        return self.address + row * size, size

    def was_fetched(self) -> None:
        """Note that the host memory is up to date."""
        self._stale = False

    def was_written(self) -> None:
        """Note that the GPU has written it; `read` must fetch it unless the run did."""
        self._stale = self.shared

    def free(self) -> None:
        """Release its memory. Idempotent."""
        if not self.address:
            return
        device_address, self._device_address, self.address = self._device_address, 0, 0
        with self.queue.device as device:
            self.queue.drain()  # no memory is freed under work that was enqueued
            if device_address:
                device.free(device_address)
            device.free_host(self._pinned)

    def _require_open(self) -> None:
        if not self.address:
            raise EngineError(f"{self._what} was released with its engine; load the graph again")


def matching(name: str, array: Array, own: CudaArray | None, names: list[str]) -> CudaArray:
    """Return `array` if it can replace `own`, the input or output `name` of a graph.

    Raises:
        EngineError: no such name, another shape or dtype, or an array of another backend.
    """
    if own is None:
        raise EngineError(f"the graph has no input or output {name!r}; it has {', '.join(names)}")
    if array.shape != own.shape or array.dtype != own.dtype:
        raise EngineError(
            f"{name!r} is {own.dtype} {list(own.shape)}; an array {array.dtype} "
            f"{list(array.shape)} cannot be bound to it"
        )
    # Only within one stream is a run that reads ordered after the one that writes.
    if not isinstance(array, CudaArray) or array.queue is not own.queue:
        raise EngineError(
            f"{name!r} can only be bound to an array of an engine of the same backend; "
            "copy with array.write(other.read())"
        )
    return array
