"""The probe of a bundle, cut out of its planner's graph, against the PyTorch probe."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.compile.planner_world import imagining_model

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.openvino import OpenVinoBackend
from jetsight.bundle.planner_spec import HeadSpec
from jetsight.errors import BundleError
from jetsight.testing import tiny_planner
from jetsight_compile.closed_loop.tasks.probe import ProbeReader, probe_graph, probed_names
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_encode
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_train.model.world_model import WorldModel

SPEC = tiny_planner(samples=8, horizon=2, elites=4, context=1)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return imagining_model()


@pytest.fixture(scope="module")
def planner(model: WorldModel) -> bytes:
    return PlannerExporter(model, Style(20)).export(SPEC).SerializeToString()


@pytest.mark.parametrize("backend", [OnnxRuntimeBackend, OpenVinoBackend])
def test_it_reads_what_the_torch_probe_reads(
    model: WorldModel, planner: bytes, backend: Any
) -> None:
    part = probe_graph(planner, "b.jetsight")
    engine = backend().load(part)
    z = torch.randn(3, model.config.latent_size, generator=torch.Generator().manual_seed(0))
    assert model.heads.probe is not None
    with torch.no_grad():
        expected = model.heads.probe(z).numpy()
    for latent, wanted in zip(z.numpy(), expected, strict=True):
        engine.inputs["z_goal"].write(latent)
        engine.run()
        np.testing.assert_allclose(
            next(iter(engine.outputs.values())).read().ravel(), wanted, atol=1e-5
        )
    assert np.ptp(expected, axis=0).min() > 1e-2, "the control: latents are told apart"
    assert len(part) < len(planner) / 3
    engine.close()


def test_a_planner_without_a_probe_has_none_to_cut_out() -> None:
    plain = PlannerExporter(imagining_model(heads=False), Style(20)).export(SPEC)
    with pytest.raises(BundleError, match=r"b\.jetsight: its planner does not read the goal"):
        probe_graph(plain.SerializeToString(), "b.jetsight")


def test_a_probe_of_more_than_the_goal_is_none(planner: bytes) -> None:
    """As if a later graph read the goal beside something else: refused, never half a probe."""
    graph = onnx.load_from_string(planner)
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            if name == "z_goal":
                node.input[i] = "z_goal_mixed"
    graph.graph.node.insert(
        0, onnx.helper.make_node("Add", ["z_goal", "weights"], ["z_goal_mixed"])
    )
    with pytest.raises(BundleError, match="compile it again"):
        probe_graph(graph.SerializeToString(), "b.jetsight")


def test_angles_have_a_name_of_their_own() -> None:
    names = ("x", "cos heading", "sin heading", "cos lonely")
    assert probed_names(names) == (*names, "heading")


def bundle_of(model: WorldModel, planner: bytes, heads: HeadSpec | None) -> Any:
    graphs = {SPEC.graph: planner, "encode": export_encode(model, Style(20)).SerializeToString()}
    family = SimpleNamespace(name="cpu-fp32")
    manifest = SimpleNamespace(heads=heads, planners=(SPEC,), families=(family,), state=None)
    return SimpleNamespace(
        manifest=manifest, path="b.jetsight", graph=lambda family, name: graphs[name]
    )


def test_a_frame_is_encoded_and_read(model: WorldModel, planner: bytes) -> None:
    heads = HeadSpec(("cos a", "sin a"), ("1", "1"), (1.0, 1.0))
    reader = ProbeReader(bundle_of(model, planner, heads), None, "onnxruntime")
    assert reader.names == ("cos a", "sin a", "a")
    shape = (model.frame.height_px, model.frame.width_px, 3)
    frame = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    found = reader(SimpleNamespace(frame_hwc_u8=frame))
    assert model.heads.probe is not None
    with torch.no_grad():
        x, y = model.heads.probe(model.encode(torch.from_numpy(frame[None])))[0].tolist()
    assert found == {
        "cos a": pytest.approx(x, abs=1e-4),
        "sin a": pytest.approx(y, abs=1e-4),
        "a": pytest.approx(math.atan2(y, x), abs=1e-3),
    }
    reader.close()


@pytest.mark.parametrize("heads", [None, HeadSpec()])
def test_a_bundle_without_a_probe_reads_nothing(
    model: WorldModel, planner: bytes, heads: HeadSpec | None
) -> None:
    assert ProbeReader(bundle_of(model, planner, heads), None, None).names == ()
    bare = bundle_of(model, planner, HeadSpec(("x",), ("m",), (1.0,)))
    bare.manifest = SimpleNamespace(**{**vars(bare.manifest), "planners": ()})
    assert ProbeReader(bare, None, None).names == ()


class Tape:
    """An engine that keeps what it was given, and returns it as its output."""

    def __init__(self, *names: str) -> None:
        self.inputs: dict[str, Any] = {name: SimpleNamespace() for name in names}
        self.given: dict[str, Any] = {}
        for name, port in self.inputs.items():
            port.write = lambda value, name=name: self.given.update({name: value})
        self.outputs = {"z": SimpleNamespace(read=lambda: np.zeros(3, np.float32))}

    def run(self) -> None: ...


def test_a_model_that_reads_a_state_gets_its_own_in_its_order(
    model: WorldModel, planner: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(model, planner, HeadSpec(("a", "b", "c"), ("1",) * 3, (1.0,) * 3))
    bundle.manifest.state = SimpleNamespace(names=("y", "x"))
    reader = ProbeReader(bundle, None, None, ("x", "spare", "y"))
    encode = Tape("frame_hwc_u8", "state")
    monkeypatch.setattr(reader, "_load", lambda: (encode, Tape("z_goal")))
    reader(SimpleNamespace(frame_hwc_u8=np.zeros((2, 2, 3)), state=np.float32([1, 2, 3])))
    assert encode.given["state"].tolist() == [3.0, 1.0]
