"""The rules of explicit quantization, checked on what is written into real graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.compile.probes import (
    Sample,
    attribute_of,
    copy_of,
    graph_of,
    makers_of,
    nodes_of,
    samples_of,
    tensors_of,
)
from onnx import TensorProto, helper, numpy_helper

from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import Sizes, check_graph, finished
from jetsight_compile.export.onnx_graph import check_quantized, quantizable
from jetsight_compile.quantize import qdq, quantized, ranges
from jetsight_compile.quantize.qdq import QuantizationRecipe, written

PLAIN, NEWEST = Style(20, gelu="erf"), Style(23, attention="fused")
STYLE = {"int8": PLAIN, "fp8": PLAIN, "int4": NEWEST, "nvfp4": NEWEST}
STORED = {
    "int8": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "int4": TensorProto.INT4,
    "nvfp4": TensorProto.FLOAT4E2M1,
}
FLOAT = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
EIGHT = ("int8", "fp8")


def grouped(graph: onnx.ModelProto, kind: str) -> list[str]:
    """Layers whose weights come in whole groups."""
    nodes, tensors = nodes_of(graph), tensors_of(graph)
    return [
        name
        for name in quantizable(graph)
        if nodes[name].op_type == "Gemm"
        and len(tensors[nodes[name].input[1]]) % qdq.GROUP[kind] == 0
    ]


def recipe_of(graph: onnx.ModelProto, kind: str) -> QuantizationRecipe:
    """Everything that can be quantized, with a range for every value that is read."""
    nodes = nodes_of(graph)
    layers = quantizable(graph) if kind in EIGHT else grouped(graph, kind)
    values = list(dict.fromkeys(nodes[name].input[0] for name in layers))
    amax = {name: 2.0 + values.index(nodes[name].input[0]) for name in layers}
    return QuantizationRecipe(kind, tuple(layers), amax if kind in EIGHT else {})


def ranged(graph: onnx.ModelProto, kind: str, samples: Sequence[Sample]) -> QuantizationRecipe:
    """The same with the ranges that these samples have."""
    recipe, nodes = recipe_of(graph, kind), nodes_of(graph)
    seen = ranges.collect(graph, [nodes[name].input[0] for name in recipe.activations], samples)
    amax = {name: seen[nodes[name].input[0]].amax for name in recipe.activations}
    return QuantizationRecipe(kind, recipe.layers, amax)


def float_of(tensor: TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor).astype(np.float64)


def protos(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def dequantized(model: onnx.ModelProto, node: onnx.NodeProto) -> np.ndarray:
    """What a DequantizeLinear of constants gives, by the standard and not by our own code."""
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    kept = [n for n in model.graph.node if n.output[0] in (*node.input, node.output[0])]
    del alone.graph.node[:], alone.graph.input[:], alone.graph.output[:]
    alone.graph.node.extend(kept)
    alone.graph.output.append(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    )
    (value,) = onnx.reference.ReferenceEvaluator(alone).run(None, {})
    return np.asarray(value).astype(np.float64)


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize(("model", "name"), [("conv", "encode"), ("vit", "encode")])
def test_activations_are_symmetric_with_one_scale(exports, kind, model, name) -> None:
    graph = exports.graph(model, name, PLAIN)
    recipe = recipe_of(graph, kind)
    made = written(graph, recipe)
    check_quantized(made, recipe.layers)
    makers, nodes, tensors = makers_of(made), nodes_of(made), protos(made)
    for layer in recipe.layers:
        dq = makers[nodes[layer].input[0]]
        q = makers[dq.input[0]]
        assert (q.op_type, dq.op_type) == ("QuantizeLinear", "DequantizeLinear")
        assert q.input[0] == nodes_of(graph)[layer].input[0]
        assert list(q.input[1:]) == list(dq.input[1:]), "one scale and zero point for both"
        scale, zero = (tensors[value] for value in q.input[1:])
        assert list(scale.dims) == list(zero.dims) == []
        assert zero.data_type == STORED[kind]
        assert float_of(zero) == 0
        assert float_of(scale) == pytest.approx(recipe.activations[layer] / qdq.LARGEST[kind])


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize(("model", "name"), [("conv", "encode"), ("vit", "encode")])
def test_weights_have_one_scale_per_output(exports, kind, model, name) -> None:
    graph = exports.graph(model, name, PLAIN)
    recipe = recipe_of(graph, kind)
    made = written(graph, recipe)
    makers, nodes, tensors, floats = makers_of(made), nodes_of(made), protos(made), protos(graph)
    for layer in recipe.layers:
        dq, weight = makers[nodes[layer].input[1]], floats[nodes_of(graph)[layer].input[1]]
        axis = 0 if nodes[layer].op_type == "Conv" else 1
        assert attribute_of(dq, "axis") == axis
        stored, scale = (tensors[value] for value in dq.input)
        assert stored.data_type == STORED[kind]
        assert list(stored.dims) == list(weight.dims)
        assert list(scale.dims) == [weight.dims[axis]]
        values, found = float_of(weight), dequantized(made, dq)
        others = tuple(i for i in range(values.ndim) if i != axis)
        np.testing.assert_allclose(
            float_of(scale), np.abs(values).max(others) / qdq.LARGEST[kind], rtol=1e-6
        )
        assert within_steps(0.5, found, values, float_of(scale), axis, kind)
        assert not within_steps(0.25, found, values, float_of(scale), axis, kind), "control"
        assert nodes[layer].input[2:] == nodes_of(graph)[layer].input[2:], "biases stay float"


def within_steps(
    most: float, found: np.ndarray, values: np.ndarray, scale: np.ndarray, axis: int, kind: str
) -> bool:
    """Whether all weights are at most so many steps from what they were."""
    steps = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    if kind == "fp8":  # 3 bits of mantissa: a step is 1/8 of the power of two below
        power = np.floor(np.log2(np.maximum(np.abs(values / steps), 1e-9)))
        steps = steps * np.maximum(2.0 ** (power - 3), 2.0**-9)
    return bool((np.abs(found - values) <= 1.0001 * most * steps).all())


@pytest.mark.parametrize("kind", ["int4", "nvfp4"])
def test_four_bit_weights_have_one_scale_per_group(exports, kind) -> None:
    graph, size = exports.graph("vit", "encode", NEWEST), qdq.GROUP[kind]
    recipe = recipe_of(graph, kind)
    made = written(graph, recipe)
    check_quantized(made, recipe.layers, activations=False)
    makers, nodes, tensors, floats = makers_of(made), nodes_of(made), protos(made), protos(graph)
    for layer in recipe.layers:
        dq, weight = makers[nodes[layer].input[1]], floats[nodes_of(graph)[layer].input[1]]
        assert (attribute_of(dq, "axis"), attribute_of(dq, "block_size")) == (0, size)
        stored = tensors[dq.input[0]]
        assert (stored.data_type, list(stored.dims)) == (STORED[kind], list(weight.dims))
        values = float_of(weight)
        groups = np.abs(values).reshape(-1, size, values.shape[1]).max(1)
        steps = scales(made, dq, tensors)
        assert steps.shape == groups.shape
        # FP8 rounds the scales of NVFP4, by up to 1/16.
        np.testing.assert_allclose(
            steps, groups / qdq.LARGEST[kind], rtol=1e-6 if kind == "int4" else 0.0626
        )
        found = dequantized(made, dq)
        # Between 4 and 6, E2M1 has nothing: half a step is 1 there; beyond 6 it clips.
        half = 0.5 if kind == "int4" else 1.4
        assert (np.abs(found - values) <= half * 1.001 * np.repeat(steps, size, 0)).all()
        assert np.abs(found).max() > 0.9 * np.abs(values).max()


def test_groups_are_of_a_size_that_tensorrt_documents() -> None:
    assert qdq.GROUP["int4"] in (64, 128)
    assert qdq.GROUP["nvfp4"] == 16


def scales(
    made: onnx.ModelProto, dq: onnx.NodeProto, tensors: dict[str, TensorProto]
) -> np.ndarray:
    """Scales of the groups; NVFP4's are FP8 numbers times one float."""
    if dq.input[1] in tensors:
        return float_of(tensors[dq.input[1]])
    over = makers_of(made)[dq.input[1]]
    stored, whole = (tensors[value] for value in over.input)
    assert stored.data_type == TensorProto.FLOAT8E4M3FN
    assert list(whole.dims) == []
    if float_of(whole) > 1e-6:
        assert np.abs(float_of(stored)).max() > 440, "the largest scale uses FP8's whole range"
    return float_of(stored) * float_of(whole)


def test_what_several_layers_read_is_quantized_once(exports) -> None:
    graph = exports.graph("vit", "encode", PLAIN)
    made = written(graph, recipe_of(graph, "int8"))
    nodes = nodes_of(made)
    assert len({nodes[f"trunk.blocks.0.{part}/Gemm"].input[0] for part in "qkv"}) == 1
    assert len({nodes[f"trunk.blocks.0.{part}/Gemm"].input[1] for part in "qkv"}) == 3
    kinds = [node.op_type for node in made.graph.node]
    read = {nodes_of(graph)[name].input[0] for name in quantizable(graph)}
    assert kinds.count("QuantizeLinear") == len(read) < len(quantizable(graph))


def test_unrolled_steps_share_their_quantized_weights(exports) -> None:
    graph = exports.graph("conv", "forecast", PLAIN)
    made = written(graph, recipe_of(graph, "int8"))
    nodes = nodes_of(made)
    first, second = (nodes[f"step{i}/blocks.0.mlp.up/Gemm"] for i in range(2))
    assert first.input[1] == second.input[1]
    assert first.input[0] != second.input[0]
    stored = [t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and t.dims]
    assert len(stored) == 1 + 9


def test_one_value_with_two_ranges_is_quantized_twice() -> None:
    """A recipe is by layer; the second range must not take the first one's scale."""
    nodes = [
        helper.make_node("Gemm", ["x", w], [o], name=n)
        for w, o, n in (("w", "a", "left"), ("v", "b", "right"))
    ]
    nodes.append(helper.make_node("Add", ["a", "b"], ["y"], name="sum"))
    weights = np.eye(4, dtype=np.float32)
    graph = graph_of(nodes, {"w": weights, "v": 2 * weights}, x=(2, 4), y=(2, 4))
    made = written(
        graph, QuantizationRecipe("int8", ("left", "right"), {"left": 1.27, "right": 12.7})
    )
    steps = sorted(v.item() for n, v in tensors_of(made).items() if n.startswith("x."))
    np.testing.assert_allclose([s for s in steps if s], [0.01, 0.1], rtol=1e-6)
    (y,) = quantized.outputs(made, [{"x": np.full((2, 4), 5.0, np.float32)}])
    np.testing.assert_allclose(y, 1.27 + 2 * 5.0, rtol=1e-5)


def test_layers_that_are_not_listed_stay_as_they_are(exports) -> None:
    graph = exports.graph("vit", "encode", PLAIN)
    recipe = recipe_of(graph, "int8")
    kept = [name for name in recipe.layers if ".last." in name]
    made = written(graph, replace(recipe, layers=tuple(n for n in recipe.layers if n not in kept)))
    before, after = nodes_of(graph), nodes_of(made)
    for name in before:
        same = before[name].SerializeToString() == after[name].SerializeToString()
        assert same == (name not in recipe.layers or name in kept), name
    added = {node.op_type for name, node in after.items() if name not in before}
    assert added == {"QuantizeLinear", "DequantizeLinear"}
    assert len(kept) == 6
    nothing = written(graph, replace(recipe, layers=()))
    assert nothing.SerializeToString() == graph.SerializeToString()


@pytest.mark.parametrize("kind", ["int8", "fp8", "int4", "nvfp4"])
@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_a_recipe_goes_onto_the_half_precision_twin(exports, kind, compute) -> None:
    exact, half = (
        exports.graph("vit", "encode", STYLE[kind].computing(c)) for c in ("fp32", compute)
    )
    samples = samples_of(exports, "vit", "encode", 12)
    recipe = ranged(exact, kind, samples)
    made = written(half, recipe)
    check_graph(
        finished(copy_of(made), "encode", Sizes.of(exports.model("vit"))),
        "encode",
        Sizes.of(exports.model("vit")),
    )
    assert check_quantized(made, recipe.layers, activations=kind in EIGHT) > 0
    types = {tensor.data_type for tensor in made.graph.initializer}
    assert FLOAT[compute] in types
    assert STORED[kind] in types
    for node in made.graph.node:  # a scale of another float format would change the type of sums
        if "Linear" in node.op_type and node.input[1] in protos(made):
            assert protos(made)[node.input[1]].data_type == FLOAT[compute]
    expected = quantized.outputs(exact, samples)
    found = quantized.outputs(made, samples)
    allowed = 2.0 * quantized.relative_error(
        quantized.outputs(written(exact, recipe), samples), expected
    )
    assert quantized.relative_error(found, expected) < allowed
    assert quantized.relative_error(np.roll(found, 1, axis=0), expected) > allowed


def test_a_scale_is_rounded_before_the_weight_is(exports) -> None:
    """Weights divided by a scale that float16 then rounds would be off by that rounding."""
    half = exports.graph("vit", "encode", PLAIN.computing("fp16"))
    made = written(half, recipe_of(half, "int8"))
    tensors, worst = protos(made), 0.0
    for dq in (n for n in made.graph.node if n.name.endswith("weight.dq/DequantizeLinear")):
        stored, scale = (float_of(tensors[value]) for value in dq.input)
        values = float_of(protos(half)[dq.output[0].removesuffix(".dq")])
        np.testing.assert_array_equal(scale, scale.astype(np.float16))
        np.testing.assert_array_equal(stored, np.clip(np.rint(values / scale), -127, 127))
        unrounded = np.abs(values).max(0) / 127.0
        worst = max(worst, float(np.abs(stored - np.rint(values / unrounded)).max()))
    assert worst >= 1, "the control: with exact scales some weights are stored otherwise"


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("compute", ["fp16", "fp32"])
def test_no_scale_is_ever_zero(exports, kind, compute) -> None:
    """A channel of zeros and an activation that never was: float16 would round their steps to 0."""
    graph = copy_of(exports.graph("vit", "encode", PLAIN.computing(compute)))
    for tensor in graph.graph.initializer:
        if tensor.name == "trunk.last.q.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[:, :3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    recipe = recipe_of(graph, kind)
    tiny = {**recipe.activations, "trunk.last.out/Gemm": 1e-9}
    made = written(graph, QuantizationRecipe(kind, recipe.layers, tiny))
    steps = [float_of(t).min() for t in made.graph.initializer if t.name.endswith(".scale")]
    assert min(steps) > 0
    assert min(steps) == pytest.approx(1e-6, rel=0.05)
    assert np.isfinite(quantized.outputs(made, samples_of(exports, "vit", "encode", 2))).all()


def test_four_bit_groups_of_zeros_stay_zero() -> None:
    w = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    w[:16] = 0
    w[16:32] *= 1e-4  # FP8 rounds the scale of this group to nearly nothing
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer")
    graph = graph_of([node], {"w": w}, opset=23, x=(1, 64), y=(1, 4))
    for kind in ("int4", "nvfp4"):
        made = runnable(written(graph, QuantizationRecipe(kind, ("layer",))))
        (found,) = (v for n, v in tensors_of(made).items() if n.startswith("w"))
        assert np.isfinite(found).all()
        if kind == "nvfp4":
            assert not found[:16].any()
        np.testing.assert_allclose(found[32:], w[32:], atol=0.25 * np.abs(w).max())


@pytest.mark.parametrize("kind", ["int8", "fp8", "int4", "nvfp4"])
def test_the_float_graph_is_not_touched_and_float_weights_do_not_ship(exports, kind) -> None:
    graph = exports.graph("vit", "encode", STYLE[kind])
    before = graph.SerializeToString()
    recipe = recipe_of(graph, kind)
    made = written(graph, recipe)
    assert graph.SerializeToString() == before
    weights = {nodes_of(graph)[name].input[1] for name in recipe.layers}
    assert weights
    assert not weights & set(tensors_of(made))
    assert graph.opset_import[0].version == made.opset_import[0].version
