"""Gates of a family's graphs, against the float model; a bundle is written only if they pass.

Everything runs through `jetsight.engine` on held-out frames and windows. Outputs are compared with
the PyTorch model in float32, on every backend; values inside (`layer_gates`) with the float32 graph
of the same structure, which is itself compared with PyTorch first. `jetsight.bundle.gates` says
what each gate is and what its negative control is: a graph or input that is wrong on purpose, run
on the same machine, whose value has to miss the limit.

A `rollout_drift` of 0.01 changes the skill, `1 - E|error|^2 / E|persistence|^2`, by about 0.01.

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
from jetsight_compile.calibration.run import Sample, loaded, run_all, run_one
from jetsight_compile.validate import layer_gates
from jetsight_compile.validate.knobs import next_knob
from jetsight_compile.validate.limits import LIMITS
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
from jetsight_compile.validate.runner import GateResult, graph_bytes, worst

_SHOWN = 4  # failures in a message; one cause fails many gates


@dataclass(frozen=True)
class FamilyUnderTest:
    """The graphs of one family, as they will be packed.

    Attributes:
        name: of the family.
        precision: of each graph.
        encode: compiled graph.
        forecast: compiled graph.
        exact: float32 graphs of the same structure, by name; the reference of `layer_gates`.
    """

    name: str
    precision: Mapping[str, str]
    encode: onnx.ModelProto
    forecast: onnx.ModelProto
    exact: Mapping[str, onnx.ModelProto] = field(default_factory=dict)


def judge(
    family: FamilyUnderTest, truth: FloatReference, backends: Sequence[Backend]
) -> list[Gate]:
    """Measure every gate of a family.

    Args:
        family: graphs to judge.
        truth: held-out data and the float model's answers.
        backends: the value of a gate is the worst over these. Only the first one runs the controls
            and `layer_gates`, because values that are read out change what a library fuses.

    Raises:
        EngineError: a backend cannot load a graph, or a float32 graph is missing, lacks a tap, or
            differs from the float model.
    """
    missing = [graph for graph in GRAPHS if graph not in family.exact]
    if missing:
        raise EngineError(
            f"family {family.name} came without its float32 graph {missing[0]!r}, so nothing "
            "inside it can be compared; pass FamilyUnderTest.exact"
        )
    values = worst([_values(family, truth, backend) for backend in backends])
    outputs = GateResult(family.precision, values, _controls(family, truth, backends[0]))
    graphs = {"encode": family.encode, "forecast": family.forecast}
    layers = layer_gates.measure(graphs, family.exact, truth, backends[0], family.precision)
    by_name = {gate.name: gate for gate in outputs.joined(layers).gates(family.name)}
    # By the table and not by what was measured: a gate that is missing stops here.
    return [by_name[name] for name in LIMITS]


def require(gates: Sequence[Gate]) -> None:
    """Stop unless every gate passed and every control failed.

    Raises:
        GateError: one line with the first values, their limits, and what to try next.
    """
    # A control that passes makes its gate worthless, so it stops the bundle as well.
    wrong = [gate for gate in gates if not (gate.passed and gate.control_failed)]
    if not wrong:
        return
    text = verdicts(wrong)
    first = wrong[0]
    knob = next_knob(first.family, first.name, layer_gates.worst_block(first, gates))
    raise GateError(f"no bundle was written: {text}; next: {knob}")


def require_controls(gates: Sequence[Gate]) -> None:
    """Stop if any negative control passed: what that gate says of any graph is worth nothing.

    Raises:
        GateError: one line with the first controls and their limits.
    """
    blind = [gate for gate in gates if not gate.control_failed]
    if blind:
        text = "; ".join(map(_blind, blind[:_SHOWN]))
        raise GateError(
            f"no bundle was written: {text}; next: report it with the checkpoint, because "
            "the check does not see what it is for"
        )


def verdicts(wrong: Sequence[Gate]) -> str:
    """Describe the first of the gates that went wrong, and count the others."""
    text = "; ".join(map(_verdict, wrong[:_SHOWN]))
    return f"{text}; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else text


def _verdict(gate: Gate) -> str:
    side = "at least" if gate.direction == "min" else "at most"
    if gate.passed:
        return _blind(gate)
    detail = f" ({gate.detail})" if gate.detail else ""
    return f"{gate.family} {gate.name} is {gate.value:.4g}, limit {side} {gate.limit:g}{detail}"


def _blind(gate: Gate) -> str:
    side = "at least" if gate.direction == "min" else "at most"
    return (
        f"{gate.family} {gate.name}: the negative control reached {gate.control_value:.4g} and "
        f"should have failed the limit {side} {gate.limit:g}"
    )


def _values(
    family: FamilyUnderTest, truth: FloatReference, backend: Backend
) -> dict[str, Measurement]:
    """Measure the outputs on one backend; forecasts start from compiled latents, as on a robot."""
    with loaded(backend, graph_bytes(family.encode)) as engine:
        z = np.stack([run_one(engine, sample) for sample in truth.encode])
        history = np.stack([run_one(engine, sample) for sample in truth.history])
        effects = _encode_effects(engine, truth)
    history = history.reshape(len(truth.windows), truth.windows.history, -1)
    inputs = [{**truth.windows.inputs(i), "z_hist": z_hist} for i, z_hist in enumerate(history)]
    with loaded(backend, graph_bytes(family.forecast)) as engine:
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
    """Measure the same gates on graphs and latents that are wrong on purpose."""
    inputs = [truth.windows.inputs(index) for index in range(len(truth.windows))]
    z = run_all(backend, graph_bytes(scale_half_layer(family.encode)), truth.encode)
    future = run_all(backend, graph_bytes(scale_half_layer(family.forecast)), inputs)
    shuffled = np.roll(truth.z, len(truth.z) // 2, axis=0)
    with loaded(backend, graph_bytes(zero_input(family.forecast, "actions"))) as engine:
        effect = _effect(engine, inputs, "actions")
    return {
        "latent_cosine": float(standard_cosine(z, truth).mean()),
        "latent_cosine_worst": worst_percent(standard_cosine(shuffled, truth)),
        "latent_sqnr_db": sqnr_db(z, truth.z),
        "rollout_drift": float(drift(future, truth).max()),
        "inputs_matter": effect,
    }


def _encode_effects(engine: Engine, truth: FloatReference) -> dict[str, float]:
    """Measure the effect of every camera alone, and of the state, on the latent."""
    name, cameras = "frame_hwc_u8", truth.cameras
    if len(cameras) < 2:
        effects = {name: _effect(engine, truth.encode, name)}
    else:
        effects = {
            f"{name}[{camera}]": _effect(engine, truth.encode, name, part=index)
            for index, camera in enumerate(cameras)
        }
    if "state" in truth.encode[0]:
        effects["state"] = _effect(engine, truth.encode, "state")
    return effects


def _effect(engine: Engine, inputs: Sequence[Sample], name: str, part: int | None = None) -> float:
    """Relative change of the output when one input is exchanged for another recorded one.

    Args:
        engine: of the graph.
        inputs: recorded samples.
        name: of the input to exchange.
        part: exchange only this row of it; None for all of it.
    """
    # Half a recording apart, because neighbouring frames may be nearly equal.
    first, other = inputs[0], inputs[len(inputs) // 2]
    rows = slice(None) if part is None else part
    value = np.array(first[name])
    # Recordings may repeat an input; then a value that none of them has takes its place.
    same = np.array_equal(value[rows], other[name][rows])
    opposite = ~value[rows] if value.dtype == np.uint8 else -value[rows] - 1.0
    value[rows] = opposite if same else other[name][rows]
    return change(run_one(engine, first), run_one(engine, {**first, name: value}))
