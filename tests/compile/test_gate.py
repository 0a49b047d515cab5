from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from tiny import square_episode, write_dataset

from jetsight.backends import available
from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.engine import Backend
from jetsight.errors import DataError, EngineError, GateError
from jetsight.manifest import Gate
from jetsight_compile import gate, measure
from jetsight_compile.calibration import Side, load_episodes
from jetsight_compile.controls import deaf, mis_scaled
from jetsight_compile.engines import run_all
from jetsight_compile.quantize import cpu_int8


@pytest.fixture(scope="module")
def held_out(shop, tmp_path_factory) -> Side:
    path = tmp_path_factory.mktemp("data") / "calib"
    episodes = [square_episode(seed) for seed in range(4)]
    return load_episodes(write_dataset(path, episodes), shop.model("conv")).held_out


@pytest.fixture(scope="module")
def truth(shop, held_out) -> measure.Reference:
    return measure.reference(shop.model("conv"), held_out)


@pytest.fixture(scope="module")
def family(shop) -> gate.Family:
    graphs = (shop.graph("conv", name) for name in ("encode", "forecast"))
    return gate.Family("cpu-fp32", "fp32", *graphs)


@pytest.fixture(scope="module")
def int8(shop, truth) -> gate.Family:
    frames = [{"frame_hwc_u8": frame} for frame in truth.frames_u8[::4]]
    windows = [truth.windows.inputs(i) for i in range(0, len(truth.windows), 4)]
    made = (
        cpu_int8(shop.graph("conv", name), samples, methods=["max"]).model
        for name, samples in (("encode", frames), ("forecast", windows))
    )
    return gate.Family("cpu-int8", "int8", *made)


def openvino() -> Backend:
    if not any(info.name == "openvino" and info.reason is None for info in available()):
        pytest.skip("openvino is not installed")
    from jetsight.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


def broken(family: gate.Family, name: str, graph: bytes) -> gate.Family:
    return dataclasses.replace(family, **{name: onnx.ModelProto.FromString(graph)})


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


@pytest.mark.parametrize(
    ("graph", "fails"),
    [
        ("encode", {"latent_cosine", "latent_cosine_worst", "latent_sqnr_db", "rollout_drift"}),
        ("forecast", {"rollout_drift"}),
    ],
)
def test_a_mis_scaled_layer_fails(int8, truth, graph, fails) -> None:
    """In a quantized graph: the scales of half the channels are wrong."""
    wrong = broken(int8, graph, mis_scaled(getattr(int8, graph)))
    gates = by_name(gate.judge(wrong, truth, [OnnxRuntimeBackend()]))
    assert {name for name, each in gates.items() if not each.passed} == fails
    with pytest.raises(GateError) as caught:
        gate.require(list(gates.values()))
    text = str(caught.value)
    assert text.startswith("no bundle was written: cpu-int8 ")
    assert all(f"{name} is" in text for name in fails)
    assert "limit at " in text
    assert "--keep-float" in text
    assert "\n" not in text


def test_a_forecast_that_cannot_hear_an_input_fails(family, truth) -> None:
    for name in ("z_hist", "a_hist"):  # actions are what the gate's own control is deaf to
        wrong = broken(family, "forecast", deaf(family.forecast, name))
        gates = by_name(gate.judge(wrong, truth, [OnnxRuntimeBackend()]))
        assert gates["inputs_matter"].value == 0.0
        assert not gates["inputs_matter"].passed


def test_a_stale_history_is_seen_as_drift(family, truth) -> None:
    """The newest latent never arrived; end-of-pipe cosines have been seen to miss this."""
    fresh = [truth.windows.inputs(i) for i in range(len(truth.windows))]
    stale = [{**s, "z_hist": np.roll(s["z_hist"], 1, axis=0)} for s in fresh]
    graph, runtime = family.forecast.SerializeToString(), OnnxRuntimeBackend()
    limit = gate.LIMITS["rollout_drift"][1]["int8"]
    assert measure.drift(run_all(runtime, graph, fresh), truth) < limit
    assert measure.drift(run_all(runtime, graph, stale), truth) > limit


def test_the_worst_backend_decides(family, truth) -> None:
    class Wrong:
        name = "wrong"

        def load(self, graph: bytes):
            model = onnx.ModelProto.FromString(graph)
            return OnnxRuntimeBackend().load(mis_scaled(model))

    good, bad = OnnxRuntimeBackend(), Wrong()
    alone = by_name(gate.judge(family, truth, [good]))
    both = by_name(gate.judge(family, truth, [good, bad]))
    assert alone["latent_sqnr_db"].passed
    assert not both["latent_sqnr_db"].passed


def test_a_control_that_does_not_fail_stops_too() -> None:
    blind = Gate("cpu-int8", "latent_cosine", 1.0, 0.995, "min", True, 0.999, False)
    with pytest.raises(GateError, match=r"negative control reached 0\.999 and should have failed"):
        gate.require([blind])


def test_limits_tighten_with_precision() -> None:
    for name, (direction, limits) in gate.LIMITS.items():
        ordered = [limits[p] for p in ("int8", "fp16", "fp32")]
        assert ordered == sorted(ordered, reverse=direction == "max"), name
    assert set(gate.KNOBS) == {"fp32", "fp16", "int8"}


def test_sqnr_of_a_known_error() -> None:
    signal = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    noise = 0.1 * np.random.default_rng(1).standard_normal((500, 4)).astype(np.float32)
    assert measure.sqnr_db(signal + noise, signal) == pytest.approx(20.0, abs=0.5)
    assert measure.sqnr_db(signal, signal) == 200.0


def test_cosine_ignores_what_all_latents_share(truth) -> None:
    """With the raw cosine, two different frames of a latent space with a mean look alike."""
    far = dataclasses.replace(truth, z=truth.z + 100.0, mean=truth.mean + 100.0)
    shuffled = np.roll(far.z, 7, axis=0)
    norms = np.linalg.norm(far.z, axis=1) * np.linalg.norm(shuffled, axis=1)
    raw = ((far.z * shuffled).sum(1) / norms).mean()
    assert raw > 0.999
    assert measure.standard_cosine(shuffled, far).mean() < 0.9
    np.testing.assert_allclose(measure.standard_cosine(far.z, far), 1.0, atol=1e-6)


def test_drift_is_in_units_of_persistence(truth) -> None:
    assert measure.drift(truth.z_future, truth) == 0.0
    per_step = np.sqrt(measure.persistence(truth.windows) / truth.z.shape[1])
    off = (truth.z_future + per_step[None, :, None]).astype(np.float32)
    assert measure.drift(off, truth) == pytest.approx(1.0, rel=1e-4)


def test_surprise_is_small_when_the_forecast_is_right(shop, held_out) -> None:
    model, windows = shop.model("conv"), held_out.windows
    std = held_out.z.std(0)
    honest = measure.surprise(model, windows, std)
    right = windows.z.copy()
    right[:, windows.history] = measure.rollout(model, windows)[:, 0]
    met = measure.surprise(model, dataclasses.replace(windows, z=right), std)
    assert met.max() < 1e-5
    assert np.median(honest) > 0.1


def test_a_model_that_sees_nothing_is_refused(shop, held_out) -> None:
    dead = np.ones_like(held_out.z)
    windows = dataclasses.replace(held_out.windows, z=np.ones_like(held_out.windows.z))
    with pytest.raises(DataError, match="latents do not change"):
        measure.reference(
            shop.model("conv"), dataclasses.replace(held_out, z=dead, windows=windows)
        )


def test_a_control_needs_a_last_layer(shop) -> None:
    model = onnx.ModelProto.FromString(shop.graph("conv", "encode").SerializeToString())
    last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    last.op_type = "Sigmoid"
    del last.input[1:]
    with pytest.raises(EngineError, match="ends in a Sigmoid without a constant weight"):
        mis_scaled(model)
