"""Running a graph over many samples on any backend, for the quantizer and the gate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jetsight.engine import Backend, Engine

F32 = npt.NDArray[np.float32]
Sample = Mapping[str, npt.NDArray[Any]]
_PLANNERS = "costs"  # the judged one among the outputs of an `imagine` graph


@contextlib.contextmanager
def loaded(backend: Backend, graph: bytes) -> Iterator[Engine]:
    """Load `graph`, and close its engine at the end.

    Raises:
        EngineError: the backend refuses the graph.
    """
    engine = backend.load(graph)
    try:
        yield engine
    finally:
        engine.close()


def write(engine: Engine, sample: Sample) -> None:
    """Fill the inputs of an engine."""
    for name, value in sample.items():
        engine.inputs[name].write(np.asarray(value))


def run_one(engine: Engine, sample: Sample) -> F32:
    """Run one sample; return the only output, or the costs of a planner.

    The array belongs to the caller.
    """
    write(engine, sample)
    engine.run()
    if _PLANNERS in engine.outputs:
        output = engine.outputs[_PLANNERS]
    else:
        (output,) = engine.outputs.values()
    return np.array(output.read(), dtype=np.float32)


def run_all(backend: Backend, graph: bytes, samples: Sequence[Sample]) -> F32:
    """Run every sample, and stack the outputs: `[samples, ...]`."""
    with loaded(backend, graph) as engine:
        return np.stack([run_one(engine, sample) for sample in samples])
