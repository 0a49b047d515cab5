"""Whether compiled graphs still do what the float model does; nothing is packed unless they do.

Everything runs through `jetsight.engine` on frames and windows that calibrated nothing. The ends
of the pipe are compared with the PyTorch model in float32, on every backend; values inside with the
float32 graph of the same structure, which is itself compared with PyTorch first. Beside every value
stands a negative control, executed in the same run on the same graphs, that has to fail: a gate
that cannot fail proves nothing.

| gate | value | control |
|---|---|---|
| `latent_cosine` | mean cosine of standardised latents | half the last layer mis-scaled |
| `latent_cosine_worst` | its worst percentile | each frame beside another one's latent |
| `latent_sqnr_db` | signal to error of the latents | half the last layer mis-scaled |
| `encode_inside_...`, `forecast_inside_...` | see `inside` | half a middle layer mis-scaled |
| `rollout_drift` | max over k: E|z_q - z|^2 / E|z(t+k) - z(t)|^2 | the same in `forecast` |
| `history_age_steps` | see `inside` | a history one step old |
| `inputs_matter` | smallest effect of any input | a forecast that cannot hear its actions |

Drift is in units of skill: 0.01 moves `1 - E|error|^2 / E|persistence|^2` by about 0.01.

Shapes: N frames, W windows, K history, H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from jetsight.bundle.manifest import GRAPHS, Gate
from jetsight.engine import Backend, Engine
from jetsight.errors import EngineError, GateError
from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.calibration.run import Sample, loaded, run_all, run_one
from jetsight_compile.validate import layer_gates
from jetsight_compile.validate.limits import LIMITS, limit_of, next_knob
from jetsight_compile.validate.metrics import (
    FloatReference,
    Measurement,
    change,
    drift,
    sqnr_db,
    standard_cosine,
    worst_percent,
)
from jetsight_compile.validate.negative_controls import scale_half_layer, zero_input

_SHOWN = 4  # failures in a message; one cause makes many


@dataclass(frozen=True)
class FamilyUnderTest:
    """The graphs of one family, as they will be packed.

    Attributes:
        name: of the family.
        precision: of each graph; one for both may be given as text.
        encode: compiled graph.
        forecast: compiled graph.
        exact: the float32 graphs of the same structure, by name; the insides' reference.
    """

    name: str
    precision: Mapping[str, str] | str
    encode: onnx.ModelProto
    forecast: onnx.ModelProto
    exact: Mapping[str, onnx.ModelProto] = field(default_factory=dict)

    @property
    def graphs(self) -> dict[str, onnx.ModelProto]:
        """The compiled graphs by name."""
        return {"encode": self.encode, "forecast": self.forecast}

    @property
    def precisions(self) -> Mapping[str, str]:
        """Precision of each graph."""
        both = self.precision
        return dict.fromkeys(GRAPHS, both) if isinstance(both, str) else both


def judge(
    family: FamilyUnderTest, truth: FloatReference, backends: Sequence[Backend]
) -> list[Gate]:
    """Measure every gate of a family.

    Args:
        family: graphs to judge.
        truth: held-out data and the float model's answers.
        backends: the value of a gate is the worst over these; the first one runs the controls and
            is looked into, because values that are read out change what a library fuses.

    Raises:
        EngineError: a backend cannot load a graph, or a float32 graph is missing, lacks a tap, or
            differs from the float model.
    """
    missing = [graph for graph in GRAPHS if graph not in family.exact]
    if missing:
        raise EngineError(
            f"family {family.name} came without its float32 graph {missing[0]!r}, so nothing "
            "inside it can be compared; pass Family.exact"
        )
    each = [_values(family, truth, backend) for backend in backends]
    controls = _controls(family, truth, backends[0])
    within = layer_gates.measure(family.graphs, family.exact, truth, backends[0], family.precisions)
    each[0].update({name: value for name, (value, _) in within.items()})
    controls.update({name: control for name, (_, control) in within.items()})
    return [
        _gate(family, name, [values[name] for values in each if name in values], controls[name])
        for name in LIMITS
    ]


def require(gates: Sequence[Gate]) -> None:
    """Stop unless every gate passed and every control failed.

    Raises:
        GateError: one line with the first values, their limits, and the next knob to turn.
    """
    wrong = [gate for gate in gates if not (gate.passed and gate.control_failed)]
    if not wrong:
        return
    text = "; ".join(_verdict(gate) for gate in wrong[:_SHOWN])
    if len(wrong) > _SHOWN:
        text += f"; and {len(wrong) - _SHOWN} more"
    first = wrong[0]
    knob = next_knob(first.family, first.name, layer_gates.worst_block(first, gates))
    raise GateError(f"no bundle was written: {text}; next: {knob}")


def _verdict(gate: Gate) -> str:
    side = "at least" if gate.direction == "min" else "at most"
    if gate.passed:
        return (
            f"{gate.family} {gate.name}: the negative control reached {gate.control_value:.4g} and "
            f"should have failed the limit {side} {gate.limit:g}"
        )
    detail = f" ({gate.detail})" if gate.detail else ""
    return f"{gate.family} {gate.name} is {gate.value:.4g}, limit {side} {gate.limit:g}{detail}"


def _gate(family: FamilyUnderTest, name: str, found: Sequence[Measurement], control: float) -> Gate:
    direction, limit = limit_of(name, family.precisions)
    worst = (min if direction == "min" else max)(found, key=lambda each: each.value)
    value = worst.value
    passed, failed = value >= limit, control < limit
    if direction == "max":
        passed, failed = value <= limit, control > limit
    return Gate(family.name, name, value, limit, direction, passed, control, failed, worst.detail)


def _values(
    family: FamilyUnderTest, truth: FloatReference, backend: Backend
) -> dict[str, Measurement]:
    """The ends' values on one backend; forecasts start from compiled latents."""
    w, k = truth.history_u8.shape[:2]
    frames = [*truth.frames_u8, *truth.history_u8.reshape(w * k, *truth.history_u8.shape[2:])]
    z = run_all(backend, _bytes(family.encode), [{"frame_hwc_u8": frame} for frame in frames])
    z, history = z[: -w * k], z[-w * k :].reshape(w, k, -1)
    inputs = [{**truth.windows.inputs(i), "z_hist": z_hist} for i, z_hist in enumerate(history)]
    effects = {"frame_hwc_u8": change(z[0], z[len(z) // 2])}
    with loaded(backend, _bytes(family.forecast)) as engine:
        future = np.stack([run_one(engine, sample) for sample in inputs])
        names = [name for name, value in inputs[0].items() if value.size]
        effects.update((name, _effect(engine, inputs, name)) for name in names)
    cosine, steps = standard_cosine(z, truth), drift(future, truth)
    by_step = ", ".join(f"{value:.2g}" for value in steps)
    least = min(effects, key=effects.__getitem__)
    return {
        "latent_cosine": Measurement(float(cosine.mean())),
        "latent_cosine_worst": Measurement(worst_percent(cosine)),
        "latent_sqnr_db": Measurement(sqnr_db(z, truth.z)),
        "rollout_drift": Measurement(
            float(steps.max()), f"worst at step {steps.argmax() + 1}; by step {by_step}"
        ),
        "inputs_matter": Measurement(effects[least], f"least by {least}"),
    }


def _controls(family: FamilyUnderTest, truth: FloatReference, backend: Backend) -> dict[str, float]:
    """What every gate of the ends says of something that is wrong on purpose."""
    frames = [{"frame_hwc_u8": frame} for frame in truth.frames_u8]
    inputs = [truth.windows.inputs(index) for index in range(len(truth.windows))]
    z = run_all(backend, _bytes(scale_half_layer(family.encode)), frames)
    future = run_all(backend, _bytes(scale_half_layer(family.forecast)), inputs)
    shuffled = np.roll(truth.z, len(truth.z) // 2, axis=0)
    with loaded(backend, _bytes(zero_input(family.forecast, "actions"))) as engine:
        effect = _effect(engine, inputs, "actions")
    return {
        "latent_cosine": float(standard_cosine(z, truth).mean()),
        "latent_cosine_worst": worst_percent(standard_cosine(shuffled, truth)),
        "latent_sqnr_db": sqnr_db(z, truth.z),
        "rollout_drift": float(drift(future, truth).max()),
        "inputs_matter": effect,
    }


def _effect(engine: Engine, inputs: Sequence[Sample], name: str) -> float:
    """What exchanging one input for another recorded value of it does to the forecast."""
    first, other = inputs[0], inputs[len(inputs) // 2]
    same = np.array_equal(first[name], other[name])
    changed = {**first, name: -first[name] - 1.0 if same else other[name]}
    return change(run_one(engine, first), run_one(engine, changed))


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(runnable(model).SerializeToString())
