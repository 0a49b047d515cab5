"""Every planner's graph against its PyTorch reference, with the same draws."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from helpers.compile.planner_world import (
    GOAL_ALONE,
    PLANNERS,
    draws,
    imagining_model,
    largest_difference,
    problem_of,
    run_graph,
    start,
)

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.openvino import OpenVinoBackend
from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight.engine import Engine
from jetsight.errors import UsageError
from jetsight.testing import tiny_planner
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import check_graph, operator_counts
from jetsight_compile.export.onnx_graph import block_of, quantizable
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.planning.problem import Problem, State

BACKENDS = {"onnxruntime": OnnxRuntimeBackend, "openvino": OpenVinoBackend}
SPECS = {
    "cem": tiny_planner(samples=32, horizon=4, elites=16, context=1),
    "icem": tiny_planner(
        kind="icem", samples=24, horizon=3, elites=12, kept=2, momentum=0.2, rate_limited=True
    ),
    "mppi": tiny_planner(kind="mppi", samples=24, elites=0, context=2),
}


class Lab:
    """Graphs of one model, each exported once, and what they and their references answer."""

    def __init__(self) -> None:
        self.model = imagining_model()
        imagination = PlannerExporter(self.model, Style(20))
        self.graphs = {name: imagination.export(spec) for name, spec in SPECS.items()}
        self._engines: dict[tuple[str, str], Engine] = {}

    def engine(self, name: str, backend: str) -> Engine:
        """The graph of a planner on a backend, loaded once."""
        if (name, backend) not in self._engines:
            data = self.graphs[name].SerializeToString()
            self._engines[name, backend] = BACKENDS[backend]().load(data)
        return self._engines[name, backend]

    def both(
        self,
        name: str,
        backend: str,
        count: int = 1,
        state: State | None = None,
        noises: list[torch.Tensor] | None = None,
        **changes: torch.Tensor,
    ) -> tuple[State, State]:
        """What graph and reference answer."""
        spec = SPECS[name]
        problem = problem_of(self.model, spec, **changes)
        state = state or start(self.model, problem)
        noises = noises or draws(self.model, spec, count)
        found = run_graph(self.engine(name, backend), problem, state, noises)
        return found, self.reference(problem, state, noises)

    @torch.inference_mode()
    def reference(self, problem: Problem, state: State, noises: list[torch.Tensor]) -> State:
        planner = PLANNERS[problem.spec.kind]
        for noise in noises:
            state = planner.step(self.model, problem, state, noise)
        return state


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_planner = pytest.mark.parametrize("name", SPECS)


@every_backend
@every_planner
def test_a_graph_equals_its_reference(lab, name, backend) -> None:
    for count, changes in ((1, {}), (1, GOAL_ALONE), (30, GOAL_ALONE)):
        found, expected = lab.both(name, backend, count, **changes)
        assert largest_difference(found, expected) < 1e-4
    other, _ = lab.both(name, backend, noises=draws(lab.model, SPECS[name], 2)[1:])
    assert largest_difference(other, lab.both(name, backend)[1]) > 1e-2  # the control: other draws


@every_backend
@every_planner
def test_a_candidate_that_is_no_number_is_left_out(lab, name, backend) -> None:
    (noise,) = draws(lab.model, SPECS[name], 1)
    broken = noise.clone()
    broken[3, 1, 0], broken[5, 0, 2] = torch.nan, torch.inf
    found, expected = lab.both(name, backend, noises=[broken])
    assert largest_difference(found, expected) < 1e-4
    assert found.invalid == 2
    assert [i for i, cost in enumerate(found.costs) if cost == INVALID_COST] == [3, 5]
    whole, _ = lab.both(name, backend, noises=[noise])
    assert whole.invalid == 0  # the control
    assert (whole.costs < INVALID_COST).all()


@every_backend
@every_planner
@pytest.mark.parametrize("what", ["z_hist", "a_last", "z_goal", "std"])
def test_when_nothing_is_a_number_the_plan_stays(lab, name, backend, what) -> None:
    problem = problem_of(lab.model, SPECS[name])
    first = start(lab.model, problem)
    if what == "std":
        gone = {n: getattr(first, n) * torch.nan for n in ("std", "actions", "kept")}
        first = first.following(**gone)
        found, _ = lab.both(name, backend, state=first)
    else:
        value = getattr(problem, what) * torch.nan
        found, expected = lab.both(name, backend, state=first, **{what: value})
        assert (expected.cost == INVALID_COST).all()
        if what != "a_last":  # with it the incumbent itself cannot be limited
            assert (found.actions == expected.actions).all()
    assert found.cost == found.violation == INVALID_COST
    assert (found.costs == INVALID_COST).all()
    assert found.invalid == SPECS[name].samples
    torch.testing.assert_close(found.mean, first.mean)
    torch.testing.assert_close(found.std, first.std, equal_nan=True)


@torch.inference_mode()
def just_too_strict(lab: Lab, name: str) -> torch.Tensor:
    """Limits of the hazards, one of which the cheapest plan breaks by a little."""
    problem = problem_of(lab.model, SPECS[name])
    plan = lab.reference(problem, start(lab.model, problem), draws(lab.model, SPECS[name], 1))
    before = torch.cat([problem.z_hist[-1:], plan.z_future[:-1]])
    worst = lab.model.heads.hazard(before, plan.actions, plan.z_future).amax(0)
    strict = [1e-2, -1e9] if name != "icem" else [-1e9, 1e-2]
    return worst - torch.tensor(strict)


@every_backend
@every_planner
def test_feasible_plans_come_before_cheaper_ones(lab, name, backend) -> None:
    found, expected = lab.both(name, backend, hazard_limit=just_too_strict(lab, name))
    assert largest_difference(found, expected) < 1e-4
    assert found.violation == 0
    free, _ = lab.both(name, backend)
    assert (free.actions - found.actions).abs().max() > 1e-2  # the control: it costs something
    assert free.cost < found.cost
    none, expected = lab.both(name, backend, hazard_limit=torch.tensor([-1e3, 1e9]))
    assert largest_difference(none, expected) < 1e-4  # nothing is feasible: by violation
    assert none.violation > 0


@every_backend
@every_planner
def test_the_best_never_gets_worse(lab, name, backend) -> None:
    state = lab.both(name, backend, 4)[0]
    far = replace(state, mean=state.mean * 0 + 3.0, std=state.std * 0, kept=state.kept * 0 + 3.0)
    after, _ = lab.both(name, backend, state=far)
    torch.testing.assert_close(after.actions, state.actions)
    torch.testing.assert_close(after.cost, state.cost)
    lost = replace(far, actions=far.mean)
    assert lab.both(name, backend, state=lost)[0].cost > 1.01 * state.cost  # the control


@every_backend
@every_planner
def test_limits_hold(lab, name, backend) -> None:
    low, high = torch.tensor([-0.4, -1.0]), torch.tensor([0.5, 0.2])
    rate = {"rate": torch.tensor([0.3, 0.1])} if SPECS[name].rate_limited else {}
    found, expected = lab.both(name, backend, 3, low=low, high=high, **rate)
    assert largest_difference(found, expected) < 1e-4
    ticks = found.actions.view(-1, 2)
    assert (ticks >= low).all()
    assert (ticks <= high).all()
    free = lab.both(name, backend, 3)[0].actions.view(-1, 2)
    assert (free < low).any() or (free > high).any()  # the control
    if rate:
        assert (ticks.diff(dim=0).abs() <= rate["rate"] + 1e-6).all()
        assert (free.diff(dim=0).abs() > rate["rate"]).any()


def test_no_more_products_than_there_must_be(lab) -> None:
    """Of all but a window's last token the last block computes keys and values alone."""
    names = [n.name.split("/", 1)[1] for n in lab.graphs["cem"].graph.node if "step" in n.name]
    # Windows of K=3 from C=1 over H=4: 3 tokens while it fills, then 3; the last of each is read.
    assert names.count("blocks.0.mlp.down/Gemm") == 6
    assert names.count("blocks.1.mlp.down/Gemm") == 4
    assert names.count("blocks.1.k/MatMul") == names.count("blocks.0.k/MatMul") == 4
    assert names.count("blocks.0.q/Gemm") == 4
    assert names.count("blocks.1.q/Gemm") == 3
    assert names.count("project/Gemm") == 4
    assert names.count("blocks.1.gate_m/Gemm") == 4  # once per action block
    assert "Transpose" not in {n.op_type for n in lab.graphs["cem"].graph.node if "step" in n.name}


def test_layers_are_named_for_the_quantizers(lab) -> None:
    layers = quantizable(lab.graphs["cem"])
    assert {block_of(layer) for layer in layers} == {"blocks.0", "blocks.1"}, "project is float"
    assert not any("judge" in layer or "action_embedding" in layer for layer in layers)
    weights = {t.name for t in lab.graphs["cem"].graph.initializer}
    nodes = {n.name: n for n in lab.graphs["cem"].graph.node}
    assert all(nodes[layer].input[1] in weights for layer in layers)


def test_a_graph_keeps_its_promises(lab) -> None:
    graph, ports = lab.graphs["cem"], ImaginePorts.of(lab.model, SPECS["cem"])
    assert operator_counts(graph)["Where"] > 0
    check_graph(graph, "imagine_cem_32x4", ports)
    renamed = onnx.ModelProto.FromString(graph.SerializeToString())
    with pytest.raises(ValueError, match="not of 'imagine_cem_8x4'"):  # the control
        check_graph(renamed, "imagine_cem_8x4", ports)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"context": 4}, "context of planner imagine_cem_32x4 is 4, expected 1 to 3"),
        ({"std_start": (1.0,)}, "std_start of planner imagine_cem_32x4 has 1 values, expected 2"),
        ({"probe_weight": {"z": 1.0}}, "weighs 'z', .* no quantity of the probe; it reads x, y"),
        ({"horizon": 5}, "5 blocks ahead, but the model was trained for 4; expected 1 to 4"),
    ],
)
def test_a_planner_that_does_not_fit_the_model_is_refused(lab, change, says) -> None:
    with pytest.raises(UsageError, match=says):
        ImaginePorts.of(lab.model, replace(SPECS["cem"], **change))
