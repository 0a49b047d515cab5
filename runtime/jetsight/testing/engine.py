"""Engines that follow a script, and a backend whose little world they predict exactly.

Shapes: K history, H horizon, D latent size, A model action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.clock import Clock
from jetsight.engine import Array, NDArray
from jetsight.errors import EngineError
from jetsight.testing.imagine import Arrays, FakeImagine


def tiny_spec(**changes: Any) -> StreamSpec:
    """Make the spec of an 8x8 camera at 10 Hz: K=3, B=5, H=5, a=2, D=4; with `changes`."""
    facts: dict[str, Any] = {
        "height_px": 8,
        "width_px": 8,
        "camera_hz": 10.0,
        "history": 3,
        "horizon": 5,
        "action_block": 5,
        "latent_size": 4,
        "neutral": np.zeros(2, np.float32),
        "latent_std": np.ones(4, np.float32),
        "surprise_limit": 3.0,
    }
    return StreamSpec(**{**facts, **changes})


class FakeArray:
    """An `Array` in plain numpy memory."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        self.host: NDArray = np.zeros(shape, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return tuple(self.host.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.host.dtype

    def write(self, value: NDArray) -> None:
        """Copy `value` in; shape and dtype must match exactly."""
        # As strict as real backends; NumPy would broadcast and cast.
        if value.shape != self.shape or value.dtype != self.dtype:
            raise EngineError(
                f"takes {self.dtype} {self.shape}, got {value.dtype} {value.shape}; pass an array "
                "of the graph's own shape and type"
            )
        self.host[...] = value

    def read(self, out: NDArray | None = None) -> NDArray:
        """Copy into `out`, or return the memory itself."""
        if out is None:
            return self.host
        out[...] = self.host
        return out


Compute = Callable[[Mapping[str, NDArray], Mapping[str, NDArray]], None]


class FakeEngine:
    """An engine that follows a script: what it computes, how long it takes, when it fails.

    Args:
        inputs: `{name: (shape, dtype)}`.
        outputs: `{name: (shape, dtype)}`.
        compute: fills outputs from inputs; None leaves zeros (a null engine).
        clock: moved on by `latency_ns` per run.
        latency_ns: how long a run takes on `clock`.
        nan_at: runs, counted from 0, whose outputs are all NaN.
        fail_at: runs that raise `EngineError`.

    Attributes:
        runs: how often it ran, failures included.
        closed: whether it was released.
    """

    def __init__(
        self,
        inputs: Arrays,
        outputs: Arrays,
        compute: Compute | None = None,
        *,
        clock: Clock | None = None,
        latency_ns: int | Callable[[int], int] = 0,
        nan_at: Sequence[int] = (),
        fail_at: Sequence[int] = (),
    ) -> None:
        self.inputs: dict[str, Array] = {n: FakeArray(*spec) for n, spec in inputs.items()}
        self.outputs: dict[str, Array] = {n: FakeArray(*spec) for n, spec in outputs.items()}
        self._compute, self._clock, self._latency_ns = compute, clock, latency_ns
        self._nan_at, self._fail_at = frozenset(nan_at), frozenset(fail_at)
        self._views()
        self.runs = 0
        self.closed = False

    def _views(self) -> None:
        self._in = {name: array.read() for name, array in self.inputs.items()}
        self._out = {name: array.read() for name, array in self.outputs.items()}

    def bind(self, name: str, array: Array) -> None:
        """Use `array` in place of the engine's own."""
        (self.inputs if name in self.inputs else self.outputs)[name] = array
        self._views()

    def run(self) -> None:
        """Do what the script says for this run."""
        run, self.runs = self.runs, self.runs + 1
        if self._clock is not None:
            late = self._latency_ns
            # Before it may fail: a failing run takes time as well.
            self._clock.sleep_ns(late(run) if callable(late) else late)
        if run in self._fail_at:
            raise EngineError(f"scripted failure of run {run}")
        if self._compute is not None:
            self._compute(self._in, self._out)
        # After computing, so that a NaN replaces values and not only zeros.
        if run in self._nan_at:
            for values in self._out.values():
                values.fill(np.nan)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class FakeBackend:
    """Loads `b"encode"`, `b"forecast"` and planners as a little world that all predict exactly.

    The latent is the picture's mean brightness (in every dimension), and the model believes that a
    unit of the first action number brightens the picture by one per tick.

    Args:
        spec: sizes of the model.
        script: per graph name, keyword arguments for its `FakeEngine`.
        planning: of the planners; their graphs are `FakeImagine`.
    """

    name = "fake"

    def __init__(
        self,
        spec: StreamSpec,
        script: Mapping[str, Mapping[str, Any]] | None = None,
        planning: PlanSpec | None = None,
    ) -> None:
        self._spec = spec
        self._planners = () if planning is None else planning.planners
        self._planning = planning
        self._script = script or {}
        self.engines: dict[str, FakeEngine] = {}

    def load(self, graph: bytes) -> FakeEngine:
        """Return the engine of `graph`.

        Raises:
            EngineError: there is no such graph.
        """
        name = graph.decode(errors="replace")
        for planner in self._planners:
            if planner.graph == name:
                return self._imagine(planner)
        if name not in ("encode", "forecast"):
            raise EngineError(f"the fake backend has no graph {name[:20]!r}; load b'encode'")
        spec = self._spec
        action_size = spec.action_block * spec.step_size
        inputs: Arrays = {"frame_hwc_u8": (spec.frame_shape, np.uint8)}
        if spec.state_names:
            inputs = {**inputs, "state": ((len(spec.state_names),), np.float32)}
        outputs: Arrays = {"z": ((spec.latent_size,), np.float32)}
        if name == "forecast":
            inputs = {
                "z_hist": ((spec.history, spec.latent_size), np.float32),
                "a_hist": ((spec.history - 1, action_size), np.float32),
                "actions": ((spec.horizon, action_size), np.float32),
            }
            outputs = {"z_future": ((spec.horizon, spec.latent_size), np.float32)}
        script = {"compute": getattr(self, f"_{name}"), **self._script.get(name, {})}
        self.engines[name] = FakeEngine(inputs, outputs, **script)
        return self.engines[name]

    def _imagine(self, planner: PlannerSpec) -> FakeEngine:
        assert self._planning is not None
        world = FakeImagine(self._planning, planner)
        script = {"compute": world, **self._script.get(planner.graph, {})}
        self.engines[planner.graph] = FakeEngine(*world.arrays(), **script)
        return self.engines[planner.graph]

    def _encode(self, inputs: Mapping[str, NDArray], outputs: Mapping[str, NDArray]) -> None:
        brightness = inputs["frame_hwc_u8"].mean(dtype=np.float32)
        outputs["z"][...] = brightness + sum(inputs.get("state", ()))

    def _forecast(self, inputs: Mapping[str, NDArray], outputs: Mapping[str, NDArray]) -> None:
        brighter = inputs["actions"][:, :: self._spec.step_size].sum(axis=1)
        outputs["z_future"][...] = inputs["z_hist"][-1] + np.cumsum(brighter)[:, None]
