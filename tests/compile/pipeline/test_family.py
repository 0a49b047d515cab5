"""From a plan to the graphs of a family: what is shared, what ships, what is refused."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import pytest
from helpers.compile.probes import nodes_of, samples_of, tensors_of, windows_of
from helpers.compile.tiny_model import LATENT
from onnx import TensorProto

from jetsight.errors import UsageError
from jetsight_compile.calibration.data import Episodes, Side
from jetsight_compile.config.targets import FamilyPlan, plan
from jetsight_compile.export.onnx_export import Sizes, check_graph, operator_counts
from jetsight_compile.export.onnx_graph import quantizable
from jetsight_compile.pipeline import family
from jetsight_compile.pipeline.family import FamilyBuilder, FamilyGraphs, Options
from jetsight_compile.pipeline.family import samples_of as calibration_samples
from jetsight_compile.pipeline.family_passes import export_family, quantize_family
from jetsight_compile.quantize import mixed_precision, schemes, vendor

TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def episodes_of(exports, kind: str) -> Episodes:
    """Calibration data that was never recorded; nothing here is about its content."""
    frames = np.stack([s["frame_hwc_u8"] for s in samples_of(exports, kind, "encode", 16)])
    side = Side(frames, np.zeros((16, LATENT), np.float32), windows_of(16), cast(Any, None))
    return Episodes(side, side)


def make(builder: FamilyBuilder, plan: FamilyPlan) -> FamilyGraphs:
    return quantize_family(builder, export_family(builder, plan))


class Bench:
    """Builders over the shared exports; their messages are kept."""

    def __init__(self, exports) -> None:
        self._exports = exports
        self.said: list[str] = []

    def __call__(self, kind: str = "conv", **options) -> FamilyBuilder:
        options.setdefault("methods", ("max",))
        self.said.clear()
        return FamilyBuilder(
            self._exports.model(kind),
            episodes_of(self._exports, kind),
            Options(**options),
            self.said.append,
        )


@pytest.fixture
def builder_of(exports, monkeypatch) -> Bench:
    def exporter(name: str):
        kinds = {id(exports.model(kind)): kind for kind in ("conv", "vit")}
        return lambda model, style: exports.graph(kinds[id(model)], name, style)

    for name in family.EXPORTS:
        monkeypatch.setitem(family.EXPORTS, name, exporter(name))
    monkeypatch.setattr(
        vendor, "modelopt_placement", lambda graph, kind, layers, samples: tuple(layers)
    )
    return Bench(exports)


def types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def test_a_float_family_is_its_exports(exports, builder_of) -> None:
    (each,) = plan(["orin-jp6"], ["fp16"])
    made = make(builder_of(), each)
    assert made.precision == {"encode": "fp16", "forecast": "fp16"}
    assert made.quantized == {}
    assert made.trials == ()
    for name, graph in made.graphs.items():
        assert graph is exports.graph("conv", name, each.style)
        assert TYPES["fp16"] in types(graph)
        assert made.exact[name] is exports.graph("conv", name, each.style.computing("fp32"))
        assert not types(made.exact[name]) & {TYPES["fp16"], TYPES["bf16"]}


def test_each_graph_has_its_own_precision(exports, builder_of) -> None:
    (each,) = plan(["orin-jp6"], ["encode=fp16,forecast=int8"])
    made = make(builder_of(), each)
    assert each.name == "trt-op20-fp16-int8"
    assert operator_counts(made.graphs["encode"])["QuantizeLinear"] == 0
    assert operator_counts(made.graphs["forecast"])["QuantizeLinear"] == 19
    assert list(made.quantized) == ["forecast"]
    assert types(made.graphs["forecast"]) >= {TYPES["fp16"], TensorProto.INT8}
    sizes = Sizes.of(exports.model("conv"))
    for name, graph in made.graphs.items():
        check_graph(graph, name, sizes)
        assert graph.opset_import[0].version == 20


def test_what_a_quantization_leaves_float_is_in_the_base(builder_of) -> None:
    bench = builder_of("vit")
    for base in ("fp16", "bf16"):
        (each,) = plan(["orin-jp6"], ["encode=int8,forecast=fp32"], base)
        made = make(bench, each)
        found = types(made.graphs["encode"])
        assert found >= {TYPES[base], TensorProto.INT8}
        assert not found & {TYPES[other] for other in ("fp16", "bf16") if other != base}
        assert not types(made.graphs["forecast"]) & {TYPES["fp16"], TYPES["bf16"]}


def test_exports_and_quantizations_are_made_once(builder_of) -> None:
    bench = builder_of()
    wanted = plan(["orin-jp6"], ["fp16", "int8", "encode=fp16,forecast=int8"])
    for each in wanted:
        make(bench, each)
    assert len(builder_of.said) == len(set(builder_of.said))
    assert [line for line in builder_of.said if line.startswith("quantize")] == [
        "quantize encode for trt-op20-int8",
        "quantize forecast for trt-op20-int8",
    ]
    assert (
        sum(line.startswith("export") for line in builder_of.said) == 4
    )  # two graphs, fp32 and fp16


def test_the_cpus_int8_is_another_one(builder_of) -> None:
    bench = builder_of()
    made = {each.name: make(bench, each) for each in plan(["cpu", "orin-jp6"], ["int8"])}
    cpu, orin = (made[name].quantized["encode"] for name in ("cpu-int8", "trt-op20-int8"))
    assert cpu.recipe is None
    assert orin.recipe is not None
    assert TensorProto.UINT8 in types(made["cpu-int8"].graphs["encode"])
    assert TensorProto.UINT8 not in types(made["trt-op20-int8"].graphs["encode"])


def test_a_family_does_not_depend_on_what_was_made_before(builder_of) -> None:
    wanted = plan(["orin-jp6"], ["int8", "fp16"])
    bench, other = builder_of(), builder_of()
    first = {each.name: make(bench, each) for each in wanted}
    second = {each.name: make(other, each) for each in reversed(wanted)}
    for name, made in first.items():
        for graph in made.graphs:
            bytes_ = made.graphs[graph].SerializeToString()
            assert bytes_ == second[name].graphs[graph].SerializeToString()


def test_a_pattern_is_about_the_graph_it_fits(exports, builder_of) -> None:
    (each,) = plan(["orin-jp6"], ["int8"])
    made = make(builder_of(keep_float=["trunk.out/*", "last.*"]), each)
    encode, forecast = (made.quantized[name].layers for name in family.EXPORTS)
    graph = exports.graph("conv", "encode", each.style.computing("fp32"))
    assert set(quantizable(graph)) - set(encode) == {"trunk.out/Gemm"}
    assert not any("last." in name for name in forecast)
    with pytest.raises(UsageError, match=r"'trunk\.lost/\*' matches no layer"):
        make(builder_of(keep_float=["trunk.lost/*"]), each)


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_auto_searches_what_the_model_has_a_form_for(
    exports, builder_of, monkeypatch, kind
) -> None:
    tasks: dict[str, mixed_precision.Task] = {}

    def choose(task: mixed_precision.Task) -> mixed_precision.PrecisionChoice:
        tasks[task.graph] = task
        if task.graph == "encode":
            return mixed_precision.PrecisionChoice("fp32", None, ())
        made = schemes.tensorrt(task.export("fp32"), "int8", task.samples, methods=("max",))
        return mixed_precision.PrecisionChoice("int8", made, ())

    monkeypatch.setattr(mixed_precision, "choose", choose)
    (each,) = plan(["orin-jp6"], ["auto"])
    made = make(builder_of(kind, keep_float=["last.*"]), each)
    assert made.precision == {"encode": "fp32", "forecast": "int8"}
    assert not types(made.graphs["encode"]) & {TYPES["fp16"], TensorProto.INT8}
    assert types(made.graphs["forecast"]) >= {TYPES["fp16"], TensorProto.INT8}
    assert tasks["forecast"].allowed == ("fp32", "fp16", "bf16", "int8")
    # ONNX has no bfloat16 convolution in opset 20.
    assert ("bf16" in tasks["encode"].allowed) == (kind == "vit")
    assert tasks["forecast"].query is not None
    assert tasks["encode"].query is None
    assert tasks["encode"].module.name == "Orin Nano 4GB"
    assert (tasks["encode"].keep_float, tasks["forecast"].keep_float) == ([], ["last.*"])


def test_a_convolution_in_bfloat16_is_refused_where_onnx_has_none(builder_of) -> None:
    (each,) = plan(["orin-jp6"], ["bf16"])
    with pytest.raises(UsageError, match=r"from opset 22.*--precision encode=fp16,forecast=bf16"):
        make(builder_of(), each)


def test_calibration_inputs_are_spread_over_the_episodes(exports) -> None:
    side = episodes_of(exports, "conv").calibration
    found = calibration_samples(side)
    assert len(found["encode"]) == 16
    assert len(found["forecast"]) == 16
    np.testing.assert_array_equal(found["encode"][3]["frame_hwc_u8"], side.frames_u8[3])
    assert set(found["forecast"][0]) == {"z_hist", "a_hist", "actions"}


def test_quantized_layers_read_quantized_numbers(builder_of) -> None:
    (each,) = plan(["orin-jp6"], ["int8"])
    made = make(builder_of(), each)
    for name, found in made.quantized.items():
        nodes = nodes_of(made.graphs[name])
        makers = {v: n for n in made.graphs[name].graph.node for v in n.output}
        for layer in found.layers:
            kinds = [makers[value].op_type for value in nodes[layer].input[:2]]
            assert kinds == ["DequantizeLinear"] * 2
        assert tensors_of(made.graphs[name])
