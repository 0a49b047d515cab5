"""Gates of planners: what passes, what each control does, and agreement with a session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from helpers.compile.planner_world import imagining_model
from helpers.compile.probes import windows_of
from onnx import numpy_helper

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.openvino import OpenVinoBackend
from jetsight.bundle.parity import rank_agreement
from jetsight.errors import GateError
from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.settings import PlannerSettings, parse, specs
from jetsight_compile.quantize import schemes
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.limits import IMAGINE_LIMITS
from jetsight_compile.validate.metrics import Measurement
from jetsight_compile.validate.negative_controls import scale_half_layer, zero_input
from jetsight_compile.validate.planner_gates import PlannerUnderTest
from jetsight_compile.validate.planner_reference import reference, truth_of
from jetsight_compile.validate.runner import GateResult

RANKS = {"imagine_rank", "imagine_rank_narrow"}


class Lab:
    """One planner with heads, its float truth, and its graphs; each made once."""

    def __init__(self) -> None:
        self.model, settings = (
            imagining_model(horizon=2),
            PlannerSettings(iterations=3, std_scale=0.6),
        )
        (self.spec,) = specs([parse("icem:40x2")], self.model, settings)
        self.truth = truth_of(self.model, self.spec, windows_of(12), most=3)
        self.exact = PlannerExporter(self.model, Style(20)).export(self.spec)
        samples = imagine_samples(windows_of(24), self.spec, self.model)
        self.int8 = schemes.cpu_rows(self.exact, samples)

    def planner(self, compiled: onnx.ModelProto, precision: str = "fp32") -> PlannerUnderTest:
        return PlannerUnderTest(self.spec.graph, precision, compiled, self.exact, self.truth)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def judged(lab) -> GateResult:
    backends = [OnnxRuntimeBackend(), OpenVinoBackend()]
    return planner_gates.judge(lab.planner(lab.exact), backends)


def failing(judged: GateResult) -> set[str]:
    return {each.name for each in planner_gates.gates("cpu-fp32", [judged]) if not each.passed}


def test_the_exported_planner_passes_and_every_control_fails(judged) -> None:
    gates = planner_gates.gates("cpu-fp32", [judged])
    assert judged.passed
    gate.require(gates)
    assert [each.name for each in gates] == list(IMAGINE_LIMITS)
    assert all(each.passed and each.control_failed for each in gates)
    assert all("worst for imagine_icem_40x2" in each.detail for each in gates)
    assert "control mis-scales step" in gates[0].detail
    assert "first actions differ by" in gates[-1].detail


def test_int8_is_close_but_measurably_not_the_same(lab, judged) -> None:
    found = planner_gates.judge(lab.planner(lab.int8.model, "int8"), [OnnxRuntimeBackend()]).values
    for name, (direction, _) in IMAGINE_LIMITS.items():
        off = found[name].value - judged.values[name].value
        assert off <= 0.0 if direction == "min" else off >= -0.05, name
    assert 0.9 < found["imagine_rank"].value < 1.0
    assert found["imagine_first_action"].value > 100 * judged.values["imagine_first_action"].value


@pytest.mark.parametrize(
    ("what", "fails"),
    [
        ("mis-scaled", {*RANKS, "imagine_first_action"}),
        ("history zeroed", {*IMAGINE_LIMITS} - {"imagine_regret"}),
        ("no number", {*IMAGINE_LIMITS}),
    ],
)
def test_a_wrong_planner_fails(lab, what: str, fails: set[str]) -> None:
    layers = [name for name in quantizable(lab.exact) if "value_out" in name]
    wrong = {
        "mis-scaled": scale_half_layer(lab.exact, layers[0]),
        "history zeroed": zero_input(lab.exact, "z_hist"),
        "no number": broken(lab.exact, layers[0]),
    }
    found = planner_gates.judge(lab.planner(wrong[what]), [OnnxRuntimeBackend()])
    assert failing(found) >= fails
    with pytest.raises(GateError, match="no bundle was written: cpu-fp32 imagine_") as caught:
        gate.require(planner_gates.gates("cpu-fp32", [found]))
    assert "next: report it" in str(caught.value)


def test_a_hazard_head_that_is_wrong_is_seen_by_its_gate_alone(lab) -> None:
    """Costs do not change, so no gate of the ranks sees it."""
    compiled = scale_half_layer(lab.exact, "judge/score.hazard.mlp.2/MatMul")
    found = planner_gates.judge(lab.planner(compiled), [OnnxRuntimeBackend()])
    assert "imagine_feasible" in failing(found)
    assert not failing(found) & RANKS


def test_a_model_without_hazards_has_no_gate_for_them() -> None:
    model, settings = imagining_model(heads=False, horizon=2), PlannerSettings(iterations=2)
    (spec,) = specs([parse("cem:16x2")], model, settings)
    truth = truth_of(model, spec, windows_of(6), most=1)
    exact = PlannerExporter(model, Style(20)).export(spec)
    planner = PlannerUnderTest(spec.graph, "fp32", exact, exact, truth)
    found = planner_gates.judge(planner, [OnnxRuntimeBackend()])
    names = [each.name for each in planner_gates.gates("cpu-fp32", [found])]
    assert names == [name for name in IMAGINE_LIMITS if name != "imagine_feasible"]


def broken(graph: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    (node,) = (node for node in copy.graph.node if node.name == layer)
    for tensor in copy.graph.initializer:
        if tensor.name == node.input[1]:
            nan = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(nan, tensor.name))
    return copy


def test_a_family_is_as_good_as_its_worst_planner(judged) -> None:
    worse = {
        name: Measurement(
            found.value + (-0.5 if IMAGINE_LIMITS[name][0] == "min" else 1),
            found.detail.replace("imagine_icem_40x2", "imagine_other"),
        )
        for name, found in judged.values.items()
    }
    other = replace(judged, values=worse)
    for order in ([judged, other], [other, judged]):
        gates = planner_gates.gates("cpu-fp32", order)
        assert all("worst for imagine_other" in each.detail for each in gates)
        assert not any(each.passed for each in gates)
    assert planner_gates.gates("cpu-fp32", []) == []


def test_a_moment_is_what_a_session_would_plan(lab) -> None:
    """The same start and the same draws as the runtime's planner has for its first plan."""
    case, spec = lab.truth.cases[0], lab.spec
    state = case.states[0]
    assert torch.equal(state.mean[0, :2], case.problem.a_last)
    assert torch.equal(state.mean[1, 2:], case.problem.a_last)
    torch.testing.assert_close(state.std[0, :2], torch.tensor([0.6 * 1.7, 0.6 * 1.4]))
    kept = state.mean + state.std * case.draws[0][-spec.kept :]
    torch.testing.assert_close(state.kept, kept)
    assert not case.draws[0][0].any(), "the mean itself is a candidate"
    assert all(not torch.equal(a, b) for a, b in zip(case.draws[1:], case.draws, strict=False))
    costs = [float(each.cost) for each in case.states[1:]]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < case.start_cost
    assert lab.truth.cost_of(case, case.states[-1].actions.numpy()) == pytest.approx(costs[-1])
    assert lab.truth.cost_of(case, np.full((2, 4), np.nan, np.float32)) == float("inf")


def test_the_golden_iteration_proves_a_planner_without_torch(lab) -> None:
    golden = reference(lab.truth)
    backend, graph = OnnxRuntimeBackend(), lab.spec.graph
    engine = backend.load(lab.exact.SerializeToString())
    assert rank_agreement(engine, golden, graph) == pytest.approx(1.0)
    no_goal = backend.load(zero_input(lab.exact, "z_goal").SerializeToString())
    agreement = rank_agreement(no_goal, golden, graph)
    assert agreement is not None
    assert agreement < 0.9, "the control: a planner whose goal is zeroed"
