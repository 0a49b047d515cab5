"""Whether compiled graphs still do what the float model does; nothing is packed unless they do.

Everything runs through `jetsight.engine` on frames and windows that calibrated nothing, and is
compared with the PyTorch model in float32. Beside every value stands a negative control, executed
in the same run, that has to fail: a gate that cannot fail proves nothing.

| gate | value | control |
|---|---|---|
| `latent_cosine` | mean cosine of standardised latents | half the last layer mis-scaled |
| `latent_cosine_worst` | its worst percentile | each frame beside another one's latent |
| `latent_sqnr_db` | signal to error of the latents | half the last layer mis-scaled |
| `rollout_drift` | max over k: E|z_q - z|^2 / E|z(t+k) - z(t)|^2 | the same in `forecast` |
| `inputs_matter` | smallest effect of any input | a forecast that cannot hear its actions |

Drift is in units of skill: 0.01 moves `1 - E|error|^2 / E|persistence|^2` by about 0.01.

Shapes: N frames, W windows, K history, H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from jetsight.engine import Backend, Engine
from jetsight.errors import GateError
from jetsight.manifest import Gate
from jetsight_compile.controls import deaf, mis_scaled
from jetsight_compile.engines import F32, Sample, loaded, run_all, run_one
from jetsight_compile.measure import Reference, drift, sqnr_db, standard_cosine, worst_percent

Direction = Literal["min", "max"]

# name: (direction, {precision: limit}). Origins: fp32 is float rounding with room for another
# order of summation; fp16 is 0.1 of what NVIDIA's GR00T deployment accepts for bf16 (0.999); int8
# latents follow its FP8 bar (0.99), with room in the worst percentile for frames near the mean,
# whose standardised latents are short; drift may cost 0.02 of skill.
LIMITS: dict[str, tuple[Direction, dict[str, float]]] = {
    "latent_cosine": ("min", {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.995}),
    "latent_cosine_worst": ("min", {"fp32": 0.99999, "fp16": 0.999, "int8": 0.95}),
    "latent_sqnr_db": ("min", {"fp32": 80.0, "fp16": 40.0, "int8": 20.0}),
    "rollout_drift": ("max", {"fp32": 1e-6, "fp16": 1e-3, "int8": 0.02}),
    # Swapping an input for another recorded one moves the output by about its own spread.
    "inputs_matter": ("min", {"fp32": 1e-3, "fp16": 1e-3, "int8": 1e-3}),
}
KNOBS = {
    "fp32": "report it: a float32 graph must agree with its model",
    "fp16": "compile this target in fp32",
    "int8": "calibrate with more varied episodes, keep a layer float with --keep-float (the last "
    "one, 'trunk.out/*' or 'trunk.projector.down/*', then the first), or compile in fp32",
}


@dataclass(frozen=True)
class Family:
    """The graphs of one family, as they will be packed."""

    name: str
    precision: str
    encode: onnx.ModelProto
    forecast: onnx.ModelProto


def judge(family: Family, truth: Reference, backends: Sequence[Backend]) -> list[Gate]:
    """Measure every gate of a family.

    Args:
        family: graphs to judge.
        truth: held-out data and the float model's answers.
        backends: the value of a gate is the worst over these; the first one runs the controls.

    Raises:
        EngineError: a backend cannot load a graph.
    """
    each = [_values(family, truth, backend) for backend in backends]
    controls = _controls(family, truth, backends[0])
    return [
        _gate(family, name, [values[name] for values in each], controls[name]) for name in LIMITS
    ]


def require(gates: Sequence[Gate]) -> None:
    """Stop unless every gate passed and every control failed.

    Raises:
        GateError: one line with each value, its limit, and the next knob to turn.
    """
    wrong = [gate for gate in gates if not (gate.passed and gate.control_failed)]
    if not wrong:
        return
    text = "; ".join(_verdict(gate) for gate in wrong)
    knob = KNOBS[wrong[0].family.rsplit("-", 1)[1]]
    raise GateError(f"no bundle was written: {text}; next: {knob}")


def _verdict(gate: Gate) -> str:
    side = "at least" if gate.direction == "min" else "at most"
    if not gate.passed:
        return f"{gate.family} {gate.name} is {gate.value:.4g}, limit {side} {gate.limit:g}"
    return (
        f"{gate.family} {gate.name}: the negative control reached {gate.control_value:.4g} and "
        f"should have failed the limit {side} {gate.limit:g}"
    )


def _gate(family: Family, name: str, values: Sequence[float], control: float) -> Gate:
    direction, limits = LIMITS[name]
    limit = limits[family.precision]
    if direction == "min":
        value, passed, failed = min(values), min(values) >= limit, control < limit
    else:
        value, passed, failed = max(values), max(values) <= limit, control > limit
    return Gate(family.name, name, value, limit, direction, passed, control, failed)


def _values(family: Family, truth: Reference, backend: Backend) -> dict[str, float]:
    """Every gate's value on one backend, end to end: forecasts start from compiled latents."""
    w, k = truth.history_u8.shape[:2]
    frames = [*truth.frames_u8, *truth.history_u8.reshape(w * k, *truth.history_u8.shape[2:])]
    with loaded(backend, family.encode.SerializeToString()) as engine:
        z = np.stack([run_one(engine, {"frame_hwc_u8": frame}) for frame in frames])
    z, history = z[: -w * k], z[-w * k :].reshape(w, k, -1)
    inputs = [{**truth.windows.inputs(i), "z_hist": z_hist} for i, z_hist in enumerate(history)]
    with loaded(backend, family.forecast.SerializeToString()) as engine:
        future = np.stack([run_one(engine, sample) for sample in inputs])
        effects = [_effect(engine, inputs, n) for n, value in inputs[0].items() if value.size]
    cosine = standard_cosine(z, truth)
    return {
        "latent_cosine": float(cosine.mean()),
        "latent_cosine_worst": worst_percent(cosine),
        "latent_sqnr_db": sqnr_db(z, truth.z),
        "rollout_drift": drift(future, truth),
        "inputs_matter": min(_change(z[0], z[len(z) // 2]), *effects),
    }


def _controls(family: Family, truth: Reference, backend: Backend) -> dict[str, float]:
    """What every gate says of something that is wrong on purpose."""
    frames = [{"frame_hwc_u8": frame} for frame in truth.frames_u8]
    inputs = [truth.windows.inputs(index) for index in range(len(truth.windows))]
    z = run_all(backend, mis_scaled(family.encode), frames)
    future = run_all(backend, mis_scaled(family.forecast), inputs)
    shuffled = np.roll(truth.z, len(truth.z) // 2, axis=0)
    with loaded(backend, deaf(family.forecast, "actions")) as engine:
        effect = _effect(engine, inputs, "actions")
    return {
        "latent_cosine": float(standard_cosine(z, truth).mean()),
        "latent_cosine_worst": worst_percent(standard_cosine(shuffled, truth)),
        "latent_sqnr_db": sqnr_db(z, truth.z),
        "rollout_drift": drift(future, truth),
        "inputs_matter": effect,
    }


def _effect(engine: Engine, inputs: Sequence[Sample], name: str) -> float:
    """What exchanging one input for another recorded value of it does to the forecast."""
    first, other = inputs[0], inputs[len(inputs) // 2]
    same = np.array_equal(first[name], other[name])
    changed = {**first, name: -first[name] - 1.0 if same else other[name]}
    return _change(run_one(engine, first), run_one(engine, changed))


def _change(before: F32, after: F32) -> float:
    """Largest difference relative to the largest number."""
    return float(np.abs(after - before).max() / max(float(np.abs(before).max()), 1e-30))
