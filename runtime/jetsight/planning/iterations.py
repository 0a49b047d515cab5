"""Planner iterations on any engine, one at a time: the host copies outputs to the next inputs.

Shapes: C context, H horizon, B ticks per block, a size of one robot action, A = B * a, N samples,
Q kept elites, D latent size, I iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import Array, Engine, NDArray
from jetsight.errors import EngineError
from jetsight.planning.memory import ConvergenceTrace
from jetsight.planning.noise import Noise

# Outputs of an iteration that are inputs of the next one.
HANDED_ON = {
    "mean_next": "mean",
    "std_next": "std",
    "actions": "incumbent",
    "kept_next": "kept",
}


class Iterations(Protocol):
    """Runner of the iterations of a plan."""

    def write(self, name: str, value: NDArray) -> None:
        """Write an input of the first iteration; it stays, unless an output replaces it."""
        ...

    def upload(self, slot: int) -> None:
        """Take note that the noise in `slot` was drawn."""
        ...

    def chunk(self, first: int, most: int) -> int:
        """Return how many iterations to run at once from `first` on, 1 to `most`."""
        ...

    def run(self, first: int, count: int, trace: ConvergenceTrace) -> None:
        """Run iterations `first .. first + count - 1` and note them in `trace`."""
        ...

    def read(self, name: str, out: NDArray) -> None:
        """Copy an output of the last iteration."""
        ...

    def close(self) -> None:
        """Release the engines."""
        ...


class HostIterations:
    """Iterations on any engine: its outputs are copied to its inputs in between.

    Args:
        engine: of the planner's graph, checked with `check_engine`.
        noise: holds the draws.
    """

    def __init__(self, engine: Engine, noise: Noise) -> None:
        self._engine, self._noise = engine, noise
        self._inputs, self._outputs = dict(engine.inputs), dict(engine.outputs)
        self._pairs = [(engine.outputs[o], engine.inputs[i]) for o, i in handed_on(engine)]
        self._one = np.zeros(1, np.float32)  # reused, so that reading a scalar allocates nothing
        self._fresh = True

    def write(self, name: str, value: NDArray) -> None:
        """Set an input of the first iteration."""
        # A graph has no inputs of size 0, and some libraries drop those that nothing depends on.
        if name in self._inputs:
            self._inputs[name].write(value)
        self._fresh = True

    def upload(self, slot: int) -> None:
        """Do nothing: the noise is copied when its iteration is run."""

    def chunk(self, first: int, most: int) -> int:
        """Return one: the host copies between all of them."""
        return 1

    def run(self, first: int, count: int, trace: ConvergenceTrace) -> None:
        """Run iterations one by one."""
        for iteration in range(first, first + count):
            # After a write the inputs hold the start of a plan, not what the last one ended with.
            if not self._fresh:
                for output, into in self._pairs:
                    into.write(output.read())
            self._fresh = False
            self._inputs["noise"].write(self._noise.values[self._noise.slot(iteration)])
            self._engine.run()
            trace.cost[iteration] = self._scalar("cost")
            trace.violation[iteration] = self._scalar("violation")
            trace.invalid[iteration] = self._scalar("invalid")
            self.read("std_next", trace.std[iteration])

    def _scalar(self, name: str) -> float:
        return float(self._outputs[name].read(self._one)[0])

    def read(self, name: str, out: NDArray) -> None:
        """Copy an output of the last iteration."""
        self._outputs[name].read(out)

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()


def handed_on(engine: Engine) -> list[tuple[str, str]]:
    """List the outputs that become inputs of the next iteration, as (output, input)."""
    return [(o, i) for o, i in HANDED_ON.items() if o in engine.outputs]


def check_engine(engine: Engine, spec: PlanSpec, planner: PlannerSpec) -> None:
    """Compare the arrays of a planner's engine with the manifest, once per loaded engine.

    Without a rate limit nothing depends on `a_last`, and some libraries drop inputs not read.

    Raises:
        EngineError: an array is missing, unknown, or of another shape or type.
    """
    tensors = spec.tensors[planner.graph]
    sides: tuple[tuple[str, Mapping[str, Array], Mapping[str, tuple[int, ...]]], ...] = (
        ("input", engine.inputs, tensors.inputs),
        ("output", engine.outputs, tensors.outputs),
    )
    for side, arrays, wanted in sides:
        for name in sorted({*arrays, *wanted}):
            array = arrays.get(name)
            found = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            expected = f"float32 {list(wanted[name])}" if name in wanted else "nothing"
            unread = array is None and name == "a_last" and not planner.rate_limited
            if found != expected and not unread:
                raise EngineError(
                    f"graph {planner.graph!r}: {side} {name!r} is {found}, but the manifest says "
                    f"{expected}; compile the bundle again"
                )
