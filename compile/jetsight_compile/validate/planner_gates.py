"""Whether a compiled planner still plans as the float one does, with the same draws.

Per planner, against the PyTorch planner on held-out moments (`planner_reference`):

| gate | value | control |
|---|---|---|
| `imagine_rank` | Spearman's correlation of candidate costs where a search begins | mis-scaled |
| `imagine_rank_narrow` | the same half-way, among candidates that are more alike | mis-scaled |
| `imagine_elites` | share of the elites that both choose | shuffled costs |
| `imagine_feasible` | share of candidates that both allow, or both forbid | shuffled verdicts |
| `imagine_first_action` | how far apart the next means begin, in action std | deaf to the goal |
| `imagine_regret` | what planning gains less of, by the float model's cost | deaf to the goal |

All but the last ask for one iteration from where the float planner is, at its first and middle one.
Over a whole plan any rounding grows, because many plans cost nearly the same and the best of
thousands of candidates is another one: float16, at a rank correlation of 0.99999, ends with a first
action as different as other draws make it (0.7 action std), and as good. So of whole plans the cost
is judged, and how far apart they begin is only told. Nor is the last iteration's order asked for:
there the costs of pusht-nano's candidates differ by 0.4 % of what the plan began with.

Whether hazards are heeded is asked at limits that half the candidates violate, since the bundle's
own may be far from all of them. A model without hazards has no such gate.

Single iterations are run on every backend, whole plans on the first, which also runs the controls.
A family has each gate once: the worst of its planners.

Shapes: M moments, I iterations, N samples, E elites, H horizon, A action-block size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from jetsight.bundle.manifest import Gate
from jetsight.bundle.parity import spearman
from jetsight.engine import Backend, Engine
from jetsight.plan_report.report import ranked
from jetsight.planning.iterations import HANDED_ON
from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.calibration.run import F32, loaded
from jetsight_compile.config.precision import IMAGINE
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.validate.limits import IMAGINE_LIMITS, limit_of
from jetsight_compile.validate.metrics import Measurement
from jetsight_compile.validate.negative_controls import scale_half_layer, zero_input
from jetsight_compile.validate.planner_reference import ReferencePlan, Truth
from jetsight_train.planning.problem import State

_RANKS = ("imagine_rank", "imagine_rank_narrow")
_FEWEST_ELITES = 4
# A layer behind a gate that training left closed is wrong without any consequence.
_TRIES = 12
_WORST = 10.0  # what stands for a number that is none
Values = dict[str, float]
Rank = npt.NDArray[np.int64]
Verdict = npt.NDArray[np.bool_]
Pair = tuple[dict[str, F32], State]  # what the graph says of an iteration, and the float planner


@dataclass(frozen=True)
class PlannerUnderTest:
    """One planner's graph, as it will be packed, and what it has to equal.

    Attributes:
        graph: its name.
        precision: of it.
        compiled: the graph.
        exact: the float32 graph of the same structure.
        truth: the float planner.
    """

    graph: str
    precision: str
    compiled: onnx.ModelProto
    exact: onnx.ModelProto
    truth: Truth


@dataclass(frozen=True)
class GateResult:
    """Every gate of one planner: value, and what its negative control reached."""

    planner: PlannerUnderTest
    values: Mapping[str, Measurement]
    controls: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every value is within its limit."""
        return all(
            _within(gate, self.planner.precision, found.value)
            for gate, found in self.values.items()
        )


def judge(planner: PlannerUnderTest, backends: Sequence[Backend]) -> GateResult:
    """Measure every gate of a planner.

    Raises:
        EngineError: a backend cannot load the graph.
    """
    data = _bytes(planner.compiled)
    each = []
    for backend in backends:
        with loaded(backend, data) as engine:
            values = _iterations(engine, planner.truth)
            if backend is backends[0]:
                values["imagine_regret"], apart = _plans(engine, planner.truth)
            each.append(values)
    found = {}
    for gate in _asked(planner.truth):
        worst = min if IMAGINE_LIMITS[gate][0] == "min" else max
        found[gate] = Measurement(worst(values[gate] for values in each if gate in values))
    controls, layer = _controls(planner, backends[0])
    details = dict.fromkeys(_RANKS, f"control mis-scales {layer}")
    details["imagine_regret"] = f"the plans' first actions differ by {apart:.2g} std"
    found = {gate: replace(value, detail=details.get(gate, "")) for gate, value in found.items()}
    return GateResult(planner, found, controls)


def gates(family: str, judged: Sequence[GateResult]) -> list[Gate]:
    """The gates of a family: each the worst over its planners, beside that planner's control."""
    made = []
    for gate in _asked(judged[0].planner.truth) if judged else ():
        every = [_gate(family, gate, each) for each in judged]
        sign = 1.0 if every[0].direction == "min" else -1.0
        made.append(min(every, key=lambda each: (not each.control_failed, sign * each.value)))
    return made


def _asked(truth: Truth) -> list[str]:
    """Names of the gates that such a model has."""
    has_hazards = truth.model.heads.hazard is not None
    return [gate for gate in IMAGINE_LIMITS if has_hazards or gate != "imagine_feasible"]


def _gate(family: str, name: str, judged: GateResult) -> Gate:
    planner, found, control = judged.planner, judged.values[name], judged.controls[name]
    direction, limit = limit_of(name, {IMAGINE: planner.precision})
    detail = "; ".join(part for part in (f"worst for {planner.graph}", found.detail) if part)
    return Gate(
        family,
        name,
        found.value,
        limit,
        direction,
        _within(name, planner.precision, found.value),
        control,
        not _within(name, planner.precision, control),
        detail,
    )


def _within(gate: str, precision: str, value: float) -> bool:
    direction, limit = limit_of(gate, {IMAGINE: precision})
    return value >= limit if direction == "min" else value <= limit


def _iterations(engine: Engine, truth: Truth) -> Values:
    """What single iterations answer at the beginning and in the middle of a search."""
    wide, narrow = (_answers(engine, truth, at) for at in (0, (truth.facts.iterations - 1) // 2))
    pairs = [*wide, *narrow]
    begin = [(found["mean_next"], state.mean.numpy()) for found, state in pairs]
    verdicts = [np.mean(a == b) for a, b in _verdicts(engine, truth)]
    return {
        "imagine_rank": _mean_rank(wide),
        "imagine_rank_narrow": _mean_rank(narrow),
        "imagine_elites": float(np.mean([_overlap(_ranked(f), s, truth) for f, s in pairs])),
        **({"imagine_feasible": float(np.mean(verdicts))} if verdicts else {}),
        "imagine_first_action": _apart(begin, truth),
    }


def _answers(engine: Engine, truth: Truth, at: int) -> list[Pair]:
    """Of each moment's plan, what comes out of one iteration."""
    return [(_run(engine, moment.inputs(at)), moment.states[at + 1]) for moment in truth.moments]


def _mean_rank(pairs: Sequence[Pair]) -> float:
    """Mean rank correlation; -1 where a cost is no number."""
    each = [(found["costs"], state.costs.numpy()) for found, state in pairs]
    return float(np.mean([spearman(a, b) if np.isfinite(a).all() else -1.0 for a, b in each]))


def _verdicts(engine: Engine, truth: Truth) -> list[tuple[Verdict, Verdict]]:
    """Of each moment, which candidates the graph allows and which the float model allows, `[N]`."""
    pairs = []
    for moment in truth.moments:
        if moment.torn is not None:
            found = _run(engine, {**moment.inputs(0), "hazard_limit": moment.torn.limit})
            pairs.append((found["violations"] <= 0.0, moment.torn.feasible))
    return pairs


def _ranked(found: Mapping[str, F32]) -> Rank:
    """Candidates of an iteration as planners rank them; without hazards all are feasible."""
    return ranked(found["costs"], found.get("violations", np.zeros_like(found["costs"])))


def _overlap(ranked: Rank, state: State, truth: Truth) -> float:
    wanted = _ranked({"costs": state.costs.numpy(), "violations": state.violations.numpy()})
    count = max(truth.facts.elites, min(_FEWEST_ELITES, len(wanted)))
    return len(set(ranked[:count].tolist()) & set(wanted[:count].tolist())) / count


def _apart(pairs: Sequence[tuple[F32, F32]], truth: Truth) -> float:
    """Mean over pairs of plans `[H, A]`: RMS difference of their first block, in action std."""
    off = [(a[0] - b[0]) / truth.model.action_std.numpy() for a, b in pairs]
    return _number(float(np.sqrt(np.square(off).mean(1)).mean()))


def _plans(engine: Engine, truth: Truth) -> tuple[float, float]:
    """Regret of whole plans, and how far from the float planner's they begin."""
    pairs, lost, gained = [], 0.0, 0.0
    for moment in truth.moments:
        actions, best = _plan(engine, moment), moment.states[-1]
        pairs.append((actions, best.actions.numpy()))
        lost += truth.cost_of(moment, actions) - float(best.cost)
        gained += moment.start_cost - float(best.cost)
    return _number(lost / max(gained, 1e-30)), _apart(pairs, truth)


def _plan(engine: Engine, moment: ReferencePlan) -> F32:
    """`[H, A]` after all iterations, one fed by the one before."""
    given = moment.inputs(0)
    for noise in moment.draws:
        found = _run(engine, {**given, "noise": noise.numpy()})
        given |= {into: found[name] for name, into in HANDED_ON.items() if name in found}
    return found["actions"]


def _controls(planner: PlannerUnderTest, backend: Backend) -> tuple[Values, str]:
    """What every gate says of something that is wrong on purpose, and which layer was."""
    ranks, layer = _seen_fault(planner, backend)
    truth = planner.truth
    with loaded(backend, _bytes(zero_input(planner.compiled, "z_goal"))) as engine:
        first_action = _iterations(engine, truth)["imagine_first_action"]
        regret, _ = _plans(engine, truth)
        verdicts = [_shuffled(a) == b for a, b in _verdicts(engine, truth)]
    states = [moment.states[1] for moment in truth.moments]
    elites = [_overlap(_ranked(_shuffled_costs(state)), state, truth) for state in states]
    return {
        **ranks,
        "imagine_elites": float(np.mean(elites)),
        **({"imagine_feasible": float(np.mean(verdicts))} if verdicts else {}),
        "imagine_first_action": first_action,
        "imagine_regret": regret,
    }, layer


def _shuffled_costs(state: State) -> dict[str, F32]:
    """What a state says of its candidates, each with what another one's is."""
    named = {"costs": state.costs, "violations": state.violations}
    return {name: _shuffled(values.numpy()) for name, values in named.items()}


def _shuffled(values: Any) -> Any:
    return np.roll(values, len(values) // 2)


def _seen_fault(planner: PlannerUnderTest, backend: Backend) -> tuple[Values, str]:
    """The mis-scaled layer nearest to the middle that both ranks see."""
    layers = quantizable(planner.exact)
    middle = len(layers) // 2
    # From the middle outwards, but not layer by layer: neighbours are copies of each other.
    order = sorted(
        range(0, len(layers), max(1, len(layers) // _TRIES)), key=lambda i: abs(i - middle)
    )
    ranks: Values = {}
    for index in order:
        with loaded(backend, _bytes(scale_half_layer(planner.compiled, layers[index]))) as engine:
            values = _iterations(engine, planner.truth)
        ranks = {name: values[name] for name in _RANKS}
        if not any(_within(name, planner.precision, ranks[name]) for name in _RANKS):
            break
    return ranks, layers[index]


def _run(engine: Engine, sample: Mapping[str, F32]) -> dict[str, F32]:
    for name, array in engine.inputs.items():
        array.write(np.ascontiguousarray(sample[name]))
    engine.run()
    return {name: array.read().copy() for name, array in engine.outputs.items()}


def _number(value: float) -> float:
    return value if np.isfinite(value) else _WORST


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(runnable(model).SerializeToString())
