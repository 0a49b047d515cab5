from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from helpers.compile.tiny_model import POINTS, model_of
from onnx import helper

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError, UsageError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.export import onnx_export
from jetsight_compile.export.encoder import Centre, EncodeGraph
from jetsight_compile.export.layers import Affine, Attention, Style
from jetsight_compile.export.onnx_export import Sizes, check_graph, export_encode, operator_counts
from jetsight_compile.export.predictor import ForecastGraph

KINDS = ("conv", "vit", "conv-resize", "vit-resize")
ROUNDING = 2e-5
STYLES = {
    "cpu": Style(20),
    "trt-op20-fp16": Style(20, gelu="erf", compute="fp16"),
    "trt-op23-fp32": Style(23, attention="fused"),
    "trt-op23-fp16": Style(23, attention="fused", compute="fp16"),
}


def random_frame(model) -> np.ndarray:
    shape = (model.frame.height_px, model.frame.width_px, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def random_window(model) -> dict[str, np.ndarray]:
    rng, size = np.random.default_rng(2), Sizes.of(model)
    return {
        "z_hist": rng.standard_normal((size.K, size.D)).astype(np.float32),
        "a_hist": rng.uniform(-3, 3, (size.K - 1, size.A)).astype(np.float32),
        "actions": rng.uniform(-3, 3, (size.H, size.A)).astype(np.float32),
    }


@torch.inference_mode()
def naive_encode(model, frame: np.ndarray) -> np.ndarray:
    return model.encode(torch.from_numpy(frame)[None])[0].numpy()


@torch.inference_mode()
def naive_rollout(model, window: dict[str, np.ndarray]) -> np.ndarray:
    return model.rollout(*(torch.from_numpy(x)[None] for x in window.values()))[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_rewritten_modules_equal_the_naive_model(exports, kind) -> None:
    model = exports.model(kind)
    frame, window = random_frame(model), random_window(model)
    with torch.inference_mode():
        z = EncodeGraph(model, Style(20))(torch.from_numpy(frame)).numpy()
        inputs = [torch.from_numpy(x) for x in window.values()]
        future = ForecastGraph(model, Style(20))(*inputs).numpy()
    np.testing.assert_allclose(z, naive_encode(model, frame), atol=ROUNDING)
    np.testing.assert_allclose(future, naive_rollout(model, window), atol=ROUNDING)


@pytest.mark.parametrize(
    "forgotten",
    [
        "preprocess.offset",
        "encoder.class_token",
        "encoder.positions",
        "encoder.projector.norm",
        "encoder.norm",
        "encoder.blocks.0.qkv",
        "encoder.blocks.0.norm_attention",
        "encoder.blocks.1.norm_mlp",
        "predictor.norm",
        "predictor.positions",
        "predictor.project.up",
        "predictor.blocks.0.attention.norm",
        "predictor.blocks.1.mlp.0",
        "predictor.actions.code",
        "predictor.blocks.1.modulation.1",
        "predictor.project.norm",
        "action_mean",
        "action_std",
    ],
)
def test_a_rewrite_that_forgot_a_weight_would_be_seen(forgotten) -> None:
    """The control of the equality above: each folded weight moves the outputs by far more."""
    whole, changed = model_of(vit=True, projector=24), model_of(vit=True, projector=24)
    found = [
        tensor
        for name, tensor in (*changed.named_parameters(), *changed.named_buffers())
        if name.startswith(forgotten) and tensor.is_floating_point() and "weight" not in name
    ]
    assert found
    for tensor in found:
        tensor.data += 0.2 * torch.rand_like(tensor)
    frame, window = random_frame(whole), random_window(whole)
    moved = max(
        np.abs(naive_encode(whole, frame) - naive_encode(changed, frame)).max(),
        np.abs(naive_rollout(whole, window) - naive_rollout(changed, window)).max(),
    )
    assert moved > 20 * ROUNDING


@pytest.mark.parametrize("hidden", [32, 0])
def test_an_encoder_that_finds_points_is_compiled_too(hidden) -> None:
    model = model_of(conv=replace(POINTS, hidden=hidden))
    frame = random_frame(model)
    expected = naive_encode(model, frame)
    with torch.inference_mode():
        z = EncodeGraph(model, Style(20))(torch.from_numpy(frame)).numpy()
    np.testing.assert_allclose(z, expected, atol=ROUNDING)
    graph = export_encode(model, Style(20)).SerializeToString()
    z = run_all(OnnxRuntimeBackend(), graph, [{"frame_hwc_u8": frame}])[0]
    np.testing.assert_allclose(z, expected, atol=ROUNDING)
    model.encoder.read.score.weight.data *= 1.5
    assert np.abs(naive_encode(model, frame) - expected).max() > 20 * ROUNDING


def test_a_half_precision_encoder_takes_off_the_exact_mean_colour(exports) -> None:
    """The control rounds the mean as well: then whole backgrounds are off, all in one direction."""
    graph = exports.graph("conv", "encode", Style(20).computing("fp16"))
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert types["trunk.centre.mean_px"] == onnx.TensorProto.FLOAT
    assert types["trunk.layers.0.weight"] == onnx.TensorProto.FLOAT16
    centre = Centre(exports.model("conv").preprocess)
    grey = torch.arange(256.0)[None, None].expand(3, 1, 256)
    exact = grey.double() - centre.mean_px
    found = centre(grey.half())
    rounded_twice = grey.half() - centre.mean_px.half()
    assert found.dtype == torch.float16
    assert torch.equal(found, exact.half())  # one rounding, the last
    assert not torch.equal(rounded_twice, exact.half())


@pytest.mark.parametrize("kind", ["conv", "vit", "vit-resize"])
def test_onnx_equals_pytorch(exports, kind) -> None:
    model, runtime = exports.model(kind), OnnxRuntimeBackend()
    frame, window = random_frame(model), random_window(model)
    encode = exports.graph(kind, "encode").SerializeToString()
    z = run_all(runtime, encode, [{"frame_hwc_u8": frame}])[0]
    np.testing.assert_allclose(z, naive_encode(model, frame), atol=ROUNDING)
    if kind == "vit-resize":
        return  # its forecast is vit's
    future = run_all(runtime, exports.graph(kind, "forecast").SerializeToString(), [window])[0]
    np.testing.assert_allclose(future, naive_rollout(model, window), atol=ROUNDING)


@pytest.mark.parametrize("family", ["trt-op20-fp16", "trt-op23-fp32", "trt-op23-fp16"])
def test_tensorrt_families_compute_the_same(exports, family) -> None:
    """Through ONNX Runtime, which knows both opsets; float16 rounds, and only that."""
    model, style, runtime = exports.model("vit"), STYLES[family], OnnxRuntimeBackend()
    frame, window = random_frame(model), random_window(model)
    atol = 2e-2 if style.compute == "fp16" else ROUNDING
    encode = exports.graph("vit", "encode", style)
    z = run_all(runtime, encode.SerializeToString(), [{"frame_hwc_u8": frame}])[0]
    np.testing.assert_allclose(z, naive_encode(model, frame), atol=atol)
    weights = {t.data_type for t in encode.graph.initializer if len(t.dims) > 1}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert weights == {half if style.compute == "fp16" else single}
    if family == "trt-op23-fp16":
        forecast = exports.graph("vit", "forecast", style)
        future = run_all(runtime, forecast.SerializeToString(), [window])[0]
        np.testing.assert_allclose(future, naive_rollout(model, window), atol=atol)


@pytest.mark.parametrize("opset", [20, 23])
def test_bytes_reach_bfloat16_by_way_of_float32(exports, opset) -> None:
    """TensorRT documents casts of uint8 to float32 and float16 alone; exporters join two casts."""
    graph = onnx.ModelProto()
    graph.CopyFrom(exports.graph("vit", "encode", Style(opset, gelu="erf", compute="bf16")))
    sizes = Sizes.of(exports.model("vit"))
    single, bfloat = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16
    casts = [node.attribute[0].i for node in graph.graph.node if node.op_type == "Cast"]
    assert casts == [single, bfloat, single]
    wide = next(node for node in graph.graph.node if node.input[0] == "frame_hwc_u8")
    (narrow,) = (node for node in graph.graph.node if wide.output[0] in node.input)
    narrow.input[0] = "frame_hwc_u8"
    graph.graph.node.remove(wide)
    with pytest.raises(EngineError, match="casts uint8 pixels to bfloat16"):  # negative control
        check_graph(graph, "encode", sizes)
    again = onnx_export.finished(graph, "encode", sizes)  # as after a quantizer that joins them
    assert operator_counts(again)["Cast"] == 3


def test_what_the_exporter_makes_is_pinned(exports) -> None:
    """A change here is a change of speed on some backend: look before you update it."""
    once = dict.fromkeys(("Cast", "Transpose", "Sub", "Unsqueeze"), 1)
    counts = {**once, "Conv": 2, "Relu": 3, "Reshape": 2, "Gemm": 2}
    assert operator_counts(exports.graph("conv", "encode")) == counts
    vit = operator_counts(exports.graph("vit", "encode"))
    # 1 embedding, 6 per block (q, k, v, out, up, down), 2 of the projector
    assert vit["Gemm"] == 1 + 2 * 6 + 2
    assert vit["LayerNormalization"] == 2 * 2 + 1
    forecast = operator_counts(exports.graph("conv", "forecast"))
    # 3 embedding the action, 1 for all modulations, then per step 4 + 5 for the two blocks + head
    assert forecast["Gemm"] == 4 + 2 * (4 + 5 + 1)
    assert (forecast["Gather"], forecast["Div"], forecast["Sigmoid"]) == (1, 1, 2)


def test_operators_follow_the_style(exports) -> None:
    parts = operator_counts(exports.graph("vit", "encode"))
    assert (parts["Attention"], parts["Softmax"], parts["Gelu"]) == (0, 2, 3)
    fused = operator_counts(exports.graph("vit", "encode", STYLES["trt-op23-fp32"]))
    # Of the last block one query is left, for which TensorRT has no fused kernel.
    assert (fused["Attention"], fused["Softmax"], fused["Gelu"]) == (1, 1, 3)
    old = operator_counts(exports.graph("vit", "encode", STYLES["trt-op20-fp16"]))
    assert (old["Attention"], old["Gelu"], old["Erf"]) == (0, 0, 3)
    forecast = operator_counts(exports.graph("vit", "forecast", STYLES["trt-op23-fp16"]))
    assert (forecast["Attention"], forecast["Softmax"]) == (0, 4)


def test_weights_are_shared_by_all_steps(exports) -> None:
    """Unrolling copies nodes, never weights."""
    forecast = exports.graph("conv", "forecast")
    names = [t.name for t in forecast.graph.initializer]
    assert len(names) == len(set(names))
    read = [v for n in forecast.graph.node if n.name.startswith("step1/") for v in n.input]
    assert "step/blocks.0.qkv.weight" in read
    assert not any(name.startswith(("step0/", "step1/")) for name in names)


def test_graphs_say_nothing_about_who_made_them(exports) -> None:
    for name in ("encode", "forecast"):
        data = exports.graph("vit", name).SerializeToString()
        for trace in (b"/home", b"/work", b".py", b"torch", b"stack_trace", b"namespace"):
            assert trace not in data
        nodes = [node.name for node in exports.graph("vit", name).graph.node]
        assert len(nodes) == len(set(nodes))
    assert any(
        n.name == "trunk.blocks.0.mlp.up/Gemm" for n in exports.graph("vit", "encode").graph.node
    )


def test_exporting_twice_gives_the_same_bytes(exports) -> None:
    # Of one model: a new one differs in the last bits once a test has changed torch's threads.
    again = onnx_export.export_encode(exports.model("conv"), Style(20))
    assert again.SerializeToString() == exports.graph("conv", "encode").SerializeToString()


def rebuilt(exports, change) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(exports.graph("conv", "encode"))
    change(model)
    return model


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "latent"


def read_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Transpose", ["frame_hwc_u8"], ["extra"], name="T"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.graph.node.append(helper.make_node("Shape", ["z"], ["s"])), "a Shape node"),
        (
            lambda m: m.graph.node.append(helper.make_node("Gelu", ["z"], ["s"], domain="com.me")),
            "domain 'com.me'",
        ),
        (rename_output, "inputs or outputs .*latent"),
        (read_twice, "feeds uint8 pixels to"),
        (
            lambda m: m.graph.initializer[0].external_data.add(key="location", value="../w"),
            "external data",
        ),
    ],
    ids=["shape arithmetic", "custom domain", "other output", "no cast first", "external data"],
)
def test_a_graph_some_backend_could_not_run_is_refused(exports, change, says) -> None:
    sizes = Sizes.of(exports.model("conv"))
    check_graph(rebuilt(exports, lambda model: None), "encode", sizes)
    with pytest.raises(EngineError, match=says):
        check_graph(rebuilt(exports, change), "encode", sizes)


def test_an_unknown_encoder_has_no_compiled_form() -> None:
    model = model_of()
    model.encoder = torch.nn.Flatten()
    with pytest.raises(UsageError, match=r"no compiled form for Flatten; expected ConvEncoder"):
        EncodeGraph(model, Style(20))


def test_attention_forms_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(5, 6, generator=generator) for _ in range(3))
    parts, fused = (Attention(2, Style(23, attention=form)) for form in ("parts", "fused"))
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.view(5, 2, 3).transpose(0, 1) for x in (q, k, v)), scale=1.0
    )
    expected = expected.transpose(0, 1).reshape(5, 6)
    for form in (parts, fused):
        torch.testing.assert_close(form(q, k, v), expected)


def test_folding_needs_running_statistics() -> None:
    norm = torch.nn.BatchNorm1d(3, track_running_stats=False)
    with pytest.raises(ValueError, match="running statistics"):
        Affine(torch.eye(3), torch.zeros(3)).before_batch_norm(norm)


def test_node_names_are_readable(exports) -> None:
    pattern = re.compile(r"(step\d/)?[\w.]+/?[A-Za-z]*(_\d+)?")
    for node in exports.graph("conv", "forecast").graph.node:
        assert pattern.fullmatch(node.name), node.name
