"""What the CPU backends share: arrays in host memory, name checks, thread counts, error lines."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.engine import Array, NDArray
from jetsight.errors import EngineError

_ALIGNMENT = 64  # a cache line; inference libraries copy what is aligned worse


class HostArray:
    """A fixed-shape tensor in host memory that a library computes on directly.

    Args:
        shape: its shape, static.
        dtype: its element type.
        wrap: makes the library's tensor over that memory, kept as `handle`.
    """

    __slots__ = ("_host", "_view", "handle")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], wrap: Any) -> None:
        self._host = aligned_zeros(shape, dtype)
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
        self._host[...] = value

    def read(self, out: NDArray | None = None) -> NDArray:
        """Copy into `out`, or return a read-only view valid until the next `run` or `write`."""
        if out is None:
            return self._view
        out[...] = self._view
        return out


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
    """Zeros on a 64-byte boundary; owns its memory through `.base`."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw: NDArray = np.zeros(count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    aligned: NDArray = raw[start : start + count].view(dtype).reshape(shape)
    return aligned


def matching(
    name: str, array: Array, inputs: Mapping[str, HostArray], outputs: Mapping[str, HostArray]
) -> HostArray:
    """`array`, if it can stand in for input or output `name` of a graph.

    Raises:
        EngineError: no such name, another shape or dtype, or an array of another kind.
    """
    own = inputs.get(name) or outputs.get(name)
    if own is None:
        names = ", ".join([*inputs, *outputs])
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
    return array


def static_shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    """`shape` as integers.

    Raises:
        EngineError: a dimension is symbolic; jetsight graphs are static.
    """
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise EngineError(
            f"{name!r} has the dynamic shape {shape}, expected fixed sizes; "
            "export the graph with static shapes"
        )
    return tuple(shape)


def first_line(error: BaseException) -> str:
    """What a library's message says, in one line: without source locations, at most 200 letters."""
    lines = [line.strip() for line in str(error).splitlines()]
    # OpenVINO puts "Exception from file:line" and "Check 'x' failed at file:line" in front.
    said = [s for s in lines if s and not s.startswith(("Exception from ", "Check '"))]
    return " ".join(said[:4])[:200] or type(error).__name__


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU as Linux names them on x86; empty where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2].split() for line in text.splitlines() if line[:5] == "flags")
    return frozenset(next(flags, []))


def has_vnni() -> bool:
    """The CPU multiplies u8 by s8 exactly; older x86 saturates sums of two products at 16 bits."""
    return bool({"avx512_vnni", "avx_vnni"} & cpu_flags())


def default_threads() -> int:
    """Physical cores this process may use: hyper-threads slow down dense float code."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not allowed:
        return os.cpu_count() or 1
    return len({_core_of(cpu) for cpu in allowed})


def _core_of(cpu: int) -> str:
    """Name of the physical core of logical `cpu`; the cpu itself where the kernel does not say."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)
