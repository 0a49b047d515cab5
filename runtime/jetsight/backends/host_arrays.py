"""Common parts of the CPU backends: arrays in host memory, and engines bound to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from jetsight.engine import Array, NDArray
from jetsight.errors import EngineError

_ALIGNMENT = 64  # a cache line; inference libraries copy input of a smaller alignment


class HostArray:
    """A fixed-shape tensor in host memory that a library computes on directly.

    Args:
        shape: its shape, static.
        dtype: its element type.
        wrap: returns the library's tensor over that memory, kept as `handle`.
    """

    __slots__ = ("_host", "_view", "handle")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], wrap: Any) -> None:
        self._host = aligned_zeros(shape, dtype)
        # Read-only for callers of `read`, while the library writes the memory itself.
        self._view: NDArray = self._host.view()
        self._view.flags.writeable = False
        self.handle = wrap(self._host)

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        shape: tuple[int, ...] = self._host.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._host.dtype

    def write(self, value: NDArray) -> None:
        """Copy `value` in.

        Raises:
            EngineError: its shape or dtype differs; nothing is broadcast or cast.
        """
        if value.shape != self._host.shape or value.dtype != self._host.dtype:
            raise EngineError(
                f"the graph takes {self._host.dtype} {list(self._host.shape)}, but was given "
                f"{value.dtype} {list(value.shape)}"
            )
        self._host[...] = value  # in place: the library holds the address

    def read(self, out: NDArray | None = None) -> NDArray:
        """Copy into `out`, or return a read-only view valid until the next `run` or `write`."""
        if out is None:
            return self._view
        out[...] = self._view
        return out


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
    """Allocate zeros on a 64-byte boundary; the array owns its memory through `.base`."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw: NDArray = np.zeros(count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    aligned: NDArray = raw[start : start + count].view(dtype).reshape(shape)
    return aligned


class HostEngine(ABC):
    """Base of an engine whose inputs and outputs stay bound to the same memory between runs.

    Args:
        inputs: input arrays by the graph's names.
        outputs: output arrays by the graph's names.
    """

    def __init__(self, inputs: dict[str, HostArray], outputs: dict[str, HostArray]) -> None:
        self._inputs, self._outputs = inputs, outputs
        for name, array in [*inputs.items(), *outputs.items()]:
            self.bind(name, array)

    @property
    def inputs(self) -> Mapping[str, HostArray]:
        """Input arrays by name."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, HostArray]:
        """Output arrays by name."""
        return self._outputs

    def bind(self, name: str, array: Array) -> None:
        """Use `array` as input or output `name`, without a copy.

        Raises:
            EngineError: no such name, another shape or dtype, or an array of another backend.
        """
        side = self._inputs if name in self._inputs else self._outputs
        own = side.get(name)
        if own is None:
            names = ", ".join([*self._inputs, *self._outputs])
            raise EngineError(f"the graph has no input or output {name!r}; it has {names}")
        if array.shape != own.shape or array.dtype != own.dtype:
            raise EngineError(
                f"{name!r} is {own.dtype} {list(own.shape)}; an array {array.dtype} "
                f"{list(array.shape)} cannot be bound to it"
            )
        if not isinstance(array, HostArray) or type(array.handle) is not type(own.handle):
            raise EngineError(
                f"{name!r} can only be bound to an array of an engine of the same backend; "
                "copy with array.write(other.read())"
            )
        side[name] = array
        self._point(name, array)

    @abstractmethod
    def _point(self, name: str, array: HostArray) -> None:
        """Let the library read or write `array` as `name`."""
