"""Gates of a planner's graph, against the float planner with the same draws.

Each planner is compared with the PyTorch planner on held-out cases (`planner_reference`);
`jetsight.bundle.gates` says what each gate and its negative control are. A family has each gate
once: the worst of its planners.

All gates but the regret compare single iterations, the first and the middle one, started from the
float planner's state. Over a whole plan any rounding grows, because many plans cost nearly the same
and the best of thousands of candidates is another one: float16, at a rank correlation of 0.99999,
ends with a first action as different as other draws make it (0.7 action std), and as good. So of
whole plans only the cost is limited. The last iteration has no gate on its ranks: there the costs
of pusht-nano's candidates differ by 0.4 % of what the plan began with.

Hazards are compared at limits that half the candidates violate, since the bundle's own may be far
from all of them. A model without hazards has no such gate.

Shapes: M cases, I iterations, N samples, E elites, H horizon, A action-block size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.bundle.manifest import Gate
from jetsight.bundle.parity import spearman
from jetsight.engine import Backend, Engine
from jetsight.plan_report.report import ranked
from jetsight.planning.iterations import HANDED_ON
from jetsight_compile.calibration.run import F32, loaded
from jetsight_compile.config.precision import IMAGINE
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.validate.limits import IMAGINE_LIMITS
from jetsight_compile.validate.metrics import Measurement
from jetsight_compile.validate.negative_controls import (
    middle_first,
    scale_half_layer,
    zero_input,
)
from jetsight_compile.validate.planner_reference import ReferencePlan, Truth
from jetsight_compile.validate.runner import (
    MOST_FAULTS,
    GateResult,
    graph_bytes,
    with_fault_control,
    worst,
)
from jetsight_train.planning.problem import State

_RANKS = ("imagine_rank", "imagine_rank_narrow")
_FEWEST_ELITES = 4
_NOT_FINITE = 10.0  # replaces NaN and infinity, far beyond every limit; a manifest has neither
Values = dict[str, Measurement]
Verdict = npt.NDArray[np.bool_]
Pair = tuple[dict[str, F32], State]  # one iteration: the graph's outputs, the float planner's


@dataclass(frozen=True)
class PlannerUnderTest:
    """One planner's graph, as it will be packed, and its reference.

    Attributes:
        graph: name of the graph.
        precision: of the compiled graph.
        compiled: the graph.
        exact: the float32 graph of the same structure.
        truth: the float planner's plans.
    """

    graph: str
    precision: str
    compiled: onnx.ModelProto
    exact: onnx.ModelProto
    truth: Truth


def judge(planner: PlannerUnderTest, backends: Sequence[Backend]) -> GateResult:
    """Measure every gate of a planner.

    Args:
        planner: graph to judge.
        backends: single iterations are measured on each, and the worst counts; whole plans and the
            controls run on the first.

    Raises:
        EngineError: a backend cannot load the graph.
    """
    compiled, each = graph_bytes(planner.compiled), []
    for backend in backends:
        with loaded(backend, compiled) as engine:
            each.append(_iterations(engine, planner.truth))
            if backend is backends[0]:
                each.append(_regret(engine, planner.truth))
    measured, where = worst(each), f"worst for {planner.graph}"
    values = {
        gate: Measurement(measured[gate].value, where).noting(measured[gate].detail)
        for gate in _gates_of(planner.truth)
    }
    result = GateResult({IMAGINE: planner.precision}, values, _controls(planner, backends[0]))
    return result.joined(_ranks(planner, values, backends[0]))


def gates(family: str, results: Sequence[GateResult]) -> list[Gate]:
    """Return the gates of a family: each the worst over its planners, with that one's control."""
    by_gate = zip(*(result.gates(family) for result in results), strict=True)
    return [min(each, key=_severity) for each in by_gate]


def _severity(gate: Gate) -> tuple[bool, float]:
    # A failed value or a blind control of one planner must never hide behind another planner.
    sound = gate.passed and gate.control_failed
    return sound, gate.value if gate.direction == "min" else -gate.value


def _gates_of(truth: Truth) -> list[str]:
    """Names of the gates of such a model, in the order they are shown."""
    # Without hazards everything is feasible, and the gate could not have a control that fails.
    has_hazards = truth.model.heads.hazard is not None
    return [gate for gate in IMAGINE_LIMITS if has_hazards or gate != "imagine_feasible"]


def _iterations(engine: Engine, truth: Truth) -> Values:
    """Measure single iterations, at the beginning and in the middle of a search."""
    wide, narrow = (_iteration(engine, truth, at) for at in (0, (truth.facts.iterations - 1) // 2))
    pairs = [*wide, *narrow]
    means = [(outputs["mean_next"], state.mean.numpy()) for outputs, state in pairs]
    verdicts = [np.mean(a == b) for a, b in _verdicts(engine, truth)]
    values = {
        "imagine_rank": _mean_rank(wide),
        "imagine_rank_narrow": _mean_rank(narrow),
        "imagine_elites": np.mean([_overlap(outputs, s, truth) for outputs, s in pairs]),
        **({"imagine_feasible": np.mean(verdicts)} if verdicts else {}),
        "imagine_first_action": _first_action_distance(means, truth),
    }
    return {gate: Measurement(float(value)) for gate, value in values.items()}


def _iteration(engine: Engine, truth: Truth, index: int) -> list[Pair]:
    """Run one iteration of each reference plan, beside the float planner's."""
    return [(_run(engine, case.inputs(index)), case.states[index + 1]) for case in truth.cases]


def _mean_rank(pairs: Sequence[Pair]) -> float:
    """Mean rank correlation of the costs; -1 where a cost is not finite."""
    # NaN has no rank: sorting would put it somewhere and hide it.
    each = [(outputs["costs"], state.costs.numpy()) for outputs, state in pairs]
    return float(np.mean([spearman(a, b) if np.isfinite(a).all() else -1.0 for a, b in each]))


def _verdicts(engine: Engine, truth: Truth) -> list[tuple[Verdict, Verdict]]:
    """Per case, the candidates that the graph and the float model find feasible, `[N]` each."""
    pairs = []
    for case in truth.cases:
        if (split := case.split_limits) is not None:
            outputs = _run(engine, {**case.inputs(0), "hazard_limit": split.limit})
            pairs.append((outputs["violations"] <= 0.0, split.feasible))
    return pairs


def _overlap(outputs: Mapping[str, F32], state: State, truth: Truth) -> float:
    """Share of the best candidates that the float planner's state has too."""
    count = max(truth.facts.elites, min(_FEWEST_ELITES, len(state.costs)))
    return len(_best(outputs, count) & _best(_scores(state), count)) / count


def _best(outputs: Mapping[str, F32], count: int) -> set[int]:
    """Rank the best candidates as planners do; without hazards all are feasible."""
    costs = outputs["costs"]
    order = ranked(costs, outputs.get("violations", np.zeros_like(costs)))
    return set(order[:count].tolist())


def _scores(state: State) -> dict[str, F32]:
    return {"costs": state.costs.numpy(), "violations": state.violations.numpy()}


def _first_action_distance(pairs: Sequence[tuple[F32, F32]], truth: Truth) -> float:
    """Mean over pairs of plans `[H, A]`: RMS difference of their first block, in action std."""
    off = [(a[0] - b[0]) / truth.model.action_std.numpy() for a, b in pairs]
    return _finite(float(np.sqrt(np.square(off).mean(1)).mean()))


def _regret(engine: Engine, truth: Truth) -> Values:
    """Extra cost of whole plans in the float model, as a share of what planning gains."""
    pairs, lost, gained = [], 0.0, 0.0
    for case in truth.cases:
        actions, best = _plan(engine, case), case.states[-1]
        pairs.append((actions, best.actions.numpy()))
        lost += truth.cost_of(case, actions) - float(best.cost)
        gained += case.start_cost - float(best.cost)
    detail = f"the plans' first actions differ by {_first_action_distance(pairs, truth):.2g} std"
    # A search that gains nothing makes any loss huge, so the gate fails.
    return {"imagine_regret": Measurement(_finite(lost / max(gained, 1e-30)), detail)}


def _plan(engine: Engine, case: ReferencePlan) -> F32:
    """Plan `[H, A]` after all iterations, each started from the one before."""
    inputs = case.inputs(0)
    for noise in case.draws:
        outputs = _run(engine, {**inputs, "noise": noise.numpy()})
        # As the runtime hands an iteration's results on to the next.
        inputs |= {into: outputs[name] for name, into in HANDED_ON.items() if name in outputs}
    return outputs["actions"]


def _controls(planner: PlannerUnderTest, backend: Backend) -> dict[str, float]:
    """Measure every gate but the ranks on something that is wrong on purpose."""
    truth = planner.truth
    with loaded(backend, graph_bytes(zero_input(planner.compiled, "z_goal"))) as engine:
        no_goal = _iterations(engine, truth) | _regret(engine, truth)
        verdicts = [_shuffled(a) == b for a, b in _verdicts(engine, truth)]
    elites = []
    for state in (case.states[1] for case in truth.cases):
        shuffled = {name: _shuffled(values) for name, values in _scores(state).items()}
        elites.append(_overlap(shuffled, state, truth))
    return {
        "imagine_elites": float(np.mean(elites)),
        **({"imagine_feasible": float(np.mean(verdicts))} if verdicts else {}),
        "imagine_first_action": no_goal["imagine_first_action"].value,
        "imagine_regret": no_goal["imagine_regret"].value,
    }


def _ranks(
    planner: PlannerUnderTest, values: Mapping[str, Measurement], backend: Backend
) -> GateResult:
    """Add the control of both ranks: one mis-scaled layer."""

    def with_fault(layer: str) -> Values:
        broken = scale_half_layer(planner.compiled, layer)
        with loaded(backend, graph_bytes(broken)) as engine:
            return _iterations(engine, planner.truth)

    layers = quantizable(planner.exact)
    # Not layer by layer: the neighbours of an unrolled layer are its copies in other steps.
    tried = middle_first(layers, stride=max(1, len(layers) // MOST_FAULTS))
    ranks = {gate: values[gate] for gate in _RANKS}
    return with_fault_control(ranks, tried, with_fault, {IMAGINE: planner.precision})


def _shuffled(values: Any) -> Any:
    return np.roll(values, len(values) // 2)


def _run(engine: Engine, sample: Mapping[str, F32]) -> dict[str, F32]:
    for name, array in engine.inputs.items():
        array.write(np.ascontiguousarray(sample[name]))
    engine.run()
    # Copies, because the next run overwrites the engine's arrays.
    return {name: array.read().copy() for name, array in engine.outputs.items()}


def _finite(value: float) -> float:
    return value if np.isfinite(value) else _NOT_FINITE
