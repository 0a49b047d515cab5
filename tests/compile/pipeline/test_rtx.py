"""Every TensorRT family really compiled by NVIDIA's compiler, which needs no GPU for that."""

from __future__ import annotations

import onnx
import pytest
from helpers.compile import tensorrt_rtx
from onnx import helper

from jetsight.errors import EngineError, MissingDependency
from jetsight_compile.config.targets import TARGETS, plan
from jetsight_compile.export import onnx_export
from jetsight_compile.export.onnx_export import Sizes

needs_rtx = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)
FAMILIES = {
    family.name: family
    for precision in ("fp16", "fp32")
    for family in plan([t for t in TARGETS if t != "cpu"], [precision])
}
NAMES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}


def promised(sizes: Sizes, graph: str) -> list[dict[str, tuple[str, tuple[int, ...]]]]:
    return [
        {name: (NAMES[kind], shape) for name, (kind, shape) in ports.items()}
        for ports in sizes.signature(graph)
    ]


def test_the_table_has_four_tensorrt_families() -> None:
    assert set(FAMILIES) == {f"trt-op{n}-{p}" for n in (20, 23) for p in ("fp16", "fp32")}


@needs_rtx
@pytest.mark.parametrize(
    ("kind", "name", "family"),
    [
        *(("vit", "encode", family) for family in FAMILIES),
        *(("vit-resize", "encode", family) for family in ("trt-op23-fp16",)),
        *(("conv", "encode", family) for family in ("trt-op20-fp16", "trt-op23-fp16")),
        ("vit", "forecast", "trt-op23-fp16"),
        ("conv", "forecast", "trt-op20-fp16"),
    ],
)
def test_families_compile(exports, tmp_path, kind, name, family) -> None:
    graph = exports.graph(kind, name, FAMILIES[family].style)
    built = tensorrt_rtx.build(graph.SerializeToString(), tmp_path / "trt.log")
    assert [built.inputs, built.outputs] == promised(Sizes.of(exports.model(kind)), name)
    assert len(built.engine) > 1000
    counts = onnx_export.operator_counts(graph)
    assert built.layers["NORMALIZATION"] == counts["LayerNormalization"]
    assert built.layers["MATRIX_MULTIPLY"] == counts["Gemm"] + counts["MatMul"]
    assert built.layers["CONVOLUTION"] == counts["Conv"]
    assert built.layers["ATTENTION_INPUT"] == counts["Attention"]
    assert (tmp_path / "trt.log").stat().st_size > 1000


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pusht-nano", "lewm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_geometries_compile(recipe, family) -> None:
    from helpers.compile.tiny_model import geometry_of

    from jetsight_train.recipe import load_recipe

    model = geometry_of(load_recipe(recipe))
    for name, export in (
        ("encode", onnx_export.export_encode),
        ("forecast", onnx_export.export_forecast),
    ):
        built = tensorrt_rtx.build(export(model, FAMILIES[family].style).SerializeToString())
        assert [built.inputs, built.outputs] == promised(Sizes.of(model), name)


@needs_rtx
def test_what_the_parser_refuses_is_one_line(exports, tmp_path) -> None:
    model = onnx.ModelProto.FromString(exports.graph("conv", "encode").SerializeToString())
    odd = helper.make_node("Fourier", ["sub"], ["odd"], name="odd/Fourier", domain="com.me")
    model.graph.node.append(odd)
    with pytest.raises(EngineError, match=r"cannot parse the graph: node 'odd/Fourier'") as caught:
        tensorrt_rtx.build(model.SerializeToString(), tmp_path / "trt.log")
    assert "\n" not in str(caught.value)
    assert b"Fourier" in (tmp_path / "trt.log").read_bytes()


@needs_rtx
def test_what_the_compiler_refuses_is_one_line(exports, tmp_path) -> None:
    """One query against many keys has no fused kernel: why the last block is written in parts."""
    f32 = onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(n, f32, (1, p, 192)) for n, p in (("q", 1), ("k", 257))]
    node = helper.make_node(
        "Attention", ["q", "k", "k"], ["y"], name="one", q_num_heads=3, kv_num_heads=3
    )
    out = helper.make_tensor_value_info("y", f32, (1, 1, 192))
    graph = helper.make_graph([node], "one-query", ports, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    log = tmp_path / "trt.log"
    with pytest.raises(EngineError, match=r"cannot compile the graph: .*log is in") as caught:
        tensorrt_rtx.build(model.SerializeToString(), log)
    assert "\n" not in str(caught.value)


def test_without_tensorrt_rtx_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match=r"jetsight\[rtx\]"):
        tensorrt_rtx.build(b"")
