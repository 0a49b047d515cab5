from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx
import pytest
from helpers.compile.tiny_model import square_episode, write_dataset

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.registry import available
from jetsight.bundle.manifest import GRAPHS, Gate
from jetsight.engine import Backend
from jetsight.errors import DataError, EngineError, GateError
from jetsight_compile.calibration.data import Side, load_episodes
from jetsight_compile.calibration.run import run_all
from jetsight_compile.quantize.schemes import cpu_int8
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import metrics
from jetsight_compile.validate.negative_controls import scale_half_layer, zero_input


@pytest.fixture(scope="module")
def held_out(exports, tmp_path_factory) -> Side:
    path = tmp_path_factory.mktemp("data") / "calib"
    episodes = [square_episode(seed) for seed in range(4)]
    return load_episodes(write_dataset(path, episodes), exports.model("conv")).held_out


@pytest.fixture(scope="module")
def truth(exports, held_out) -> metrics.FloatReference:
    return metrics.reference(exports.model("conv"), held_out)


@pytest.fixture(scope="module")
def family(exports) -> gate.FamilyUnderTest:
    graphs = exact_of(exports)
    return gate.FamilyUnderTest("cpu-fp32", dict.fromkeys(GRAPHS, "fp32"), **graphs, exact=graphs)


@pytest.fixture(scope="module")
def int8(exports, truth) -> gate.FamilyUnderTest:
    frames = truth.encode[::4]
    windows = [truth.windows.inputs(i) for i in range(0, len(truth.windows), 4)]
    exact = exact_of(exports)
    made = {
        name: cpu_int8(exact[name], samples, methods=["max"]).model
        for name, samples in (("encode", frames), ("forecast", windows))
    }
    return gate.FamilyUnderTest("cpu-int8", dict.fromkeys(GRAPHS, "int8"), **made, exact=exact)


def exact_of(exports, kind: str = "conv") -> dict[str, onnx.ModelProto]:
    return {name: exports.graph(kind, name) for name in ("encode", "forecast")}


def openvino() -> Backend:
    if not any(info.name == "openvino" and info.reason is None for info in available()):
        pytest.skip("openvino is not installed")
    from jetsight.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


def broken(family: gate.FamilyUnderTest, name: str, graph: onnx.ModelProto) -> gate.FamilyUnderTest:
    return dataclasses.replace(family, **{name: graph})


def by_name(gates: list[Gate]) -> dict[str, Gate]:
    return {each.name: each for each in gates}


def test_the_exported_family_passes_and_every_control_fails(family, truth) -> None:
    gates = gate.judge(family, truth, [OnnxRuntimeBackend(), openvino()])
    gate.require(gates)
    assert [each.name for each in gates] == list(gate.LIMITS)
    assert all(each.passed and each.control_failed for each in gates)


def test_the_quantized_family_passes_with_its_own_limits(int8, truth) -> None:
    gates = by_name(gate.judge(int8, truth, [OnnxRuntimeBackend(), openvino()]))
    gate.require(list(gates.values()))
    assert gates["latent_sqnr_db"].value < gate.LIMITS["latent_sqnr_db"][1]["fp32"]


INSIDE = ("inside_cosine", "inside_cosine_worst", "inside_sqnr_db")
ENCODE = {"latent_cosine", "latent_cosine_worst", "latent_sqnr_db", "rollout_drift"}


@pytest.mark.parametrize(
    ("graph", "ends"), [("encode", ENCODE), ("forecast", {"rollout_drift", "history_age_steps"})]
)
def test_a_mis_scaled_layer_fails(int8, truth, graph, ends) -> None:
    """In a quantized graph: the scales of half the channels are wrong."""
    fails = ends | {f"{graph}_{name}" for name in INSIDE}
    wrong = broken(int8, graph, scale_half_layer(getattr(int8, graph)))
    gates = by_name(gate.judge(wrong, truth, [OnnxRuntimeBackend()]))
    assert {name for name, each in gates.items() if not each.passed} == fails
    with pytest.raises(GateError) as caught:
        gate.require(list(gates.values()))
    text = str(caught.value)
    assert text.startswith("no bundle was written: cpu-int8 ")
    shown = [name for name in gates if name in fails][:4]
    assert all(f"{name} is" in text for name in shown)
    assert "limit at " in text
    assert f"; and {len(fails) - 4} more; next: " in text
    assert "\n" not in text
    layer = {"encode": "trunk.out", "forecast": "project"}[graph]
    assert f"the worst tap is after {layer}: keep it in float with --keep-float" in text


def test_a_fault_that_the_ends_do_not_show_fails_inside(int8, truth) -> None:
    """Half of a layer twice too large: the rollout hardly moves, and a tap loses its direction."""
    wrong = broken(int8, "forecast", scale_half_layer(int8.forecast, "action_embedding.down/Gemm"))
    gates = by_name(gate.judge(wrong, truth, [OnnxRuntimeBackend()]))
    assert gates["rollout_drift"].passed
    assert gates["rollout_drift"].value < 0.3 * gates["rollout_drift"].limit
    failed = {name for name, each in gates.items() if not each.passed}
    assert failed == {f"forecast_{name}" for name in INSIDE}
    assert gates["forecast_inside_cosine"].value < 0.95
    detail = gates["forecast_inside_cosine"].detail
    assert re.fullmatch(r"worst at action_embedding.down; control mis-scales \S+/Gemm", detail)
    # The same cosine at the end of the pipe, where others look.
    inputs = [truth.windows.inputs(i) for i in range(len(truth.windows))]
    future = run_all(OnnxRuntimeBackend(), wrong.forecast.SerializeToString(), inputs)
    assert metrics.standard_cosine(future[:, -1], ends_of(truth)).mean() > 0.995


def ends_of(truth: metrics.FloatReference) -> metrics.FloatReference:
    return dataclasses.replace(truth, z=truth.z_future[:, -1])


def test_a_forecast_that_ignores_an_input_fails(family, truth) -> None:
    for name in ("z_hist", "a_hist"):  # the gate's own control zeroes the actions
        wrong = broken(family, "forecast", zero_input(family.forecast, name))
        gates = by_name(gate.judge(wrong, truth, [OnnxRuntimeBackend()]))
        assert gates["inputs_matter"].value == 0.0
        assert gates["inputs_matter"].detail == f"least by {name}"
        assert not gates["inputs_matter"].passed


def test_a_stale_history_fails_by_its_age(int8, truth) -> None:
    """The newest latent never arrives; end-of-pipe cosines have been seen to miss this."""
    fresh = by_name(gate.judge(int8, truth, [OnnxRuntimeBackend()]))["history_age_steps"]
    old = broken(int8, "forecast", with_stale_history(int8.forecast))
    aged = by_name(gate.judge(old, truth, [OnnxRuntimeBackend()]))["history_age_steps"]
    assert fresh.passed
    assert fresh.value < 0.05
    assert not aged.passed
    assert aged.value == pytest.approx(1.0, abs=0.1)
    assert aged.value == pytest.approx(fresh.control_value, abs=1e-4)


def with_stale_history(forecast: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a window one step behind, as an exporter's wrong slice makes it."""
    model = onnx.ModelProto()
    model.CopyFrom(forecast)
    for node in model.graph.node:
        node.input[:] = ["stale" if value == "z_hist" else value for value in node.input]
    rows = onnx.numpy_helper.from_array(np.array([0, 0, 1]), "rows")
    model.graph.initializer.append(rows)
    gather = onnx.helper.make_node("Gather", ["z_hist", "rows"], ["stale"], name="stale", axis=0)
    model.graph.node.insert(0, gather)
    return model


def test_a_graph_that_overflows_fails_with_numbers(family, truth) -> None:
    """What float16 does to large values: they become infinite, then no number."""
    wrong = with_infinite(family.encode, "trunk.hidden/Gemm")
    gates = by_name(gate.judge(broken(family, "encode", wrong), truth, [OnnxRuntimeBackend()]))
    failed = {name for name, each in gates.items() if not each.passed}
    ends = {*ENCODE, "inputs_matter"}
    assert failed == ends | {f"encode_{name}" for name in INSIDE}
    assert gates["encode_inside_sqnr_db"].detail.startswith("worst at trunk.hidden;")
    assert gates["latent_sqnr_db"].value == -200.0


def with_infinite(graph: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    (node,) = (node for node in model.graph.node if node.name == layer)
    (bias,) = (t for t in model.graph.initializer if t.name == node.input[2])
    values = np.full(tuple(bias.dims), np.inf, np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return model


def test_the_insides_need_the_float_graphs_of_this_model(family, truth, exports) -> None:
    with pytest.raises(EngineError, match="came without its float32 graph 'encode'"):
        gate.judge(dataclasses.replace(family, exact={}), truth, [OnnxRuntimeBackend()])
    for name in ("encode", "forecast"):
        other = {**family.exact, name: scale_half_layer(family.exact[name])}
        with pytest.raises(EngineError, match=f"the float32 graph '{name}' is .* dB from"):
            gate.judge(dataclasses.replace(family, exact=other), truth, [OnnxRuntimeBackend()])


def test_the_worst_backend_decides(family, truth) -> None:
    class Wrong:
        name = "wrong"

        def load(self, graph: bytes):
            model = onnx.ModelProto.FromString(graph)
            return OnnxRuntimeBackend().load(scale_half_layer(model).SerializeToString())

    good, bad = OnnxRuntimeBackend(), Wrong()
    alone = by_name(gate.judge(family, truth, [good]))
    both = by_name(gate.judge(family, truth, [good, bad]))
    assert alone["latent_sqnr_db"].passed
    assert not both["latent_sqnr_db"].passed


def test_a_control_that_does_not_fail_stops_too() -> None:
    blind = Gate(
        family="cpu-int8",
        name="latent_cosine",
        value=1.0,
        limit=0.995,
        direction="min",
        passed=True,
        control_value=0.999,
        control_failed=False,
    )
    with pytest.raises(GateError, match=r"negative control reached 0\.999 and should have failed"):
        gate.require([blind])


def test_sqnr_of_a_known_error() -> None:
    signal = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    noise = 0.1 * np.random.default_rng(1).standard_normal((500, 4)).astype(np.float32)
    assert metrics.sqnr_db(signal + noise, signal) == pytest.approx(20.0, abs=0.5)
    assert metrics.sqnr_db(signal, signal) == 200.0
    assert metrics.sqnr_db(signal * np.inf, signal) == -200.0


def test_cosine_ignores_what_all_latents_share(truth) -> None:
    """With the raw cosine, two different frames of a latent space with a mean look alike."""
    far = dataclasses.replace(truth, z=truth.z + 100.0, mean=truth.mean + 100.0)
    shuffled = np.roll(far.z, 7, axis=0)
    norms = np.linalg.norm(far.z, axis=1) * np.linalg.norm(shuffled, axis=1)
    raw = ((far.z * shuffled).sum(1) / norms).mean()
    assert raw > 0.999
    assert metrics.standard_cosine(shuffled, far).mean() < 0.9
    np.testing.assert_allclose(metrics.standard_cosine(far.z, far), 1.0, atol=1e-6)


def test_drift_is_in_units_of_persistence(truth) -> None:
    assert not metrics.drift(truth.z_future, truth).any()
    per_step = np.sqrt(metrics.persistence(truth.windows) / truth.z.shape[1])
    off = (truth.z_future + per_step[None, :, None]).astype(np.float32)
    np.testing.assert_allclose(metrics.drift(off, truth), 1.0, rtol=1e-4)
    off[0, 1, 0] = np.nan
    assert metrics.drift(off, truth).min() > 1e5


def test_surprise_is_small_when_the_forecast_is_right(exports, held_out) -> None:
    model, windows = exports.model("conv"), held_out.windows
    std = held_out.z.std(0)
    honest = metrics.surprise(model, windows, std)
    right = windows.z.copy()
    right[:, windows.history] = metrics.rollout(model, windows)[:, 0]
    met = metrics.surprise(model, dataclasses.replace(windows, z=right), std)
    assert met.max() < 1e-5
    assert np.median(honest) > 0.1


def test_a_model_that_sees_nothing_is_refused(exports, held_out) -> None:
    dead = np.ones_like(held_out.z)
    windows = dataclasses.replace(held_out.windows, z=np.ones_like(held_out.windows.z))
    with pytest.raises(DataError, match="latents do not change"):
        metrics.reference(
            exports.model("conv"), dataclasses.replace(held_out, z=dead, windows=windows)
        )


def test_a_control_needs_a_last_layer(exports) -> None:
    model = onnx.ModelProto.FromString(exports.graph("conv", "encode").SerializeToString())
    last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    last.op_type = "Sigmoid"
    del last.input[1:]
    with pytest.raises(EngineError, match="ends in a Sigmoid without a constant weight"):
        scale_half_layer(model)
