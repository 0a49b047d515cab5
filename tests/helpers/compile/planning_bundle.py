"""A tiny model for 16 x 16 px PushT with a planner: bundle and checkpoint.

Exporting a planner takes too long for a test that is always run, so the graphs of the bundle are
opaque bytes, and `in_torch` puts PyTorch in their place when the command opens it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.compile.tiny_model import recipe_of
from helpers.runtime.bundle_factory import make_manifest
from jetsight.bundle import golden, model_spec
from jetsight.bundle.bundle import Bundle, write_bundle
from jetsight.bundle.manifest import Family, LatentStats, SurpriseQuantiles
from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight.bundle.planner_spec import HazardSpec, HeadSpec, PlannerSpec, graph_name
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.session import Session
from jetsight_compile.closed_loop import arms, lab
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.episodes import Rules
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_encode, export_forecast
from jetsight_train import checkpoint
from jetsight_train.heads.recipe import HazardRecipe, HeadsRecipe
from jetsight_train.heads.spec import HeadsDescription, HeadsScores, HeadsTrained
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig
from jetsight_train.model.hazard_rules import Disc
from jetsight_train.model.heads import HazardHeadSpec
from jetsight_train.model.preprocess import whole_frame
from jetsight_train.model.world_model import WorldModel

D, K, H, B, SIDE = 8, 2, 2, 2, 16
BUDGET = 16
FAMILY = "cpu-fp32"
PLANNER = PlannerSpec(
    graph=graph_name("cem", 16, H),
    kind="cem",
    samples=16,
    horizon=H,
    elites=4,
    context=K,
    rate_limited=False,
    iterations=3,
    std_start=(80.0, 80.0),
)


THRESHOLD = 1e6  # a logit that random heads never reach
HAZARD = HazardRecipe("keep_out", Disc(("agent_x", "agent_y"), (256.0, 256.0), 60.0))
HEADS = HeadsDescription(
    HeadsRecipe("tiny", hazard=(HAZARD,), support=False, hidden=(8,)),
    None,
    (HazardHeadSpec("keep_out", THRESHOLD, 0.05, HAZARD.rule),),
    False,
    HeadsTrained("tiny", "ab" * 32, "ab" * 32, 1, 1, (1,), torch.__version__, 1.0),
    HeadsScores("tiny", 1),
)


@dataclass(frozen=True)
class Compiled:
    bundle: Path
    checkpoint: Path


def tiny_model() -> WorldModel:
    torch.manual_seed(1)
    config = ModelConfig(
        D, K, H, PredictorConfig(1, 1, 8, 16, 8, 0, 0.0), conv=ConvConfig((8,), (4,), (4,), 16)
    )
    action = ActionSpec(
        ("target_x", "target_y"),
        ("px", "px"),
        (0.0, 0.0),
        (512.0, 512.0),
        None,
        (256.0, 256.0),
        (256.0, 256.0),
        (120.0, 120.0),
    )
    frame = whole_frame((SIDE, SIDE), (SIDE, SIDE))
    model = WorldModel(config, frame, TimingSpec(10.0, B), action)
    model.heads = HEADS.build(D, 2 * B)
    return model.eval()


def write_planner(folder: Path, *, real: bool = False) -> Compiled:
    """Write `tiny.jetsight` and `checkpoint` into `folder`; graphs are opaque unless `real`."""
    model = tiny_model()
    checkpoint.save(
        folder / "checkpoint",
        model,
        recipe_of(model),
        checkpoint.LatentSpec((0.0,) * D, (1.0,) * D),
        checkpoint.Trained(1, "ab" * 32, "tiny", torch.__version__, 1.0),
        HEADS,
    )
    about = checkpoint.load(folder / "checkpoint")[1]
    manifest = planning_manifest(model)
    provenance = replace(manifest.provenance, checkpoint_sha256=about.weights.sha256)
    manifest = replace(manifest, provenance=provenance)
    graphs = dict.fromkeys(("encode", "forecast", PLANNER.graph), b"opaque")
    if real:
        from jetsight_compile.planner_graph.export import PlannerExporter

        graphs = {
            "encode": export_encode(model, Style(20)).SerializeToString(),
            "forecast": export_forecast(model, Style(20)).SerializeToString(),
            PLANNER.graph: PlannerExporter(model, Style(20)).export(PLANNER).SerializeToString(),
        }
    files = {f"graphs/{FAMILY}/{name}.onnx": data for name, data in graphs.items()}
    files["golden.npz"] = golden.dump(reference(model))
    write_bundle(folder / "tiny.jetsight", manifest, files)
    return Compiled(folder / "tiny.jetsight", folder / "checkpoint")


def planning_manifest(model: WorldModel) -> Any:
    fields = {
        name: getattr(model.action, name) for name in model_spec.ActionSpec.__dataclass_fields__
    }
    precision = {"encode": "fp32", "forecast": "fp32", PLANNER.graph: "fp32"}
    return make_manifest(
        model=model_spec.ModelSpec("conv", 1000, D, K, H, model.action_size),
        frame=model_spec.FrameSpec(
            SIDE, SIDE, "rgb", (0, 0, SIDE, SIDE), (SIDE, SIDE), (0.5,) * 3, (0.2,) * 3
        ),
        timing=model_spec.TimingSpec(10.0, B),
        action=model_spec.ActionSpec(**fields),
        latent=LatentStats((0.0,) * D, (1.0,) * D, 0.5, SurpriseQuantiles(1.0, 2.0, 3.0, 4.0)),
        families=(Family(FAMILY, 20, precision, ("cpu",)),),
        gates=(),
        planners=(PLANNER,),
        heads=HeadSpec(hazards=(HazardSpec("keep_out", THRESHOLD, 0.05),)),
    )


def in_torch(monkeypatch: pytest.MonkeyPatch, compiled: Compiled) -> None:
    """Let the command open the bundle without its graphs, and play shorter episodes."""

    def deployed(bundle: Bundle, settings: EvalConfig) -> Session:
        model, about = checkpoint.load(compiled.checkpoint)
        spec = StreamSpec.from_manifest(bundle.manifest)
        stand_in = SimpleNamespace(spec=spec, family=FAMILY)
        session = arms.eager_session(
            arms.TorchModel(model.eval(), about), bundle.manifest, stand_in, settings
        )
        session.family = FAMILY
        return session

    monkeypatch.setattr(arms, "deployed_session", deployed)
    shorter = {"driver_ticks": 60, "goal_offset": 16, "budget": BUDGET}
    monkeypatch.setattr(lab, "Rules", lambda *args, **facts: Rules(*args, **{**facts, **shorter}))


@torch.no_grad()
def reference(model: WorldModel) -> dict[str, np.ndarray[Any, Any]]:
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 255, (2, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)
    z_hist = torch.randn(2, K, D, generator=draw)
    a_hist = torch.rand(2, K - 1, 2 * B, generator=draw) * 500
    actions = torch.rand(2, H, 2 * B, generator=draw) * 500
    arrays = {
        "frame_hwc_u8": frames,
        "z": model.encode(frames),
        "z_hist": z_hist,
        "a_hist": a_hist,
        "actions": actions,
        "z_future": model.rollout(z_hist, a_hist, actions),
    }
    return {name: tensor.numpy() for name, tensor in arrays.items()}
