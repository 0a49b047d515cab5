"""Gates on values inside the graphs, which show defects that the outputs hide.

Each graph's taps are compared with those of the float32 graph of its structure, both fed the same
held-out inputs, so that `forecast` is judged alone. A gate is the worst of all taps of a graph.

`history_age_steps` is a projection: of the difference that a history one step old makes in the
float32 graph, the part that is in the compiled graph's error, 0 to 1, at the tap where staleness
shows most. Rounding has no direction and hardly adds to it, while its energy may exceed the whole
effect: where actions mostly decide what comes next, as in pusht-nano, a stale history changes a
forecast less than INT8 does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle.manifest import GRAPHS, Gate
from jetsight.engine import Backend
from jetsight.errors import EngineError
from jetsight_compile.calibration.data import spread
from jetsight_compile.calibration.run import F32, Sample, run_all
from jetsight_compile.validate import taps
from jetsight_compile.validate.limits import limit_of
from jetsight_compile.validate.metrics import FloatReference, Measurement, sqnr_db
from jetsight_compile.validate.negative_controls import (
    inner_layers,
    scale_half_layer,
    shift_history,
)
from jetsight_compile.validate.runner import (
    CONTROL,
    MOST_FAULTS,
    GateResult,
    with_fault_control,
)
from jetsight_compile.validate.taps import Likeness, Tap, Values

SAMPLES = 50  # a tap has many tokens, so fewer samples settle it than settle an output
_AGE = "history_age_steps"
_WORST_AT = "worst at "
_STEP = re.compile(r"^step\d+/")


def measure(
    graphs: Mapping[str, onnx.ModelProto],
    exact: Mapping[str, onnx.ModelProto],
    truth: FloatReference,
    backend: Backend,
    precision: Mapping[str, str],
) -> GateResult:
    """Measure every gate of the layers, with its negative control.

    Args:
        graphs: compiled graphs by name.
        exact: float32 graphs of the same structure by name.
        truth: held-out data and the float model's answers.
        backend: runs the compiled graphs.
        precision: of each graph, whose limits the controls must miss.

    Raises:
        EngineError: a graph lacks a tap, or a float32 graph differs from the float model.
    """
    frames = [truth.encode[index] for index in spread(len(truth.encode), SAMPLES)]
    windows = truth.windows.thinned(SAMPLES)
    inputs = [windows.inputs(index) for index in range(len(windows))]
    # First, because taps that are compared with a wrong graph say nothing.
    for name, samples in (("encode", frames), ("forecast", inputs)):
        _check_exact(exact[name], name, truth, samples)
    encode = _Graph("encode", graphs["encode"], exact["encode"], frames, backend)
    forecast = _Graph("forecast", graphs["forecast"], exact["forecast"], inputs, backend)
    both = encode.likeness(precision).joined(forecast.likeness(precision))
    return both.joined(forecast.age(precision))


def worst_block(gate: Gate, gates: Sequence[Gate]) -> str:
    """Return the block that ends at the gate's worst tap, or at the noisiest tap of its graph."""
    graph = "encode" if gate.name.split("_", 1)[0] in ("latent", "encode") else "forecast"
    inner = [each for each in gates if each.family == gate.family and "_inside_" in each.name]
    own = [each for each in inner if each.name == gate.name]
    noisy = [each for each in inner if each.name == f"{graph}_inside_sqnr_db"]
    for each in (*own, *noisy):
        where = each.detail.removeprefix(_WORST_AT).partition(f"; {CONTROL}")[0]
        return _STEP.sub("", where)
    return "the last layer"


@dataclass
class _Graph:
    """One compiled graph beside the float32 graph of its structure, and that one's taps."""

    name: str
    compiled: onnx.ModelProto
    exact: onnx.ModelProto
    samples: Sequence[Sample]
    backend: Backend

    def __post_init__(self) -> None:
        self._taps: list[Tap] = taps.places(self.exact)
        self._expected = self._float(self.samples)

    def likeness(self, precision: Mapping[str, str]) -> GateResult:
        """Measure the three gates of the taps; their control mis-scales one middle layer."""
        return with_fault_control(
            self._worst_taps(self.compiled),
            inner_layers(self.exact)[:MOST_FAULTS],
            lambda layer: self._worst_taps(scale_half_layer(self.compiled, layer)),
            precision,
        )

    def age(self, precision: Mapping[str, str]) -> GateResult:
        """Measure the age of a fresh history; the control's is one step old."""
        old = shift_history(np.stack([sample["z_hist"] for sample in self.samples]))
        samples = [{**s, "z_hist": z} for s, z in zip(self.samples, old, strict=True)]
        aged = self._float(samples)
        # Chosen on the float32 graph, so that a broken one cannot pick the tap that suits it.
        tap = max(aged, key=lambda name: _staleness(self._expected[name], aged[name]))
        fresh, control = (
            abs(_age(self._read(self.compiled, each)[tap], self._expected[tap], aged[tap]))
            for each in (self.samples, samples)
        )
        value = Measurement(fresh, f"seen best at {tap}")
        return GateResult(precision, {_AGE: value}, {_AGE: control})

    def _worst_taps(self, model: onnx.ModelProto) -> dict[str, Measurement]:
        each = taps.compare(self._read(model, self.samples), self._expected)
        return _summary(self.name, each)

    def _read(self, model: onnx.ModelProto, samples: Sequence[Sample]) -> Values:
        return taps.read(self.backend, model, self._taps, samples)

    def _float(self, samples: Sequence[Sample]) -> Values:
        backend = OnnxRuntimeBackend(optimise=False)  # fusions would round differently
        return taps.read(backend, self.exact, self._taps, samples)


def _summary(graph: str, each: Mapping[str, Likeness]) -> dict[str, Measurement]:
    """Return the worst tap by each measure."""
    mean = min(each, key=lambda name: each[name].cosine)
    worst = min(each, key=lambda name: each[name].worst)
    noisy = min(each, key=lambda name: each[name].sqnr_db)
    return {
        f"{graph}_inside_cosine": Measurement(each[mean].cosine, _WORST_AT + mean),
        f"{graph}_inside_cosine_worst": Measurement(each[worst].worst, _WORST_AT + worst),
        f"{graph}_inside_sqnr_db": Measurement(each[noisy].sqnr_db, _WORST_AT + noisy),
    }


def _staleness(expected: F32, aged: F32) -> float:
    """Energy that a stale history changes at a tap, relative to the tap's variance."""
    moved = expected.astype(np.float64) - expected.mean(0)
    return float(np.square(aged - expected).sum() / max(np.square(moved).sum(), 1e-30))


def _age(found: F32, expected: F32, aged: F32) -> float:
    """Projection of `found` on the way from the `expected` value (0) to the `aged` one (1)."""
    way = aged.astype(np.float64) - expected
    if not np.isfinite(found).all():
        return 1.0  # the age of a stale history, which every limit refuses
    return float(((found - expected) * way).sum() / max(np.square(way).sum(), 1e-30))


def _check_exact(
    exact: onnx.ModelProto, name: str, truth: FloatReference, samples: Sequence[Sample]
) -> None:
    """Check that the float32 graph, the reference of the taps, agrees with the float model."""
    found = run_all(OnnxRuntimeBackend(optimise=False), exact.SerializeToString(), samples)
    every = truth.z if name == "encode" else truth.z_future
    # The same rows that `measure` takes the samples from.
    agreed = sqnr_db(found, every[spread(len(every), SAMPLES)])
    if agreed < limit_of("latent_sqnr_db", dict.fromkeys(GRAPHS, "fp32"))[1]:
        raise EngineError(
            f"the float32 graph {name!r} is {agreed:.1f} dB from the float model, so it cannot say "
            "what is right inside; export it from the model that is compiled"
        )
