from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers.compile.tiny_model import HISTORY, HORIZON, LATENT, SIDE, square_episode

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.quantize import qdq, ranges
from jetsight_compile.quantize.schemes import cpu_int8
from jetsight_compile.validate import taps
from jetsight_compile.validate.negative_controls import (
    inner_layers,
    scale_half_layer,
    shift_history,
)

CPU = Style(20)
WRITTEN = OnnxRuntimeBackend(optimise=False)
FUSED = Style(23, attention="fused")


def samples_of(graph: str, count: int = 24) -> list[dict[str, np.ndarray]]:
    if graph == "encode":
        return [{"frame_hwc_u8": frame} for frame in square_episode(7)[0][:count]]
    rng = np.random.default_rng(3)
    shapes = {"z_hist": (HISTORY, LATENT), "a_hist": (HISTORY - 1, 4), "actions": (HORIZON, 4)}
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def like(exact: onnx.ModelProto, compiled: onnx.ModelProto) -> dict[str, taps.Likeness]:
    name = exact.graph.name
    places, samples = taps.places(exact), samples_of(name)
    found = taps.read(WRITTEN, compiled, places, samples)
    return taps.compare(found, taps.read(WRITTEN, exact, places, samples))


def quantized(exact: onnx.ModelProto, onto: onnx.ModelProto, kind: qdq.Kind) -> onnx.ModelProto:
    """`onto` with the ranges of `exact`, as the TensorRT families are made."""
    layers = quantizable(exact)
    reads = {n.name: n.input[0] for n in exact.graph.node if n.name in layers}
    seen = ranges.collect(exact, reads.values(), samples_of(exact.graph.name))
    amax = {name: seen[value].amax for name, value in reads.items()}
    return qdq.written(onto, qdq.QuantizationRecipe(kind, tuple(layers), amax))


def test_every_block_is_tapped_once_per_step(exports) -> None:
    names = [tap.name for tap in taps.places(exports.graph("vit", "encode"))]
    assert names == ["trunk.embed", "trunk.blocks.0", "trunk.last", "trunk.projector"]
    conv = [tap.name for tap in taps.places(exports.graph("conv", "encode"))]
    assert conv == ["trunk.layers.0", "trunk.layers.1", "trunk.hidden", "trunk.out"]
    forecast = [tap.name for tap in taps.places(exports.graph("conv", "forecast"))]
    for step in range(HORIZON):
        inside = [name for name in forecast if name.startswith(f"step{step}/")]
        assert inside == [f"step{step}/{block}" for block in ("blocks.0", "last", "project")]


def test_a_tap_is_the_value_after_the_residual(exports) -> None:
    graph = exports.graph("vit", "encode")
    block = next(tap for tap in taps.places(graph) if tap.name == "trunk.blocks.0")
    (node,) = (node for node in graph.graph.node if node.name == block.node)
    assert node.op_type == "Add"
    assert block.shape == ((SIDE // 8) ** 2 + 1, 16)


@pytest.mark.parametrize("name", ["encode", "forecast"])
def test_the_last_taps_are_the_outputs_and_taps_change_nothing(exports, name) -> None:
    graph, samples = exports.graph("vit", name), samples_of(name)
    places = taps.places(graph)
    values = taps.read(WRITTEN, graph, places, samples)
    outputs = run_all(WRITTEN, graph.SerializeToString(), samples).reshape(len(samples), -1)
    ends = [values[tap.name] for tap in places if tap.name.endswith(("projector", "project"))]
    np.testing.assert_array_equal(np.concatenate(ends, 1).reshape(len(samples), -1), outputs)
    assert len(ends) == (HORIZON if name == "forecast" else 1)


@pytest.mark.parametrize("name", ["encode", "forecast"])
def test_the_same_places_are_found_in_half_precision(exports, name) -> None:
    exact = exports.graph("vit", name, FUSED)
    for compute, least_db in (("fp16", 40.0), ("bf16", 18.0)):
        each = like(exact, exports.graph("vit", name, FUSED.computing(compute)))
        assert min(one.sqnr_db for one in each.values()) > least_db
        assert max(one.sqnr_db for one in each.values()) < 100.0  # it is another graph


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["encode", "forecast"])
def test_the_same_places_are_found_behind_q_and_dq(exports, name, kind) -> None:
    exact, half = (exports.graph("conv", name, style) for style in (FUSED, FUSED.computing("fp16")))
    compiled = quantized(exact, half, kind)
    each = like(exact, compiled)
    assert min(one.sqnr_db for one in each.values()) > 12.0
    worst = min(each.values(), key=lambda one: one.sqnr_db)
    # The control: a layer before the last with half of its scales wrong.
    layer = {"encode": "trunk.layers.1/Conv", "forecast": "all/Gemm"}[name]
    broken = like(exact, scale_half_layer(compiled, layer))
    assert min(one.sqnr_db for one in broken.values()) < worst.sqnr_db - 3.0


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_the_cpus_quantizer_keeps_the_names(exports, kind) -> None:
    for name in ("encode", "forecast"):
        exact = exports.graph(kind, name)
        each = like(exact, cpu_int8(exact, samples_of(name), methods=["max"]).model)
        assert min(one.cosine for one in each.values()) > 0.9


def test_a_lost_place_is_named(exports) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(exports.graph("vit", "forecast", CPU))
    places = taps.places(graph)
    lost = next(tap for tap in places if tap.name == "step1/last")
    for node in graph.graph.node:
        node.name = "renamed" if node.name == lost.node else node.name
    with pytest.raises(EngineError, match=f"lost node '{lost.node}'.* block 'step1/last'"):
        taps.read(WRITTEN, graph, places, samples_of("forecast", 1))


def test_a_graph_without_weights_has_no_inside() -> None:
    relu = onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (2,)) for n in "xy")
    model = onnx.helper.make_model(onnx.helper.make_graph([relu], "odd", [x], [y]))
    with pytest.raises(EngineError, match="'odd' has no layer with a constant weight"):
        taps.places(model)


def noise(scale: float, shape: tuple[int, ...] = (60, 5, 8), seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_likeness_of_a_known_error() -> None:
    expected = 100.0 + noise(1.0)  # a mean that a plain cosine would take for likeness
    found = taps.likeness(expected + noise(0.1, seed=1), expected)
    assert found is not None
    assert found.sqnr_db == pytest.approx(20.0, abs=0.5)
    assert found.cosine == pytest.approx(0.995, abs=0.001)
    assert found.worst < found.cosine
    other = taps.likeness(np.roll(expected, 7, axis=0), expected)
    assert other is not None
    assert abs(other.cosine) < 0.2
    assert other.sqnr_db < 0.0


def test_tokens_that_stand_still_have_no_direction_but_their_error_counts() -> None:
    expected = noise(1.0)
    expected[:, 2] *= 0.01
    fine = taps.likeness(expected + noise(0.01, seed=1), expected)
    assert fine is not None
    assert fine.worst > 0.999
    wrong = expected.copy()
    wrong[:, 2] += 3.0
    found = taps.likeness(wrong, expected)
    assert found is not None
    assert found.worst == pytest.approx(1.0)
    assert found.sqnr_db < 0.0


def test_what_never_moves_is_left_out_and_what_is_no_number_is_worst() -> None:
    still = np.broadcast_to(noise(1.0, (1, 5, 8)), (60, 5, 8))
    assert taps.likeness(still, still) is None
    expected = noise(1.0)
    found = expected.copy()
    found[3, 1, 2] = np.nan
    assert taps.likeness(found, expected) == taps.Likeness(-1.0, -1.0, -200.0)


def test_a_feature_map_has_one_token_per_pixel(exports) -> None:
    graph, samples = exports.graph("conv", "encode"), samples_of("encode", 2)
    places = taps.places(graph)
    first = taps.read(WRITTEN, graph, places, samples)[places[0].name]
    _, channels, height, width = places[0].shape
    assert first.shape == (2, height * width, channels)


def test_a_stale_history_misses_its_newest_latent() -> None:
    z = noise(1.0, (4, 3, 2))
    old = shift_history(z)
    np.testing.assert_array_equal(old[:, 1:], z[:, :2])
    np.testing.assert_array_equal(old[:, 0], z[:, 0])
    alone = shift_history(z[:, :1])
    assert alone.shape == (4, 1, 2)
    assert not np.equal(alone, z[:, :1]).any()


def test_the_middle_layer_comes_first_and_the_last_never(exports) -> None:
    for name, last in (("encode", "trunk.out/Gemm"), ("forecast", "step0/project/Gemm")):
        graph = exports.graph("conv", name)
        layers = inner_layers(graph)
        assert last not in layers
        assert len(set(layers)) == len(layers)
    assert inner_layers(exports.graph("conv", "encode"))[0] == "trunk.layers.1/Conv"


@pytest.mark.parametrize("kind", ["int8", "nvfp4"])
def test_scales_are_what_is_mis_scaled_in_a_quantized_graph(kind) -> None:
    weight = onnx.numpy_helper.from_array(noise(1.0, (32, 6)), "w")
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], name="layer/Gemm")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 32))
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 6))
    graph = onnx.helper.make_graph([node], "odd", [x], [y], [weight])
    opset = [onnx.helper.make_opsetid("", 23)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=11)
    amax = {"layer/Gemm": 3.0} if kind == "int8" else {}
    written = qdq.written(model, qdq.QuantizationRecipe(kind, ("layer/Gemm",), amax))
    broken = scale_half_layer(written)
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in m.graph.initializer}
        for m in (written, broken)
    )
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == (["w.scale"] if kind == "int8" else ["w.scale.q"])
    half = after[changed[0]][..., :3] / before[changed[0]][..., :3]
    assert ((half == 2.0) | (after[changed[0]][..., :3] == 448.0)).all()
    np.testing.assert_array_equal(after[changed[0]][..., 3:], before[changed[0]][..., 3:])
