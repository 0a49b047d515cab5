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

from jetsight.engine import Backend
from jetsight.errors import GateError
from jetsight.manifest import Gate
from jetsight_compile.controls import deaf, mis_scaled
from jetsight_compile.engines import F32, Sample, loaded, run_all, run_one
from jetsight_compile.measure import Reference, drift, sqnr_db, standard_cosine, worst_percent

Direction = Literal["min", "max"]

# name: (direction, {precision: limit}). Origins: fp32 is float rounding with room for another
# order of summation; fp16 is 0.1 of what NVIDIA's GR00T deployment accepts for bf16 (0.999); int8
# latents follow its FP8 bar (0.99), and drift may cost 0.02 of skill.
LIMITS: dict[str, tuple[Direction, dict[str, float]]] = {
    "latent_cosine": ("min", {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.995}),
    "latent_cosine_worst": ("min", {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98}),
    "latent_sqnr_db": ("min", {"fp32": 80.0, "fp16": 40.0, "int8": 20.0}),
    "rollout_drift": ("max", {"fp32": 1e-6, "fp16": 1e-3, "int8": 0.02}),
    # Swapping an input for another recorded one moves the output by about its own spread.
    "inputs_matter": ("min", {"fp32": 1e-3, "fp16": 1e-3, "int8": 1e-3}),
}
KNOBS = {
    "fp32": "report it: a float32 graph must agree with its model",
    "fp16": "compile this target in fp32",
    "int8": "calibrate with more varied episodes, keep a layer float with --keep-float (the first "
    "one, `trunk.layers.0/*` or `trunk.embed/*`, before others), or compile in fp32",
}


@dataclass(frozen=True)
class Family:
    """The graphs of one family, as they will be packed."""

    name: str
    precision: str
    encode: onnx.ModelProto
    forecast: onnx.ModelProto


def judge(family: Family, truth: Reference, backends: Sequence[Backend]) -> list[Gate]:
    """Measure every gate of a family; a value is the worst over `backends`, a control the best.

    Raises:
        EngineError: a backend cannot load a graph.
    """
    each = [_measure(family, truth, backend) for backend in backends]
    return [_gate(family, name, [measured[name] for measured in each]) for name in LIMITS]


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


def _gate(family: Family, name: str, pairs: Sequence[tuple[float, float]]) -> Gate:
    direction, limits = LIMITS[name]
    limit = limits[family.precision]
    worst, best = (min, max) if direction == "min" else (max, min)
    value, control = worst(v for v, _ in pairs), best(c for _, c in pairs)
    passed = value >= limit if direction == "min" else value <= limit
    failed = control < limit if direction == "min" else control > limit
    return Gate(family.name, name, value, limit, direction, passed, control, failed)


def _measure(family: Family, truth: Reference, backend: Backend) -> dict[str, tuple[float, float]]:
    """Value and control of every gate on one backend."""
    frames: list[Sample] = [{"frame_hwc_u8": frame} for frame in truth.frames_u8]
    encode, forecast = family.encode.SerializeToString(), family.forecast.SerializeToString()
    z = run_all(backend, encode, frames)
    broken = run_all(backend, mis_scaled(family.encode), frames)
    cosine, control = standard_cosine(z, truth), standard_cosine(broken, truth)
    shuffled = standard_cosine(np.roll(z, len(z) // 2, axis=0), truth)
    history = _encoded_history(backend, encode, truth)
    inputs = [{**truth.windows.inputs(i), "z_hist": z} for i, z in enumerate(history)]
    fresh = run_all(backend, forecast, inputs)
    wrong = run_all(backend, mis_scaled(family.forecast), inputs)
    return {
        "latent_cosine": (float(cosine.mean()), float(control.mean())),
        "latent_cosine_worst": (worst_percent(cosine), worst_percent(shuffled)),
        "latent_sqnr_db": (sqnr_db(z, truth.z), sqnr_db(broken, truth.z)),
        "rollout_drift": (drift(fresh, truth), drift(wrong, truth)),
        "inputs_matter": (
            _least_effect(backend, encode, forecast, frames, inputs),
            _effect_of_actions(backend, deaf(family.forecast, "actions"), inputs),
        ),
    }


def _encoded_history(backend: Backend, encode: bytes, truth: Reference) -> F32:
    """`[W, K, D]` latents of each window's history by the compiled encoder, as a robot has them."""
    w, k = truth.history_u8.shape[:2]
    frames = truth.history_u8.reshape(w * k, *truth.history_u8.shape[2:])
    z = run_all(backend, encode, [{"frame_hwc_u8": frame} for frame in frames])
    return z.reshape(w, k, -1)


def _least_effect(
    backend: Backend,
    encode: bytes,
    forecast: bytes,
    frames: Sequence[Sample],
    inputs: Sequence[Sample],
) -> float:
    """Smallest effect that exchanging one input for another recorded one has on the output."""
    with loaded(backend, encode) as engine:
        pixels = _effect(run_one(engine, frames[0]), run_one(engine, frames[len(frames) // 2]))
    with loaded(backend, forecast) as engine:
        first, other = inputs[0], inputs[len(inputs) // 2]
        before = run_one(engine, first)
        names = [name for name, value in first.items() if value.size]
        after = [run_one(engine, {**first, name: _unlike(name, first, other)}) for name in names]
    return min([pixels, *(_effect(before, each) for each in after)])


def _effect_of_actions(backend: Backend, forecast: bytes, inputs: Sequence[Sample]) -> float:
    first, other = inputs[0], inputs[len(inputs) // 2]
    with loaded(backend, forecast) as engine:
        before = run_one(engine, first)
        changed = {**first, "actions": _unlike("actions", first, other)}
        return _effect(before, run_one(engine, changed))


def _unlike(name: str, sample: Sample, other: Sample) -> F32:
    """Another recorded value of an input, or its reverse where the two happen to be equal."""
    same = np.array_equal(sample[name], other[name])
    return np.ascontiguousarray(-sample[name] - 1.0 if same else other[name])


def _effect(before: F32, after: F32) -> float:
    scale = float(np.abs(before).max())
    return float(np.abs(after - before).max()) / max(scale, 1e-30)
