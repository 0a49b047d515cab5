"""Gates on what happens inside the graphs, where the ends of the pipe are blind.

Each graph's taps are compared with those of the float32 graph of its structure, both fed the same
held-out inputs, so that `forecast` is judged alone. Per graph, the worst of all taps:

| gate | value |
|---|---|
| `..._inside_cosine` | mean cosine of the tokens that move |
| `..._inside_cosine_worst` | the cosine that one token in a hundred does not reach |
| `..._inside_sqnr_db` | signal to error of all tokens |
| `history_age_steps` | how far values look like those of a history one step old: 0 to 1 |

The age is a projection: of the difference that a stale history makes in the float32 graph, how much
is in the compiled graph's error. It is taken at the tap where staleness shows most. Rounding has no
direction and hardly adds to it, while its energy may be larger than the whole effect: where actions
say most of what comes next, as in pusht-nano, a stale history costs a forecast less than INT8 does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
from jetsight_compile.validate.taps import Likeness, Tap, Values

SAMPLES = 50  # a tap has many tokens, so fewer samples settle it than settle an end
# How many middle layers are mis-scaled until one is seen: behind a gate that training left closed,
# a layer is wrong without any consequence.
_TRIES = 12
_AGE = "history_age_steps"
_WORST_AT, _CONTROL = "worst at ", "; control mis-scales "
_STEP = re.compile(r"^step\d+/")
Measured = dict[str, tuple[Measurement, float]]  # a value and its control, by gate


def measure(
    graphs: Mapping[str, onnx.ModelProto],
    exact: Mapping[str, onnx.ModelProto],
    truth: FloatReference,
    backend: Backend,
    precision: Mapping[str, str],
) -> Measured:
    """Every gate of the insides, with its negative control.

    Args:
        graphs: compiled graphs.
        exact: float32 graphs of the same structure.
        truth: held-out data and the float model's answers.
        backend: runs all of them.
        precision: of each graph, whose limits the controls must miss.

    Raises:
        EngineError: a graph lacks a tap, or a float32 graph differs from the float model.
    """
    frames = [{"frame_hwc_u8": f} for f in truth.frames_u8[spread(len(truth.frames_u8), SAMPLES)]]
    windows = truth.windows.thinned(SAMPLES)
    inputs = [windows.inputs(index) for index in range(len(windows))]
    for name, samples in (("encode", frames), ("forecast", inputs)):
        _check_exact(exact[name], name, truth, samples)
    encode = _Graph("encode", graphs["encode"], exact["encode"], frames, backend)
    forecast = _Graph("forecast", graphs["forecast"], exact["forecast"], inputs, backend)
    return {
        **encode.likeness(precision),
        **forecast.likeness(precision),
        _AGE: forecast.age(),
    }


def worst_block(gate: Gate, gates: Sequence[Gate]) -> str:
    """The block that ends at the worst tap: the gate's own, or that of the graph it is about."""
    graph = "encode" if gate.name.split("_", 1)[0] in ("latent", "encode") else "forecast"
    inner = [each for each in gates if each.family == gate.family and "_inside_" in each.name]
    own = [each for each in inner if each.name == gate.name]
    noisy = [each for each in inner if each.name == f"{graph}_inside_sqnr_db"]
    for each in (*own, *noisy):
        where = each.detail.removeprefix(_WORST_AT).partition(_CONTROL)[0]
        return _STEP.sub("", where)
    return "the last layer"


class _Graph:
    """One compiled graph beside its float32 twin, and what the twin answers."""

    def __init__(
        self,
        name: str,
        compiled: onnx.ModelProto,
        exact: onnx.ModelProto,
        samples: Sequence[Sample],
        backend: Backend,
    ) -> None:
        self.name, self._compiled, self._exact = name, compiled, exact
        self._samples, self._backend = samples, backend
        self._taps: list[Tap] = taps.places(exact)
        self._expected = self._float(samples)

    def likeness(self, precision: Mapping[str, str]) -> Measured:
        """The three gates of the taps, and the first middle layer whose fault all three see."""
        values = _summary(self.name, taps.compare(self._read(self._compiled), self._expected))
        layer, controls = self._seen_fault(precision)
        return {
            gate: (
                Measurement(found.value, f"{found.detail}{_CONTROL}{layer}"),
                controls[gate].value,
            )
            for gate, found in values.items()
        }

    def _seen_fault(self, precision: Mapping[str, str]) -> tuple[str, dict[str, Measurement]]:
        """A mis-scaled layer, the nearest to the middle that fails every gate, and its values."""
        controls: dict[str, Measurement] = {}
        layer = ""
        for layer in inner_layers(self._exact)[:_TRIES]:
            broken = self._read(scale_half_layer(self._compiled, layer))
            controls = _summary(self.name, taps.compare(broken, self._expected))
            if all(controls[gate].value < limit_of(gate, precision)[1] for gate in controls):
                break
        return layer, controls

    def age(self) -> tuple[Measurement, float]:
        """The age of a history that is fresh, and of one that is a step old."""
        old = shift_history(np.stack([sample["z_hist"] for sample in self._samples]))
        samples = [{**s, "z_hist": z} for s, z in zip(self._samples, old, strict=True)]
        aged = self._float(samples)
        tap = max(aged, key=lambda name: _effect(self._expected[name], aged[name]))
        fresh, control = (self._read(self._compiled, each)[tap] for each in (None, samples))
        pair = self._expected[tap], aged[tap]
        return Measurement(abs(_age(fresh, *pair)), f"seen best at {tap}"), abs(
            _age(control, *pair)
        )

    def _read(self, model: onnx.ModelProto, samples: Sequence[Sample] | None = None) -> Values:
        return taps.read(self._backend, model, self._taps, samples or self._samples)

    def _float(self, samples: Sequence[Sample]) -> Values:
        backend = OnnxRuntimeBackend(optimise=False)  # exactly what is written
        return taps.read(backend, self._exact, self._taps, samples)


def _summary(graph: str, each: Mapping[str, Likeness]) -> dict[str, Measurement]:
    """The worst tap by each measure."""
    mean = min(each, key=lambda name: each[name].cosine)
    worst = min(each, key=lambda name: each[name].worst)
    noisy = min(each, key=lambda name: each[name].sqnr_db)
    return {
        f"{graph}_inside_cosine": Measurement(each[mean].cosine, _WORST_AT + mean),
        f"{graph}_inside_cosine_worst": Measurement(each[worst].worst, _WORST_AT + worst),
        f"{graph}_inside_sqnr_db": Measurement(each[noisy].sqnr_db, _WORST_AT + noisy),
    }


def _effect(expected: F32, aged: F32) -> float:
    """What staleness does to a tap, relative to how much the tap moves at all."""
    moved = expected.astype(np.float64) - expected.mean(0)
    return float(np.square(aged - expected).sum() / max(np.square(moved).sum(), 1e-30))


def _age(found: F32, expected: F32, aged: F32) -> float:
    """How far `found` went from the `expected` value (0) towards the `aged` one (1)."""
    way = aged.astype(np.float64) - expected
    if not np.isfinite(found).all():
        return 1.0
    return float(((found - expected) * way).sum() / max(np.square(way).sum(), 1e-30))


def _check_exact(
    exact: onnx.ModelProto, name: str, truth: FloatReference, samples: Sequence[Sample]
) -> None:
    """The reference of the insides must end where the float model does."""
    found = run_all(OnnxRuntimeBackend(optimise=False), exact.SerializeToString(), samples)
    every = truth.z if name == "encode" else truth.z_future
    agreed = sqnr_db(found, every[spread(len(every), SAMPLES)])
    if agreed < limit_of("latent_sqnr_db", dict.fromkeys(GRAPHS, "fp32"))[1]:
        raise EngineError(
            f"the float32 graph {name!r} is {agreed:.1f} dB from the float model, so it cannot say "
            "what is right inside; export it from the model that is compiled"
        )
