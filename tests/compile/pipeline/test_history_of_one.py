"""A model that looks back on one latent: there is no action between latents, so no `a_hist`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.compile.tiny_model import model_of, save_checkpoint, square_episode, write_dataset

from jetsight import Camera, Session
from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.errors import EngineError
from jetsight_compile.config.targets import plan
from jetsight_compile.export.onnx_export import Sizes, check_graph, export_forecast
from jetsight_compile.pipeline.compile import CompileRequest, compile_checkpoint
from jetsight_compile.planner_graph.settings import PlannerPreset


@pytest.mark.parametrize("horizon", [1, 2])
def test_the_graph_is_the_float_model(horizon: int) -> None:
    model = model_of(history=1, horizon=horizon)
    (family,) = plan(["cpu"], ["fp32"])
    graph = export_forecast(model, family.style)
    assert [value.name for value in graph.graph.input] == ["z_hist", "actions"]
    assert "Identity" not in {node.op_type for node in graph.graph.node}
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, model.config.latent_size)).astype(np.float32)
    actions = rng.standard_normal((horizon, model.action_size)).astype(np.float32)
    engine = OnnxRuntimeBackend().load(graph.SerializeToString())
    engine.inputs["z_hist"].write(z)
    engine.inputs["actions"].write(actions)
    engine.run()
    past = torch.zeros(1, 0, model.action_size)
    with torch.no_grad():
        expected = model.rollout(torch.from_numpy(z)[None], past, torch.from_numpy(actions)[None])
    found = engine.outputs["z_future"].read()
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-5)
    assert np.abs(found - expected[0].numpy()[::-1]).max() > 1e-3 or horizon == 1


def test_a_graph_with_an_input_more_is_refused() -> None:
    """The negative control: the check of inputs sees what K = 1 must not have."""
    longer = model_of(history=3)
    (family,) = plan(["cpu"], ["fp32"])
    graph = export_forecast(longer, family.style)
    with pytest.raises(EngineError):
        check_graph(graph, "forecast", Sizes.of(model_of(history=1)))


def test_it_compiles_streams_and_plans(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ckpt", model_of(history=1))
    write_dataset(tmp_path / "calib", [square_episode(seed) for seed in range(4)])
    request = CompileRequest(
        checkpoint=tmp_path / "ckpt",
        calib=tmp_path / "calib",
        out=tmp_path / "one.jetsight",
        precisions=("fp32",),
        planners=(PlannerPreset("cem", 16, 2),),
    )
    gates = compile_checkpoint(request).bundle.manifest.gates
    assert "history_age_steps" in {gate.name for gate in gates}
    assert all(gate.passed and gate.control_failed for gate in gates)
    with Session.open(tmp_path / "one.jetsight") as session:
        source = Camera.open(f"{tmp_path / 'calib'}#0")
        forecasts = [each.valid for each in session.stream(source, rate_hz=0, frames=6)]
        assert forecasts == [True] * 6
        plan_made = session.imagine(np.zeros(session.spec.latent_size, np.float32))
    assert plan_made.valid
