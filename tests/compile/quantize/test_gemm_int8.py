"""INT8 in the form of many rows: what is computed, what libraries make of it, what it must beat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.compile.probes import graph_of, makers_of, nodes_of, tensors_of
from onnx import helper

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import UsageError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.export.onnx_graph import check_quantized, quantizable
from jetsight_compile.quantize import float_fallback, gemm_int8, quantized, schemes
from jetsight_compile.quantize.quantized import relative_error as error

ROWS, FEW, MANY, OUT = 64, 24, 300, 16


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """`y = relu(x a + b) c`: few inputs with a bias, then many without one."""
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.standard_normal((FEW, MANY)).astype(np.float32),
        "b": rng.standard_normal(MANY).astype(np.float32),
        "c": rng.standard_normal((MANY, OUT)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], name="one/Gemm"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "c"], ["y"], name="two/MatMul"),
    ]
    return graph_of(nodes, tensors, x=(ROWS, FEW), y=(ROWS, OUT))


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": (rng.standard_normal((ROWS, FEW)) + 0.5).astype(np.float32)} for _ in range(8)]


@pytest.fixture(scope="module")
def made(graph, samples) -> quantized.Quantized:
    return schemes.cpu_rows(graph, samples)


def outputs(model: onnx.ModelProto, samples) -> np.ndarray:
    return run_all(OnnxRuntimeBackend(optimise=False), model.SerializeToString(), samples)


def test_both_products_become_integer_ones(graph, made) -> None:
    assert made.layers == ("one/Gemm", "two/MatMul")
    assert (made.share, made.tensors) == (1.0, 4)
    assert check_quantized(made.model, made.layers) == 4
    nodes, makers = nodes_of(made.model), makers_of(made.model)
    assert [nodes[name].op_type for name in made.layers] == ["Gemm", "Gemm"]
    for name in made.layers:
        assert [makers[value].op_type for value in nodes[name].input] == ["DequantizeLinear"] * 3
    stored = {t.name: t for t in made.model.graph.initializer}
    assert stored["a.q"].data_type == onnx.TensorProto.INT8
    assert stored["one/Gemm.bias.q"].data_type == onnx.TensorProto.INT32
    assert "a" not in stored, "the float weight is gone"
    assert np.abs(tensors_of(made.model)["a.q"]).max() == 63, "seven bits"


def test_it_is_as_exact_as_eight_bits_are(graph, made, samples) -> None:
    found, right = (outputs(model, samples) for model in (made.model, graph))
    assert made.error == pytest.approx(error(found[3::4], right[3::4]))
    assert 0.0 < error(found, right) < 2e-3
    narrow = replace(
        made.recipe, ranges={n: (0.3 * a, 0.3 * b) for n, (a, b) in made.recipe.ranges.items()}
    )
    clipped = outputs(gemm_int8.written(graph, narrow), samples)
    assert error(clipped, right) > 50 * made.error, "the control: ranges that are too small"


def test_a_shift_replaces_the_zero_point_only_where_few_inputs_are_summed(made) -> None:
    nodes, tensors = nodes_of(made.model), tensors_of(made.model)
    zeros = {
        n.input[0]: int(tensors[n.input[2]])
        for n in nodes.values()
        if n.op_type == "QuantizeLinear"
    }
    assert zeros == {"x.u8": 0, "r": 0}
    assert [n.op_type for n in nodes.values()].count("Add") == 1
    assert tensors["x.u8.shift"] == pytest.approx(-made.recipe.ranges["one/Gemm"][0])


def test_shifted_or_not_it_is_as_exact(graph, made, samples, monkeypatch) -> None:
    right = outputs(graph, samples)
    shifted = error(outputs(made.model, samples), right)
    monkeypatch.setattr(gemm_int8, "_FEW_INPUTS", 0)
    plain = gemm_int8.written(graph, made.recipe)
    assert "Add" not in {node.op_type for node in plain.graph.node}
    assert error(outputs(plain, samples), right) == pytest.approx(shifted, rel=0.3)
    forgotten = onnx.ModelProto.FromString(made.model.SerializeToString())
    (add,) = (node for node in forgotten.graph.node if node.op_type == "Add")
    add.op_type, add.input[:] = "Identity", add.input[:1]
    assert error(outputs(forgotten, samples), right) > 100 * shifted, "the control: no shift"


def test_onnxruntime_makes_integer_kernels_of_it(made, tmp_path: Path) -> None:
    import onnxruntime

    def operators(model: onnx.ModelProto) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    assert operators(made.model).count("QGemm") == 2
    without = onnx.ModelProto.FromString(made.model.SerializeToString())
    makers_of(without)["a.dq"].input.pop()
    assert operators(without).count("QGemm") == 1, "the control: a weight without zero point"


def test_layers_go_back_to_float_as_a_block(graph, made, samples) -> None:
    fewer = float_fallback.restore_float(made, graph, ("two",))
    assert fewer.layers == ("one/Gemm",)
    assert fewer.kept == ("two",)
    assert nodes_of(fewer.model)["two/MatMul"].op_type == "MatMul"
    right = outputs(graph, samples)
    assert error(outputs(fewer.model, samples), right) < made.error
    order = float_fallback.most_harmful(graph, made, samples, right)
    assert sorted(order) == ["one", "two"]
    each = {
        b: error(outputs(float_fallback.restore_float(made, graph, (b,)).model, samples), right)
        for b in order
    }
    assert each[order[0]] < each[order[1]]


def test_what_a_planner_is_compared_at_stays_float(graph) -> None:
    named = onnx.ModelProto.FromString(graph.SerializeToString())
    for node in named.graph.node:
        node.name = node.name.replace("two", "step3/project.down")
    assert quantizable(named) == ["one/Gemm", "step3/project.down/MatMul"]
    named.graph.name = "imagine_icem_8x2"
    assert quantizable(named) == ["one/Gemm"]
    with pytest.raises(UsageError, match="no layer is left to quantize"):
        quantizable(named, ["one/*"])
