"""Graphs of several cameras and a state equal the float model; an exchanged input does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from helpers.compile import tensorrt_rtx
from helpers.compile.fused_model import fused_model
from helpers.compile.tiny_model import POINTS
from helpers.train.two_cameras import fused_episode, model_states

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.export.encoder import EncodeGraph, float_layers
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import Sizes, check_graph, export_encode
from jetsight_compile.export.onnx_graph import block_of, quantizable
from jetsight_compile.validate.negative_controls import zero_input
from jetsight_train.model.world_model import WorldModel

ROUNDING = 2e-5
KINDS = {
    "shared": {},
    "apart": {"shared": False},
    "vit": {"vit": True},
    "resized": {"camera": (30, 40)},
    "points": {"conv": POINTS},
    "one camera and a state": {"cameras": ()},
    "two cameras alone": {"state": False},
}
needs_rtx = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)


def inputs_of(model: WorldModel, count: int = 4) -> dict[str, np.ndarray]:
    frames, _, states = fused_episode(5)
    height, width = model.frame.height_px, model.frame.width_px
    frames = frames.repeat(2, axis=2).repeat(2, axis=3)[:count, :, :height, :width]
    frames = frames if len(model.frame.cameras) > 1 else frames[:, 0]
    found = {"frame_hwc_u8": np.ascontiguousarray(frames)}
    return found if model.state is None else {**found, "state": model_states(states[:count])}


def samples_of(inputs: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_module_is_the_float_model(kind: str) -> None:
    model = fused_model(**KINDS[kind])  # type: ignore[arg-type]
    inputs = {name: torch.from_numpy(value) for name, value in inputs_of(model).items()}
    graph = EncodeGraph(model, Style(20))
    with torch.inference_mode():
        z = model.encode(*inputs.values())
        for i, expected in enumerate(z):
            found = graph(*(value[i] for value in inputs.values()))
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=ROUNDING)


@pytest.fixture(scope="module")
def graph() -> tuple[WorldModel, onnx.ModelProto]:
    model = fused_model()
    return model, export_encode(model, Style(20))


def test_the_graph_takes_every_camera_and_the_state(graph) -> None:
    model, exported = graph
    inputs = inputs_of(model)
    z = run_all(OnnxRuntimeBackend(), exported.SerializeToString(), samples_of(inputs))
    with torch.inference_mode():
        expected = model.encode(*map(torch.from_numpy, inputs.values())).numpy()
    np.testing.assert_allclose(z, expected, atol=ROUNDING)
    # Negative controls: what a wrong order of cameras or states would compute.
    swapped = {**inputs, "frame_hwc_u8": inputs["frame_hwc_u8"][:, ::-1].copy()}
    permuted = {**inputs, "state": inputs["state"][:, ::-1].copy()}
    for wrong in (swapped, permuted):
        off = run_all(OnnxRuntimeBackend(), exported.SerializeToString(), samples_of(wrong))
        assert np.abs(off - expected).max() > 0.05


def test_a_shared_trunk_is_stored_once_in_the_graph(graph) -> None:
    apart = export_encode(fused_model(shared=False), Style(20))
    shared, sizes = graph[1], []
    for exported in (shared, apart):
        kernels = [t for t in exported.graph.initializer if len(t.dims) == 4]
        sizes.append(len(kernels))
    assert sizes == [2, 4]


def test_another_signature_is_refused(graph) -> None:
    model, exported = graph
    check_graph(exported, "encode", Sizes.of(model))
    for other in (fused_model(state=False), fused_model(cameras=())):
        with pytest.raises(EngineError, match="has inputs or outputs"):
            check_graph(exported, "encode", Sizes.of(other))


def test_the_normaliser_of_the_state_is_not_rounded() -> None:
    """A position of 2000 that moves by 0.1 would not move at all in float16."""
    model = fused_model()
    encoder = model.state_encoder
    assert encoder is not None
    encoder.normalise.mean[0] = 2000.0
    encoder.normalise.std[0] = 0.1
    inputs = {name: torch.from_numpy(value[:2]) for name, value in inputs_of(model).items()}
    inputs["frame_hwc_u8"][1] = inputs["frame_hwc_u8"][0]
    inputs["state"][:] = torch.tensor([[2000.0, 20.0, 2.0], [2000.1, 20.0, 2.0]])
    graph = EncodeGraph(model, Style(20).computing("fp16"))
    with torch.inference_mode():
        expected = model.encode(*inputs.values())
        found = torch.stack([graph(*(v[i] for v in inputs.values())) for i in range(2)])
    moved = (expected[1] - expected[0]).norm()
    assert ((found[1] - found[0]) - (expected[1] - expected[0])).norm() < 0.05 * moved


def test_the_layers_of_the_state_stay_float_and_blocks_keep_their_camera(graph) -> None:
    model, exported = graph
    layers = quantizable(exported, float_layers(model))
    assert not [name for name in layers if name.startswith("trunk.state")]
    blocks = {block_of(name) for name in layers}
    assert {"trunk.cameras.0.layers.1", "trunk.cameras.1.layers.1"} <= blocks
    points = float_layers(fused_model(conv=POINTS))
    assert "trunk.cameras.*.layers.0[./]*" in points


def test_a_graph_that_ignores_the_state_is_seen(graph) -> None:
    """The control of the control: `zero_input` makes such a graph, and the latent shows it."""
    model, exported = graph
    inputs = samples_of(inputs_of(model))
    blind = zero_input(exported, "state").SerializeToString()
    exchanged = [{**inputs[0], "state": inputs[2]["state"]}, inputs[0]]
    first, second = run_all(OnnxRuntimeBackend(), blind, exchanged)
    np.testing.assert_array_equal(first, second)
    first, second = run_all(OnnxRuntimeBackend(), exported.SerializeToString(), exchanged)
    assert np.abs(first - second).max() > 1e-3


@needs_rtx
@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("shared", Style(20, gelu="erf", compute="fp16")),
        pytest.param("vit", Style(23, attention="fused", compute="fp16"), marks=pytest.mark.slow),
    ],
)
def test_tensorrt_compiles_it(kind: str, style: Style, tmp_path) -> None:
    model = fused_model(**KINDS[kind])  # type: ignore[arg-type]
    exported = export_encode(model, style)
    built = tensorrt_rtx.build(exported.SerializeToString(), tmp_path / "trt.log")
    assert built.inputs == {"frame_hwc_u8": ("uint8", (2, 24, 24, 3)), "state": ("float32", (3,))}
    assert built.outputs == {"z": ("float32", (16,))}
