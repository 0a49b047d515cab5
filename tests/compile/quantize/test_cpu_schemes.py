from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers.compile.probes import samples_of
from onnx import numpy_helper

from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight_compile.config.precision import CPU_METHODS
from jetsight_compile.export.onnx_export import Sizes, check_graph
from jetsight_compile.export.onnx_graph import check_quantized, quantizable
from jetsight_compile.quantize import quantized
from jetsight_compile.quantize.schemes import cpu_int8


@pytest.fixture(scope="module")
def encoded(exports) -> quantized.Quantized:
    return cpu_int8(exports.graph("conv", "encode"), samples_of(exports, "conv", "encode"))


@pytest.fixture(scope="module")
def forecast(exports) -> quantized.Quantized:
    samples = samples_of(exports, "conv", "forecast")
    return cpu_int8(exports.graph("conv", "forecast"), samples, methods=["max"])


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_every_weighted_layer_is_quantized_and_little_is_lost(exports, encoded, forecast) -> None:
    assert len(encoded.layers) == 4  # two convolutions, two Gemms
    # 3 of the action embedding stay float; 1 makes the modulations, 10 a step, of two steps.
    assert len(forecast.layers) == 1 + 2 * 9
    assert encoded.error < 1e-2
    assert forecast.error < 1e-2
    for made in (encoded, forecast):
        nodes = {node.name: node for node in made.model.graph.node}
        kept = [n for name, n in nodes.items() if name.startswith("action_embedding")]
        assert all("Dequantize" not in value for node in kept for value in node.input)


def test_quantized_graphs_keep_their_promises(exports, encoded, forecast) -> None:
    sizes = Sizes.of(exports.model("conv"))
    check_graph(encoded.model, "encode", sizes)
    check_graph(forecast.model, "forecast", sizes)
    assert b".onnx" not in encoded.model.SerializeToString()


def test_weights_leave_a_bit_for_cpus_without_vnni(encoded, forecast) -> None:
    """u8 * s8 pairs are added in 16 bits there: 2 * 255 * 64 still fits, 2 * 255 * 127 does not."""
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127
    for made in (encoded, forecast):
        weights = [
            w for w in initializers(made.model).values() if w.dtype == np.int8 and w.ndim > 1
        ]
        assert weights
        assert all(np.abs(w.astype(int)).max() in (63, 64) for w in weights)


def test_ranges_cover_everything_that_was_shown(exports) -> None:
    """More samples than one stride: an early, large one must count (it once did not)."""
    samples = samples_of(exports, "conv", "encode", 80)
    samples[0]["frame_hwc_u8"][...] = 255
    for sample in samples[1:]:
        sample["frame_hwc_u8"] //= 4
    model = cpu_int8(exports.graph("conv", "encode"), samples, methods=["max"]).model
    makers = {value: node for node in model.graph.node for value in node.output}
    (first,) = (node for node in model.graph.node if node.name == "trunk.layers.0/Conv")
    scale = initializers(model)[makers[first.input[0]].input[1]]
    # from (0 - mean) to (255 - mean): the range of one channel is 255, of the three 255 + spread
    assert 255 / 255 <= scale <= 300 / 255


def test_the_best_method_is_chosen_by_measurement(exports, encoded) -> None:
    graph, samples = exports.graph("conv", "encode"), samples_of(exports, "conv", "encode")
    errors = {m: cpu_int8(graph, samples, methods=[m]).error for m in CPU_METHODS}
    assert encoded.error == pytest.approx(min(errors.values()))
    assert errors[encoded.method] == pytest.approx(encoded.error)
    assert max(errors.values()) > min(errors.values())


def test_a_layer_can_be_kept_float(exports, encoded) -> None:
    graph, samples = exports.graph("conv", "encode"), samples_of(exports, "conv", "encode", 8)
    made = cpu_int8(graph, samples, methods=["max"], keep_float=["trunk.layers.0/*"])
    assert len(made.layers) == len(encoded.layers) - 1
    nodes = {node.name: node for node in made.model.graph.node}
    assert "trunk.layers.0.weight" in nodes["trunk.layers.0/Conv"].input


def test_a_pattern_means_every_unrolled_step(exports) -> None:
    graph = exports.graph("conv", "forecast")
    left = quantizable(graph, ["blocks.0.qkv/*"])
    assert len(left) == 19 - 2
    assert len(quantizable(graph, ["step1/blocks.0.qkv/*"])) == 19 - 1


def test_patterns_that_fit_nothing_and_leave_nothing_are_refused(exports) -> None:
    graph = exports.graph("conv", "encode")
    with pytest.raises(UsageError, match=r"'trunk\.laeyrs.*' matches no layer; layers are"):
        quantizable(graph, ["trunk.laeyrs.0/*"])
    with pytest.raises(UsageError, match="no layer is left to quantize"):
        quantizable(graph, ["*"])


def test_resizing_is_never_quantized(exports) -> None:
    graph = exports.graph("vit-resize", "encode")
    assert any(node.name.startswith("pixels/MatMul") for node in graph.graph.node)
    assert not any(name.startswith("pixels") for name in quantizable(graph))


def test_a_quantizer_that_did_nothing_is_caught(exports, encoded) -> None:
    graph = exports.graph("conv", "encode")
    with pytest.raises(EngineError, match=r"left layer 'trunk\.layers\.0/Conv' in float"):
        check_quantized(graph, quantizable(graph))
    assert check_quantized(encoded.model, quantizable(graph)) == encoded.tensors == 8


def test_the_float_graph_is_not_touched(exports) -> None:
    graph = exports.graph("conv", "encode")
    before = graph.SerializeToString()
    cpu_int8(graph, samples_of(exports, "conv", "encode", 8), methods=["max"])
    assert graph.SerializeToString() == before


def test_missing_onnxruntime_names_its_extra(exports, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    graph, samples = exports.graph("conv", "encode"), samples_of(exports, "conv", "encode", 4)
    with pytest.raises(MissingDependency, match=r"jetsight\[c"):
        cpu_int8(graph, samples, methods=["max"])


def test_a_method_that_the_cpus_quantizer_lacks_is_left_out_or_refused(exports, encoded) -> None:
    graph, samples = exports.graph("conv", "encode"), samples_of(exports, "conv", "encode", 8)
    made = cpu_int8(graph, samples, methods=["mse", "max"])
    assert set(made.tried) == {"max"}
    with pytest.raises(UsageError, match="no calibration by mse; choose max, percentile, entropy"):
        cpu_int8(graph, samples, methods=["mse"])


def test_a_result_that_is_no_number_is_the_worst_of_all() -> None:
    """min() would keep a NaN that comes first, and a search would then call it the best."""
    expected = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    broken = expected.copy()
    broken[3] = np.nan
    assert quantized.relative_error(broken, expected) == np.inf
    assert quantized.relative_error(broken * np.inf, expected) == np.inf
    assert quantized.relative_error(expected, expected) == 0.0
    assert quantized.relative_error(-expected, expected) == pytest.approx(4.0, rel=0.2)


def test_what_judges_has_not_calibrated() -> None:
    samples = [{"x": np.array(i)} for i in range(10)]
    calibrating, judging = quantized.parted(samples)
    assert [int(s["x"]) for s in judging] == [3, 7]
    assert [int(s["x"]) for s in calibrating] == [0, 1, 2, 4, 5, 6, 8, 9]
