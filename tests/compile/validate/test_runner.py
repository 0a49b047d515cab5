"""The runner of gates on measurements made up by hand."""

from __future__ import annotations

import math

import pytest

from jetsight.errors import GateError
from jetsight_compile.validate import gates, planner_gates
from jetsight_compile.validate.metrics import Measurement
from jetsight_compile.validate.runner import GateResult, with_fault_control, worst

RANKS = ("imagine_rank", "imagine_rank_narrow")  # fp16: at least 0.999 and 0.99
FP16 = {"encode": "fp16", "forecast": "fp16", "imagine": "fp16"}


def ranks(wide: float, narrow: float) -> dict[str, Measurement]:
    return {name: Measurement(value) for name, value in zip(RANKS, (wide, narrow), strict=True)}


def test_a_gate_records_value_limit_control_and_detail() -> None:
    values = {"rollout_drift": Measurement(2e-3, "at step 2"), "latent_cosine": Measurement(0.9999)}
    result = GateResult(FP16, values, {"rollout_drift": 0.5, "latent_cosine": 0.9999})
    drift, cosine = result.gates("cpu-fp16")
    assert (drift.family, drift.name, drift.detail) == ("cpu-fp16", "rollout_drift", "at step 2")
    assert (drift.value, drift.limit, drift.direction) == (2e-3, 1e-3, "max")
    assert (drift.passed, drift.control_value, drift.control_failed) == (False, 0.5, True)
    assert (cosine.passed, cosine.control_failed) == (True, False), "a control at the limit passes"
    assert not result.passed
    assert GateResult(FP16, {"latent_cosine": Measurement(0.9999)}, {}).passed


def test_a_value_without_a_control_is_no_gate() -> None:
    with pytest.raises(KeyError, match="latent_cosine"):
        GateResult(FP16, {"latent_cosine": Measurement(1.0)}, {}).gates("cpu-fp16")


def test_the_worst_is_the_least_or_the_largest_by_direction() -> None:
    first = {"latent_cosine": Measurement(0.9, "a"), "rollout_drift": Measurement(0.1, "a")}
    second = {"latent_cosine": Measurement(0.8, "b"), "rollout_drift": Measurement(0.2, "b")}
    for each in ([first, second], [second, first]):
        assert {name: found.detail for name, found in worst(each).items()} == dict.fromkeys(
            first, "b"
        )
    broken = {"latent_cosine": Measurement(math.nan, "n"), "rollout_drift": Measurement(0.0, "n")}
    for each in ([first, broken], [broken, first]):
        assert worst(each)["latent_cosine"].detail == "n", "a NaN never hides"
    only = {"inputs_matter": Measurement(1.0)}
    assert worst([first, only]) == first | only


def test_the_search_stops_at_the_first_layer_that_every_gate_sees() -> None:
    """One gate alone is not enough; without such a layer the control of the last one stands."""
    faulty = {"unseen": ranks(1.0, 1.0), "half": ranks(0.5, 1.0), "seen": ranks(0.9, 0.9)}
    tried: list[str] = []

    def measure(layer: str) -> dict[str, Measurement]:
        tried.append(layer)
        return {**faulty[layer], "imagine_regret": Measurement(0.0)}

    found = with_fault_control(ranks(1.0, 1.0), ["unseen", "half", "seen", "x"], measure, FP16)
    assert tried == ["unseen", "half", "seen"]
    assert found.controls == dict.fromkeys(RANKS, 0.9)
    assert [gate.control_failed for gate in found.gates("f")] == [True, True]
    assert {gate.detail for gate in found.gates("f")} == {"control mis-scales seen"}
    blind = with_fault_control(ranks(1.0, 1.0), ["unseen", "half"], measure, FP16)
    assert [gate.control_failed for gate in blind.gates("f")] == [True, False]
    assert {gate.detail for gate in blind.gates("f")} == {"control mis-scales half"}
    untried = with_fault_control(ranks(1.0, 1.0), [], measure, FP16)
    assert not any(gate.control_failed for gate in untried.gates("f"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("regret", "control"), [(0.9, 0.0), (0.9, 0.99), (0.0, 0.0)], ids=["both", "value", "control"]
)
def test_a_planner_that_fails_never_hides_behind_one_that_passes(
    order: tuple[int, int], regret: float, control: float
) -> None:
    """A value over its limit, a control that does not fail, or both: the family's gate shows it."""
    name = "imagine_regret"
    sound = GateResult(FP16, {name: Measurement(0.001)}, {name: 0.99})
    wrong = GateResult(FP16, {name: Measurement(regret)}, {name: control})
    results = [(sound, wrong)[index] for index in order]
    (gate,) = planner_gates.gates("cpu-fp16", results)
    assert not (gate.passed and gate.control_failed)
    with pytest.raises(GateError, match=name):
        gates.require([gate])
    gates.require(planner_gates.gates("cpu-fp16", [sound, sound]))
