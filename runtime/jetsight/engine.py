"""Interface between jetsight and inference libraries: `Backend -> Engine -> Array`.

The forecaster, the gates and the benchmarks are written once, against these protocols.
`jetsight.backends.registry` lists the implementations; `jetsight.testing` has the public fakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jetsight.errors import EngineError

NDArray = npt.NDArray[Any]


class Array(Protocol):
    """A fixed-shape tensor that lives where its backend computes and is reused between runs."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, fixed when the graph was compiled."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        ...

    def write(self, value: NDArray) -> None:
        """Copy `value` in; shape and dtype must match exactly, else `EngineError`."""
        ...

    def read(self, out: NDArray | None = None) -> NDArray:
        """Copy into `out`, or return a view that is valid until the next `run` or `write`."""
        ...


class Engine(Protocol):
    """One loaded graph with its input and output arrays."""

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Input arrays by the graph's names."""
        ...

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Output arrays by the graph's names."""
        ...

    def bind(self, name: str, array: Array) -> None:
        """Use `array` (often another engine's output) as input or output `name`, without a copy."""
        ...

    def run(self) -> None:
        """Compute every output from the current inputs; return when they are ready."""
        ...

    def close(self) -> None:
        """Release everything the engine owns; arrays must not be used afterwards."""
        ...


class Backend(Protocol):
    """Loader of graphs."""

    @property
    def name(self) -> str:
        """Name in reports and in `--backend`."""
        ...

    def load(self, graph: bytes) -> Engine:
        """Load a *checked* ONNX graph (bytes already matched against the bundle's digest)."""
        ...


def static_shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    """Return `shape` as integers.

    Raises:
        EngineError: a dimension is symbolic; jetsight graphs are static.
    """
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise EngineError(
            f"{name!r} has the dynamic shape {shape}, expected fixed sizes; "
            "export the graph with static shapes"
        )
    return tuple(shape)


def read_only(array: NDArray) -> NDArray:
    """Return a view of `array` that cannot be written through."""
    # The flag is the view's alone: its owner still writes the array.
    view: NDArray = array.view()
    view.flags.writeable = False
    return view
