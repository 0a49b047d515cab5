"""Quantized planners as TensorRT takes them: every chosen product is an integer or FP8 product."""

from __future__ import annotations

import importlib.util

import onnx
import pytest
from helpers.compile import tensorrt_rtx
from helpers.compile.planner_world import imagining_model
from helpers.compile.probes import copy_of, makers_of, nodes_of, windows_of

from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import finished
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_compile.quantize import quantized, schemes, vendor
from jetsight_train.planning.problem import ImagineSpec

SPEC = ImagineSpec("icem", 12, 2, 4, kept=1, momentum=0.1, context=2)
# As in `targets`: JetPack 6 and what came after.
STYLES = {"op20": Style(20, gelu="erf"), "op23": Style(23, attention="fused")}
needs_rtx = pytest.mark.skipif(
    not importlib.util.find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)


@pytest.fixture(scope="module")
def model():
    return imagining_model()


def family(model, style: Style, kind: str) -> tuple[onnx.ModelProto, quantized.Quantized]:
    """A planner's graph in float16, quantized as its family ships it."""
    exact, half = (PlannerExporter(model, s).export(SPEC) for s in (style, style.computing("fp16")))
    samples = imagine_samples(windows_of(16), SPEC, model, most=4)
    made = schemes.tensorrt(exact, kind, samples, methods=("max",), smoothing=False)
    made = quantized.rebase(made, half)
    return finished(made.model, SPEC.graph, ImaginePorts.of(model, SPEC)), made


@needs_rtx
@pytest.mark.parametrize(
    ("style", "kind"),
    [
        ("op20", "int8"),
        pytest.param("op20", "fp8", marks=pytest.mark.slow),
        pytest.param("op23", "int8", marks=pytest.mark.slow),
        pytest.param("op23", "fp8", marks=pytest.mark.slow),
    ],
)
def test_tensorrt_compiles_a_quantized_planner(model, monkeypatch, style, kind) -> None:
    monkeypatch.setattr(vendor, "modelopt_placement", lambda g, k, layers, s: tuple(layers))
    graph, made = family(model, STYLES[style], kind)
    assert not any("project" in name for name in made.layers)
    built = tensorrt_rtx.build(graph.SerializeToString())
    count = len(made.layers)
    assert count > 40
    assert (built.quantized, built.weight_only) == (count, 0)
    assert set(built.inputs) == set(ImaginePorts.of(model, SPEC).inputs())
    if (style, kind) == ("op23", "int8"):
        lost = tensorrt_rtx.build(unquantized(graph, made.layers[0]).SerializeToString())
        assert lost.quantized == count - 1, "the control: a layer that lost its Q/DQ"


def unquantized(graph: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    copy = copy_of(graph)
    node = nodes_of(copy)[layer]
    makers = makers_of(copy)
    node.input[0] = makers[makers[node.input[0]].input[0]].input[0]
    return copy


@pytest.mark.slow
def test_modelopt_places_every_product_of_a_planner(model) -> None:
    pytest.importorskip("modelopt")
    exact = PlannerExporter(model, STYLES["op23"]).export(SPEC)
    layers = quantizable(exact)
    samples = imagine_samples(windows_of(16), SPEC, model, most=1)
    assert vendor.modelopt_placement(exact, "int8", layers, samples) == tuple(layers)
