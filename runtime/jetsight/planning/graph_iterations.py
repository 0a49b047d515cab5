"""Planner iterations that stay on the device: several as one launch, without the host in between.

Two engines of the same graph take turns: each reads the outputs of the other. All noise of a plan
is kept on the device, each draw uploaded once; an iteration begins with a copy of its own draw and
ends with copies of its results. On a GPU that records such work, a chain is one CUDA graph.

Shapes: H horizon, A action-block size, N samples, I iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jetsight.engine import Array, Engine, NDArray
from jetsight.planning.iterations import handed_on
from jetsight.planning.memory import ConvergenceTrace
from jetsight.planning.noise import Noise

LONGEST = 8  # iterations in one launch; a longer one would miss deadlines and save nothing
_REMEMBERED = {"cost": "cost", "violation": "violation", "invalid": "invalid", "std": "std_next"}
# Read once, at the end of a plan; everything else either stays on the device or is remembered.
_RESULTS = ("actions", "z_future", "costs", "violations", "kept_next")


class RowArray(Array, Protocol):
    """An array whose rows can be written one by one."""

    def write_row(self, row: int, value: NDArray) -> None:
        """Copy `value` in as one row of the first axis."""
        ...


class Chain(Protocol):
    """Work that was recorded with `CaptureBackend.capture`."""

    def run(self) -> None:
        """Do all of it; returns when it is done."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class CaptureBackend(Protocol):
    """A backend that can run engines and copies in turn without the host in between.

    It is the optional half of `Backend`: one without `capture` runs iteration after iteration.
    """

    def array(self, engine: Engine, shape: tuple[int, ...], what: str) -> RowArray:
        """Allocate a float32 array on the device, released with `engine`."""
        ...

    def copy(
        self,
        source: Array,
        target: Array,
        source_row: int | None = None,
        target_row: int | None = None,
    ) -> Any:
        """Describe a copy on the device, of whole arrays or of rows of their first axis."""
        ...

    def fetch(self, array: Array) -> Any:
        """Describe a copy to the host, after which reading need not wait."""
        ...

    def capture(self, work: Sequence[Any]) -> Chain:
        """Record engines and copies as one piece of work."""
        ...


class ChainedIterations:
    """Iterations on a recording backend.

    A chain of 2, 4 or 8 iterations begins where its length divides the iteration, so that few
    different ones are ever recorded: 30 iterations are 8 + 8 + 8 + 4 + 2.

    Args:
        recorder: the backend of both engines.
        engines: two of the planner's graph, checked with `check_engine`.
        noise: holds the draws.

    Raises:
        EngineError: memory is short.
    """

    def __init__(
        self, recorder: CaptureBackend, engines: tuple[Engine, Engine], noise: Noise
    ) -> None:
        self._recorder, self._engines, self._noise = recorder, engines, noise
        self._slots = len(noise.values)
        self._draws = recorder.array(engines[0], noise.values.shape, "noise of a plan")
        shape = noise.values.shape[2:]
        sizes = {name: shape if name == "std" else (1,) for name in _REMEMBERED}
        self._remembered = {
            name: recorder.array(engines[0], (self._slots, *size), f"{name} of each iteration")
            for name, size in sizes.items()
        }
        self._host = {
            name: np.zeros((self._slots, *size), np.float32) for name, size in sizes.items()
        }
        self._connect()
        # After binding, which replaces arrays of both engines.
        self._inputs = dict(engines[0].inputs)
        self._outputs = [dict(engine.outputs) for engine in engines]
        # A chain fetches what its end needs; fetching after every run would wait each time.
        self._fetches = [
            {name: recorder.fetch(array) for name, array in outputs.items()}
            for outputs in self._outputs
        ]
        self._fetches_remembered = [recorder.fetch(a) for a in self._remembered.values()]
        self._chains: dict[tuple[int, int, int], Chain] = {}
        self._last = 0  # the engine of the last iteration

    def _connect(self) -> None:
        """Bind each engine's outputs to the other's inputs, and share all other inputs."""
        first, second = self._engines
        changing = dict(handed_on(first))
        for name in list(first.inputs):
            if name not in changing.values():
                second.bind(name, first.inputs[name])
        for output, name in changing.items():
            second.bind(name, first.outputs[output])
            first.bind(name, second.outputs[output])

    def write(self, name: str, value: NDArray) -> None:
        """Set an input of the first iteration."""
        # A graph has no inputs of size 0, and some libraries drop those that nothing depends on.
        if name in self._inputs:
            self._inputs[name].write(value)

    def upload(self, slot: int) -> None:
        """Copy a draw to the device."""
        self._draws.write_row(slot, self._noise.values[slot])

    def chunk(self, first: int, most: int) -> int:
        """Return the length of the longest chain that may begin at `first`."""
        slot, count = self._noise.slot(first), LONGEST
        # A recorded chain reads consecutive rows of the noise, so it cannot wrap round its end.
        while count > 1 and (count > most or first % count or slot + count > self._slots):
            count //= 2
        return count

    def run(self, first: int, count: int, trace: ConvergenceTrace) -> None:
        """Run a chain: one launch, and one wait at its end."""
        slot, turn = self._noise.slot(first), first % 2
        # Rows and the engine to begin with are fixed in a recording, so each combination has its
        # own.
        key = (slot, turn, count)
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = self._recorder.capture(self._work(slot, turn, count))
        chain.run()
        self._last = (first + count - 1) % 2
        for name, array in self._remembered.items():
            # All rows, because the recorded copy to the host is of the whole array.
            array.read(self._host[name])
            rows = self._host[name][slot : slot + count]
            noted: NDArray = getattr(trace, name)[first : first + count]
            noted[...] = rows.reshape(noted.shape)

    def _work(self, slot: int, turn: int, count: int) -> list[Any]:
        copy, last = self._recorder.copy, 0
        work: list[Any] = []
        for row in range(slot, slot + count):
            last = (turn + row - slot) % 2
            engine = self._engines[last]
            work.append(copy(self._draws, engine.inputs["noise"], row, None))
            work.append(engine)
            for name, output in _REMEMBERED.items():
                work.append(copy(engine.outputs[output], self._remembered[name], None, row))
        # The results of all engines before the last are overwritten unread.
        results = [fetch for name, fetch in self._fetches[last].items() if name in _RESULTS]
        return [*work, *self._fetches_remembered, *results]

    def read(self, name: str, out: NDArray) -> None:
        """Copy an output of the last iteration."""
        self._outputs[self._last][name].read(out)

    def close(self) -> None:
        """Release the chains and the engines."""
        # Chains first: they refer to memory of the engines.
        for chain in self._chains.values():
            chain.close()
        self._chains = {}
        for engine in self._engines:
            engine.close()
