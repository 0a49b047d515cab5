"""SmoothQuant: the float result stays, the numbers that are quantized become easier."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers.compile.probes import copy_of, graph_of, nodes_of, samples_of, tensors_of
from onnx import helper, numpy_helper

from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.quantize import qdq, quantized
from jetsight_compile.quantize.ranges import observe
from jetsight_compile.quantize.smoothquant import factors, places, smoothed

CASES = [("vit", "encode"), ("vit", "forecast"), ("conv", "forecast")]
ROUNDING = 5e-6
STYLE = Style(20, gelu="erf")


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return quantized.relative_error(found, expected) ** 0.5


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_float_result_stays(exports, kind, name) -> None:
    graph, samples = exports.graph(kind, name), samples_of(exports, kind, name, 8)
    by = factors(graph, samples)
    other = smoothed(graph, by)
    expected = quantized.outputs(graph, samples)
    assert error(quantized.outputs(other, samples), expected) < ROUNDING
    before, after = tensors_of(graph), tensors_of(other)
    folded = {weight for place in places(graph) for weight in place.weights}
    assert len(folded) == {"encode": 9, "forecast": 6}[name]
    for weight in folded:
        assert np.abs(after[weight] / before[weight] - 1).max() > 0.1, "nothing was moved"
    assert all(np.array_equal(before[n], after[n]) for n in before if n not in folded)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_one_side_alone_would_be_seen(exports, kind, name) -> None:
    """The control: weights that were multiplied behind a norm that was not divided."""
    graph, samples = exports.graph(kind, name), samples_of(exports, kind, name, 8)
    expected = quantized.outputs(graph, samples)
    wrong = smoothed(graph, factors(graph, samples))
    nodes = nodes_of(wrong)
    for place in places(graph):
        nodes[place.norm].input[1] = place.affine[0]
        assert error(quantized.outputs(wrong, samples), expected) > 100 * ROUNDING


def test_unrolled_steps_share_weights_and_so_their_factors(exports) -> None:
    graph = exports.graph("vit", "forecast")
    by = factors(graph, samples_of(exports, "vit", "forecast", 4))
    found = places(graph)
    assert len(found) == 2 * 5
    assert {place.norm for place in found} == set(by)
    for place in found:
        if place.norm.startswith("step1/"):
            twin = place.norm.replace("step1/", "step0/")
            np.testing.assert_array_equal(by[place.norm], by[twin])
    gains = [n for n in tensors_of(smoothed(graph, by)) if n.endswith(".gain.smooth")]
    assert len(gains) == 5, "one per group of weights, whatever the steps"


def test_an_outlier_channel_is_moved_into_the_weights() -> None:
    """Behind a norm whose channels differ much, both sides end up alike; that is its purpose."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["h"], name="norm"),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], name="up"),
    ]
    rng = np.random.default_rng(0)
    gain = np.ones(16, np.float32)
    gain[5] = 60.0
    w = (rng.standard_normal((16, 8)) / gain[:, None]).astype(np.float32)
    tensors = {"gain": gain, "w": w, "b": np.zeros(8, np.float32)}
    graph = graph_of(nodes, tensors, x=(9, 16), y=(9, 8))
    samples = [{"x": rng.standard_normal((9, 16)).astype(np.float32)} for _ in range(12)]
    by = factors(graph, samples)
    assert by["norm"].argmax() == 5
    expected = quantized.outputs(graph, samples)
    errors = {}
    for name, chosen in (("plain", {}), ("smooth", by)):
        seen = observe(smoothed(graph, chosen), ["h"], samples)
        largest = max(float(np.abs(values["h"]).max()) for values in seen)
        recipe = qdq.QuantizationRecipe("int8", ("up",), {"up": largest}, chosen)
        errors[name] = quantized.error_of(graph, recipe, samples, expected)
    assert errors["smooth"] < 0.3 * errors["plain"]


def norm_and_layer(**more: np.ndarray) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    tensors = {
        "gain": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "bias": rng.uniform(-1.0, 1.0, 16).astype(np.float32),
        "w": rng.standard_normal((16, 8)).astype(np.float32),
        **more,
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "bias"], ["h"], name="norm"),
        helper.make_node("Gemm", ["h", "w"], ["y"], name="layer"),
    ]
    return graph_of(nodes, tensors, x=(9, 16), y=(9, 8))


def test_the_bias_of_a_norm_is_divided_too() -> None:
    graph = norm_and_layer()
    samples = [{"x": np.random.default_rng(2).standard_normal((9, 16)).astype(np.float32)}]
    by = factors(graph, samples)
    expected = quantized.outputs(graph, samples)
    other = smoothed(graph, by)
    assert np.abs(quantized.outputs(other, samples) - expected).max() < 1e-5
    nodes_of(other)["norm"].input[2] = "bias"
    assert np.abs(quantized.outputs(other, samples) - expected).max() > 0.1


def add(graph: onnx.ModelProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    graph.graph.node.extend(nodes)
    return graph


def test_norms_that_are_read_by_anything_else_are_left_alone() -> None:
    assert [place.norm for place in places(norm_and_layer())] == ["norm"]
    make = helper.make_node
    elsewhere = norm_and_layer(other=np.ones((16, 8), np.float32))
    returned = norm_and_layer()
    returned.graph.output.append(
        helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, (9, 16))
    )
    for graph in (
        add(norm_and_layer(), make("Add", ["h", "x"], ["residual"])),
        add(norm_and_layer(), make("Relu", ["h"], ["r"]), make("Gemm", ["r", "w"], ["z"])),
        # The weight alone is read elsewhere: multiplied there too, it would change that result.
        add(norm_and_layer(), make("Gemm", ["x", "w"], ["z"])),
        # A second norm of the same weight, but another gain.
        add(
            elsewhere,
            make("LayerNormalization", ["x", "bias"], ["g"], name="second"),
            make("Gemm", ["g", "w"], ["z"]),
        ),
        returned,
    ):
        assert places(graph) == []
    untouched = smoothed(returned, {"norm": np.full(16, 2.0)})
    assert untouched.SerializeToString() == returned.SerializeToString()


@pytest.mark.parametrize(
    ("kind", "name", "compute"),
    [("vit", "encode", "fp16"), ("vit", "encode", "bf16"), ("conv", "forecast", "fp16")],
)
def test_factors_are_for_the_half_precision_twin_too(exports, kind, name, compute) -> None:
    """They are found on the float32 graph and folded by node names."""
    exact, half = (exports.graph(kind, name, STYLE.computing(c)) for c in ("fp32", compute))
    samples = samples_of(exports, kind, name, 8)
    by = factors(exact, samples)
    assert [place.norm for place in places(exact)] == [place.norm for place in places(half)]
    other = smoothed(half, by)
    expected, plain = quantized.outputs(exact, samples), quantized.outputs(half, samples)
    rounding = error(plain, expected)
    assert error(quantized.outputs(other, samples), expected) < 2 * rounding
    assert {t.data_type for t in other.graph.initializer} == {
        t.data_type for t in half.graph.initializer
    }
    for place in places(half):
        nodes_of(other)[place.norm].input[1] = place.affine[0]
    assert error(quantized.outputs(other, samples), expected) > 10 * rounding


def test_the_graph_and_the_layers_are_what_they_were(exports) -> None:
    graph, samples = exports.graph("vit", "encode"), samples_of(exports, "vit", "encode", 4)
    before = graph.SerializeToString()
    other = smoothed(graph, factors(graph, samples))
    assert graph.SerializeToString() == before
    assert quantizable(other) == quantizable(graph)
    assert [n.op_type for n in other.graph.node] == [n.op_type for n in graph.graph.node]
    onnx.checker.check_model(other, full_check=True)


def test_factors_stay_within_float16(exports) -> None:
    graph = copy_of(exports.graph("vit", "encode"))
    (weight,) = places(graph)[1].weights
    for tensor in graph.graph.initializer:
        if tensor.name == weight:
            small = numpy_helper.to_array(tensor) * np.float32(1e-9)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    by = factors(graph, samples_of(exports, "vit", "encode", 2))
    assert all(1e-2 <= value.min() <= value.max() <= 1e2 for value in by.values())
    assert by[places(graph)[1].norm].max() == 1e2
