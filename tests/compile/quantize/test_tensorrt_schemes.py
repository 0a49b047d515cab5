"""Quantization for TensorRT: what is placed, what is chosen, and what would be caught."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from helpers.compile.probes import attribute_of, copy_of, nodes_of, samples_of
from onnx import helper

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.config.precision import METHODS as METHODS_OF_ALL
from jetsight_compile.config.precision import QUANTIZED, WEIGHT_ONLY
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import Sizes, finished, operator_counts
from jetsight_compile.export.onnx_graph import check_quantized, quantizable
from jetsight_compile.quantize import qdq, quantized, ranges, schemes, vendor
from jetsight_compile.quantize.quantized import Quantized, rebase
from jetsight_compile.quantize.schemes import tensorrt, weight_only

PLAIN, NEWEST = Style(20, gelu="erf"), Style(23, attention="fused")
METHODS = ("max", "mse")
# (layers, quantized tensors, QuantizeLinear nodes, DequantizeLinear nodes). ModelOpt leaves out
# convolutions of 3 channels in INT8 and of few channels in FP8; weights that unrolled steps share
# are dequantized once; NVFP4 dequantizes its scales too; INT4 takes whole groups of 64 inputs.
PINNED = {
    ("conv", "encode", "int8"): (3, 6, 3, 6),
    ("conv", "encode", "fp8"): (2, 4, 2, 4),
    ("conv", "encode", "int4"): (1, 1, 0, 1),
    ("conv", "encode", "nvfp4"): (2, 2, 0, 4),
    ("vit", "encode", "int8"): (15, 27, 12, 27),
    ("vit", "encode", "fp8"): (15, 27, 12, 27),
    ("vit", "encode", "int4"): (1, 1, 0, 1),
    ("vit", "encode", "nvfp4"): (14, 14, 0, 28),
    ("conv", "forecast", "int8"): (19, 29, 19, 29),
    ("conv", "forecast", "nvfp4"): (15, 8, 0, 16),
}


def style_of(kind: str) -> Style:
    return NEWEST if kind in WEIGHT_ONLY else PLAIN


@pytest.fixture(scope="module")
def made(exports):
    """Quantizations by model, graph and precision, each made once."""

    @cache
    def make(model: str, name: str, kind: str) -> Quantized:
        graph, samples = (
            exports.graph(model, name, style_of(kind)),
            samples_of(exports, model, name, 16),
        )
        if kind in WEIGHT_ONLY:
            return weight_only(graph, kind, samples)
        return tensorrt(graph, kind, samples, methods=METHODS)

    return make


@pytest.mark.parametrize(("model", "name", "kind"), PINNED)
def test_what_is_quantized_is_pinned(made, model, name, kind) -> None:
    found = made(model, name, kind)
    counts = operator_counts(found.model)
    pairs = (counts["QuantizeLinear"], counts["DequantizeLinear"])
    assert (len(found.layers), found.tensors, *pairs) == PINNED[model, name, kind]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize(("model", "name"), [("vit", "encode"), ("conv", "encode")])
def test_products_really_are_quantized(exports, made, model, name, kind) -> None:
    """ModelOpt has been seen to insert nothing into graphs of products alone and say nothing."""
    found, graph = made(model, name, kind), exports.graph(model, name, PLAIN)
    nodes = nodes_of(found.model)
    gemms = [name for name in quantizable(graph) if nodes[name].op_type == "Gemm"]
    assert set(gemms) <= set(found.layers)
    assert check_quantized(found.model, found.layers) == found.tensors
    assert found.share == pytest.approx(
        {
            ("vit", "int8"): 0.940,
            ("vit", "fp8"): 0.940,
            ("conv", "int8"): 0.495,
            ("conv", "fp8"): 0.115,
        }[model, kind],
        abs=1e-3,
    )
    with pytest.raises(EngineError, match=r"left layer '.*' in float"):
        check_quantized(graph, found.layers)


def test_a_coarser_precision_has_a_larger_error(exports, made) -> None:
    samples = samples_of(exports, "vit", "encode", 16)
    graph = exports.graph("vit", "encode", PLAIN)
    expected = quantized.outputs(graph, samples)

    def rounding(compute) -> float:
        half = exports.graph("vit", "encode", PLAIN.computing(compute))
        return quantized.relative_error(quantized.outputs(half, samples), expected)

    fp16, bf16 = rounding("fp16"), rounding("bf16")
    int8, fp8, nvfp4 = (made("vit", "encode", kind).error for kind in ("int8", "fp8", "nvfp4"))
    assert 0 < fp16 < bf16 < int8 < fp8 < nvfp4
    forecast = [made("conv", "forecast", kind).error for kind in ("int8", "nvfp4")]
    assert forecast == sorted(forecast)


def test_the_best_variant_is_chosen_by_measurement(exports, made) -> None:
    found = made("vit", "encode", "int8")
    assert set(found.tried) == {"max", "mse", "max+smooth", "mse+smooth"}
    assert found.tried[found.method] == found.error == min(found.tried.values())
    assert found.method.endswith("+smooth"), "norms behind a ViT are what SmoothQuant is for"
    assert bool(found.recipe.factors)
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 16)
    _, judging = quantized.parted(samples)
    error = quantized.relative_error(
        quantized.outputs(found.model, judging), quantized.outputs(graph, judging)
    )
    assert error == pytest.approx(found.error)


def test_a_method_that_tensorrts_quantizer_lacks_is_left_out_or_refused(exports) -> None:
    graph, samples = (
        exports.graph("conv", "encode", PLAIN),
        samples_of(exports, "conv", "encode", 8),
    )
    found = tensorrt(graph, "int8", samples, methods=["entropy", "max"])
    assert set(found.tried) == {"max"}
    with pytest.raises(UsageError, match="no calibration by entropy; choose max, percentile, mse"):
        tensorrt(graph, "int8", samples, methods=["entropy"])


def test_every_quantized_precision_has_one_scheme_and_needs_its_methods() -> None:
    def usable(backend: str, graph: str, precision: str) -> set[str]:
        return {m for m in METHODS_OF_ALL if not refused(backend, graph, precision, m)}

    def refused(backend: str, graph: str, precision: str, method: str) -> bool:
        try:
            schemes.check_methods(backend, graph, precision, [method])
        except UsageError:
            return True
        return False

    for precision in ("int8", "fp8"):
        assert usable("trt", "forecast", precision) == {"max", "percentile", "mse"}
        assert usable("trt", "imagine_icem_8x2", precision) == {"max", "percentile", "mse"}
    for precision in WEIGHT_ONLY:
        assert usable("trt", "forecast", precision) == set(METHODS_OF_ALL), "no ranges to find"
    assert usable("cpu", "encode", "int8") == {"max", "percentile", "entropy"}
    assert usable("cpu", "imagine_icem_8x2", "int8") == set(METHODS_OF_ALL), "always max"
    served = {p for row in schemes.SCHEMES for p in row.precisions}
    assert served == set(QUANTIZED)


def test_smoothing_is_tried_where_there_are_norms_and_it_is_allowed(exports, made) -> None:
    assert set(made("conv", "encode", "int8").tried) == set(METHODS)
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 8)
    plain = tensorrt(graph, "int8", samples, methods=["max"], smoothing=False)
    assert set(plain.tried) == {"max"}
    assert not plain.recipe.factors


def test_a_layer_can_be_kept_float(exports, made) -> None:
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 8)
    fewer = tensorrt(graph, "int8", samples, methods=["max"], keep_float=["trunk.last.*"])
    kept = [name for name in made("vit", "encode", "int8").layers if name.startswith("trunk.last.")]
    assert len(kept) == 6
    assert len(fewer.layers) == 15 - len(kept)
    with pytest.raises(UsageError, match=r"'trunk\.lost\.\*' matches no layer"):
        tensorrt(graph, "int8", samples, keep_float=["trunk.lost.*"])


@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_a_quantization_ships_in_the_familys_float_format(exports, made, compute) -> None:
    found = made("vit", "encode", "int8")
    half = exports.graph("vit", "encode", PLAIN.computing(compute))
    shipped = rebase(found, half)
    assert (shipped.layers, shipped.tensors, shipped.method) == (
        found.layers,
        found.tensors,
        found.method,
    )
    finished(copy_of(shipped.model), "encode", Sizes.of(exports.model("vit")))
    _, judging = quantized.parted(samples_of(exports, "vit", "encode", 16))
    expected = quantized.outputs(exports.graph("vit", "encode", PLAIN), judging)
    error = quantized.relative_error(quantized.outputs(shipped.model, judging), expected)
    assert error < 2 * found.error
    with pytest.raises(UsageError, match="the CPU's quantization has no recipe"):
        rebase(
            Quantized(half, method="max", layers=(), tensors=0, error=0.0, share=0.0, tried={}),
            half,
        )


def test_the_opset_of_the_family_stays(made) -> None:
    """TensorRT 10.3 parses up to opset 20, and ModelOpt raises it where it sees fit."""
    for key in PINNED:
        expected = style_of(key[2]).opset
        assert [opset.version for opset in made(*key).model.opset_import] == [expected]


def fake_modelopt(monkeypatch, change) -> None:
    """ModelOpt's place taken by a function from the graph and the layers to a graph."""

    def quantize_(path, *, nodes_to_quantize, output_path, **options) -> None:
        onnx.save(change(onnx.load(path), nodes_to_quantize), output_path)

    monkeypatch.setattr(vendor, "_modelopt", lambda: quantize_)


def placed(model: onnx.ModelProto, layers: list[str]) -> onnx.ModelProto:
    """Pairs around the first two layers, and an opset that no Jetson of JetPack 6 parses."""
    model.opset_import[0].version = 23
    nodes = nodes_of(model)
    for name in layers[:2]:
        model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s"], [f"{name}.dq"]))
        nodes[name].input[0] = f"{name}.dq"
    return model


def test_only_the_placement_of_modelopt_is_used(exports, monkeypatch) -> None:
    fake_modelopt(monkeypatch, placed)
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 8)
    found = tensorrt(graph, "int8", samples, methods=["max"], smoothing=False)
    assert found.layers == tuple(quantizable(graph)[:2])
    assert found.model.opset_import[0].version == 20
    assert found.tensors == 4


def test_a_modelopt_that_quantizes_nothing_is_caught(exports, monkeypatch) -> None:
    fake_modelopt(monkeypatch, lambda model, layers: model)
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 4)
    with pytest.raises(EngineError, match="ModelOpt quantized none of the 15 layers of") as caught:
        tensorrt(graph, "fp8", samples, methods=["max"])
    assert "\n" not in str(caught.value)


def test_the_cpus_quantizer_works_after_modelopt(exports) -> None:
    """ModelOpt replaces parts of ONNX Runtime's quantizer, with which `cpu-int8` then failed."""
    graph, samples = exports.graph("conv", "encode"), samples_of(exports, "conv", "encode", 8)
    before = schemes.cpu_int8(graph, samples)
    tensorrt(graph, "int8", samples, methods=["max"])
    after = schemes.cpu_int8(graph, samples)
    assert after.model.SerializeToString() == before.model.SerializeToString()
    assert after.tried == before.tried


def test_without_modelopt_the_extra_is_named(exports, monkeypatch) -> None:
    for name in ("modelopt", "modelopt.onnx.quantization"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingDependency, match=r"jetsight\[quantize\]"):
        vendor.check_modelopt()
    graph, samples = exports.graph("vit", "encode", PLAIN), samples_of(exports, "vit", "encode", 4)
    with pytest.raises(MissingDependency, match=r"jetsight\[quantize\]"):
        tensorrt(graph, "int8", samples, methods=["max"])
    assert weight_only(graph, "nvfp4", samples).layers, "which needs no ModelOpt"


def test_weights_that_are_not_in_groups_stay_float(exports, made) -> None:
    found = made("vit", "encode", "int4")
    assert found.layers == ("trunk.embed/Gemm",)
    nodes = nodes_of(made("conv", "encode", "nvfp4").model)
    assert all(attribute_of(n, "group") != 0 for n in nodes.values() if n.op_type == "Conv")
    assert all("dq" not in n.input[1] for n in nodes.values() if n.op_type == "Conv")
    with pytest.raises(UsageError, match="no layer of graph 'forecast' has inputs in groups of 64"):
        weight_only(
            exports.graph("conv", "forecast", NEWEST),
            "int4",
            samples_of(exports, "conv", "forecast", 4),
        )


def test_a_library_that_rewrites_the_graph_does_not_judge_it(exports) -> None:
    """onnxruntime moves FP8 pairs past a ReLU and computes something else; why `outputs` forbids
    it to rewrite. If this fails, the library was mended and the option `optimise` can go.
    """
    graph, samples = (
        exports.graph("conv", "encode", PLAIN),
        samples_of(exports, "conv", "encode", 8),
    )
    layers = tuple(quantizable(graph))
    reads = {name: nodes_of(graph)[name].input[0] for name in layers}
    seen = ranges.collect(graph, reads.values(), samples)
    recipe = qdq.QuantizationRecipe(
        "fp8", layers, {n: seen[value].amax for n, value in reads.items()}
    )
    model, expected = qdq.written(graph, recipe), quantized.outputs(graph, samples)
    as_written = quantized.outputs(model, samples)
    rewritten = run_all(OnnxRuntimeBackend(), model.SerializeToString(), samples)
    assert quantized.relative_error(as_written, expected) < 0.03
    assert quantized.relative_error(rewritten, expected) > 0.3


@pytest.mark.parametrize("kind", ["int8", "nvfp4"])
def test_the_float_graph_is_not_touched(exports, made, kind) -> None:
    graph = exports.graph("vit", "encode", style_of(kind))
    again = exports.graph("vit", "encode", style_of(kind)).SerializeToString()
    made("vit", "encode", kind)
    assert graph.SerializeToString() == again
    assert not any("Linear" in node.op_type for node in graph.graph.node)
    assert np.isfinite(quantized.outputs(graph, samples_of(exports, "vit", "encode", 1))).all()
