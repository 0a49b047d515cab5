"""The whole way from checkpoint to bundle, with the exports shared by the other tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.compile.tiny_model import save_checkpoint, square_episode, write_dataset

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.parity import rank_agreement
from jetsight.cli import main
from jetsight.errors import CheckpointError, StorageError, UsageError
from jetsight_compile.calibration.run import run_all
from jetsight_compile.pipeline import family as families
from jetsight_compile.pipeline import family_passes, settle
from jetsight_compile.pipeline.checks import expected_stages
from jetsight_compile.pipeline.compile import (
    CompileRequest,
    compile_checkpoint,
)
from jetsight_compile.planner_graph.settings import PlannerPreset, PlannerSettings
from jetsight_compile.quantize import vendor
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate.limits import IMAGINE_LIMITS


@pytest.fixture(scope="module")
def inputs(exports, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_checkpoint(folder / "ckpt", exports.model("conv"))
    write_dataset(folder / "calib", [square_episode(seed) for seed in range(4)])
    return folder


def use_shared_exports(exports, patch: pytest.MonkeyPatch) -> None:
    """The checkpoint holds the shared model, so its exports are the shared ones."""

    def exporter(name: str):
        return lambda model, style: exports.graph("conv", name, style)

    for name in families.EXPORTS:
        patch.setitem(families.EXPORTS, name, exporter(name))
    patch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(autouse=True)
def quick(exports, monkeypatch) -> None:
    use_shared_exports(exports, monkeypatch)


def accept_all(patch: pytest.MonkeyPatch) -> None:
    """Let every gate and control count as passed."""
    for name in ("require", "require_controls"):
        patch.setattr(gate, name, lambda gates: None)


def request(inputs: Path, out: Path, **options) -> CompileRequest:
    options.setdefault("methods", ("max",))
    return CompileRequest(inputs / "ckpt", inputs / "calib", out, **options)


@pytest.fixture(scope="module")
def bundle(exports, inputs, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("out") / "tiny.jetsight"
    with pytest.MonkeyPatch.context() as patch:
        use_shared_exports(exports, patch)
        return compile_checkpoint(request(inputs, out)).bundle


def test_the_bundle_says_what_it_holds(bundle, exports) -> None:
    facts = bundle.manifest
    model = exports.model("conv")
    assert facts.model.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.model.history, facts.model.horizon, facts.model.action_size) == (3, 2, 4)
    assert (facts.frame.height_px, facts.timing.action_block) == (24, 2)
    assert facts.action.mean == (0.3, -0.2)
    assert [family.name for family in facts.families] == ["cpu-fp32", "cpu-int8"]
    int8 = facts.families[1]
    assert int8.precision == {"encode": "int8", "forecast": "int8"}
    assert int8.tensors == 8 + 29
    assert facts.provenance.created_utc == "2023-11-14T22:13:20Z"
    assert facts.provenance.tool["cpu-int8/encode"] == "max, 4 layers, 100.0% of the products"
    assert facts.provenance.calibration.episodes == (0, 2)
    assert facts.provenance.held_out.episodes == (1, 3)
    assert {(g.family, g.name) for g in facts.gates} == {
        (family, name) for family in ("cpu-fp32", "cpu-int8") for name in gate.LIMITS
    }
    assert all(g.passed and g.control_failed for g in facts.gates)


def test_surprise_is_one_for_the_median_step(bundle) -> None:
    quantiles = bundle.manifest.latent.surprise_quantiles
    assert quantiles.p50 == pytest.approx(1.0)
    assert 1.0 < quantiles.p90 < quantiles.p99 <= quantiles.p999
    assert bundle.manifest.latent.surprise_scale > 0


def test_golden_values_prove_parity_without_torch(bundle) -> None:
    golden = bundle.golden()
    runtime = OnnxRuntimeBackend()
    for family, atol in (("cpu-fp32", 2e-5), ("cpu-int8", 0.5)):
        frames = [{"frame_hwc_u8": frame} for frame in golden["frame_hwc_u8"]]
        z = run_all(runtime, bundle.graph(family, "encode"), frames)
        np.testing.assert_allclose(z, golden["z"], atol=atol)
        windows = [
            {name: golden[name][i] for name in ("z_hist", "a_hist", "actions")}
            for i in range(len(golden["z"]))
        ]
        future = run_all(runtime, bundle.graph(family, "forecast"), windows)
        np.testing.assert_allclose(future, golden["z_future"], atol=atol)
    # the newest latent of the history is the latent of the frame
    np.testing.assert_array_equal(golden["z_hist"][:, -1], golden["z"])
    assert np.abs(np.roll(golden["z"], 1, axis=0) - golden["z"]).max() > 0.5


def test_compiling_twice_gives_the_same_bytes(bundle, inputs, tmp_path) -> None:
    again = compile_checkpoint(request(inputs, tmp_path / "again.jetsight")).bundle
    files = sorted(p.relative_to(bundle.path) for p in bundle.path.rglob("*") if p.is_file())
    assert len(files) == 6
    for file in files:
        assert (again.path / file).read_bytes() == (bundle.path / file).read_bytes(), file


def test_targets_share_a_bundle(inputs, tmp_path) -> None:
    made = compile_checkpoint(
        request(
            inputs,
            tmp_path / "all.tar",
            targets=("cpu", "rtx", "orin-jp7"),
            precisions=("fp32",),
            tar=True,
        )
    ).bundle
    found = {family.name: family for family in made.manifest.families}
    assert set(found) == {"cpu-fp32", "trt-op23-fp32"}
    assert found["trt-op23-fp32"].targets == ("rtx", "orin-jp7")
    assert found["trt-op23-fp32"].opset == 23
    assert found["trt-op23-fp32"].tensors is None


def stages(inputs: Path, out: Path) -> list[str]:
    said: list[str] = []
    compile_checkpoint(request(inputs, out, precisions=("fp32",)), said.append)
    return said


def test_interrupted_at_any_stage_it_leaves_nothing(inputs, tmp_path) -> None:
    out = tmp_path / "whole.jetsight"
    said = stages(inputs, out)
    assert len(said) == expected_stages(request(inputs, out, precisions=("fp32",)))
    assert len(said) == 6
    before = sorted(tmp_path.iterdir())
    for stop in said:

        def say(stage: str, stop: str = stop) -> None:
            if stage.split()[0] == stop.split()[0]:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compile_checkpoint(request(inputs, tmp_path / "y.jetsight", precisions=("fp32",)), say)
        assert sorted(tmp_path.iterdir()) == before


def test_an_older_bundle_is_replaced_only_by_force(inputs, tmp_path, monkeypatch) -> None:
    out = tmp_path / "x.jetsight"
    options = {"precisions": ("fp32",)}
    compile_checkpoint(request(inputs, out, **options))
    before = (out / "manifest.json").read_bytes()
    said: list[str] = []
    with pytest.raises(StorageError, match="already exists"):
        compile_checkpoint(request(inputs, out, **options), said.append)
    assert said == [], "refused before any work"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    compile_checkpoint(request(inputs, out, force=True, **options))
    assert (out / "manifest.json").read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["x.jetsight"]


def test_force_never_replaces_what_is_no_bundle(inputs, tmp_path) -> None:
    (tmp_path / "x.jetsight").mkdir()
    (tmp_path / "x.jetsight" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="is no jetsight bundle, so --force does not replace"):
        compile_checkpoint(request(inputs, tmp_path / "x.jetsight", force=True))
    assert (tmp_path / "x.jetsight" / "thesis.txt").exists()


def test_mistakes_are_found_before_the_work(inputs, tmp_path) -> None:
    said: list[str] = []
    with pytest.raises(UsageError, match="fp8"):
        compile_checkpoint(
            request(inputs, tmp_path / "x", targets=("orin-jp6",), precisions=("fp8",)), said.append
        )
    assert said == []
    with pytest.raises(UsageError, match="bfloat16 convolutions from opset 22"):
        compile_checkpoint(
            request(inputs, tmp_path / "x", targets=("orin-jp6",), precisions=("bf16",)),
            said.append,
        )
    assert [stage.split()[0] for stage in said] == ["read"], "known as soon as the model is"
    with pytest.raises(CheckpointError, match=r"calib.*no model\.json"):
        compile_checkpoint(CompileRequest(inputs / "calib", inputs / "calib", tmp_path / "x"))


@pytest.mark.parametrize(
    ("target", "precision", "method", "known"),
    [
        ("orin-jp6", "int8", "entropy", "TensorRT's .* max, percentile, mse"),
        ("orin-jp6", "auto", "entropy", "TensorRT's .* max, percentile, mse"),
        ("orin-jp6", "encode=fp16,forecast=fp16,imagine=int8", "entropy", "TensorRT's"),
        ("cpu", "int8", "mse", "the CPU's .* max, percentile, entropy"),
    ],
)
def test_a_method_that_no_quantizer_has_is_refused_before_any_work(
    inputs, tmp_path, monkeypatch, target, precision, method, known
) -> None:
    monkeypatch.setattr(vendor, "check_modelopt", lambda: None)
    said: list[str] = []
    options = {"targets": (target,), "precisions": (precision,)}
    with pytest.raises(UsageError, match=f"^{known.replace(' .*', rf'.* by {method}; choose')}"):
        compile_checkpoint(
            request(inputs, tmp_path / "x", methods=(method,), **options), said.append
        )
    assert said == []
    fine = request(inputs, tmp_path / "x", methods=(method, "max"), **options)
    with pytest.raises(KeyboardInterrupt):  # the control: it goes on with the other method
        compile_checkpoint(fine, interrupt)


def interrupt(stage: str) -> None:
    raise KeyboardInterrupt


def test_a_kept_layer_is_counted_and_a_wrong_name_refused(inputs, tmp_path) -> None:
    options = {"precisions": ("int8",)}
    made = compile_checkpoint(
        request(inputs, tmp_path / "x.jetsight", keep_float=("trunk.layers.0/*",), **options)
    ).bundle
    assert made.manifest.families[0].tensors == 8 + 29 - 2
    with pytest.raises(UsageError, match=r"--keep-float 'no-such/\*' matches no layer"):
        compile_checkpoint(
            request(inputs, tmp_path / "y.jetsight", keep_float=("no-such/*",), **options)
        )


def test_the_command_prints_a_table_or_json(inputs, tmp_path, capsys) -> None:
    command = [
        "compile",
        str(inputs / "ckpt"),
        "--calib",
        str(inputs / "calib"),
        "--precision",
        "fp32",
        "--no-planner",
        "--out",
    ]
    assert main([*command, str(tmp_path / "a.jetsight")]) == 0
    shown = capsys.readouterr()
    assert "gate cpu-fp32" in shown.err
    assert shown.out.splitlines()[0].split()[:4] == ["family", "opset", "size", "quantized"]
    assert "latent_cosine" in shown.out
    assert main([*command, str(tmp_path / "b.jetsight"), "--json"]) == 0
    (family,) = json.loads(capsys.readouterr().out)["families"]
    assert family["name"] == "cpu-fp32"
    assert family["gates"]["rollout_drift"]["passed"] is True


def test_the_command_ends_with_the_exit_code_of_its_error(inputs, tmp_path, capsys) -> None:
    command = [
        "compile",
        str(inputs / "ckpt"),
        "--calib",
        str(inputs / "calib"),
        "--out",
        str(tmp_path / "x.jetsight"),
        "--target",
        "orin-jp7",
        "--precision",
        "nvfp4",
    ]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("jetsight: error: target orin-jp7")
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_compile_ends_in_one_line_and_leaves_nothing(inputs, tmp_path) -> None:
    """A real signal to a real process, once work has begun."""
    arguments = ["compile", str(inputs / "ckpt"), "--calib", str(inputs / "calib"), "--out", "x"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"from jetsight.cli import main; raise SystemExit(main({arguments}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    said = next(line for line in child.stderr if "export encode" in line)
    assert said
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 143
    assert out == ""
    assert err.splitlines()[-1] == "jetsight: error: terminated"
    assert list(tmp_path.iterdir()) == []


def test_a_tensorrt_family_says_how_it_was_quantized(inputs, tmp_path, monkeypatch) -> None:
    pytest.importorskip("modelopt")
    accept_all(monkeypatch)  # random weights may lose too much
    made = compile_checkpoint(
        request(
            inputs,
            tmp_path / "x.jetsight",
            targets=("orin-jp6",),
            precisions=("encode=fp16,forecast=int8",),
            strict=True,
        )
    ).bundle
    (family,) = made.manifest.families
    assert (family.name, family.opset) == ("trt-op20-fp16-int8", 20)
    assert dict(family.precision) == {"encode": "fp16", "forecast": "int8"}
    tool = made.manifest.provenance.tool
    assert tool["nvidia-modelopt"]
    assert tool["trt-op20-fp16-int8/forecast"].startswith("max")
    assert "trt-op20-fp16-int8/encode" not in tool


@pytest.fixture(scope="module")
def planning(exports, inputs, tmp_path_factory) -> Bundle:
    """Two families with one small planner; how good random weights plan is no matter here."""
    out = tmp_path_factory.mktemp("planning") / "tiny.jetsight"
    with pytest.MonkeyPatch.context() as patch:
        use_shared_exports(exports, patch)
        accept_all(patch)
        for module in (family_passes, settle):
            patch.setattr(module, "judges", lambda family: [OnnxRuntimeBackend()])
        options = {"precisions": ("fp32", "encode=fp32,forecast=fp32,imagine=int8")}
        wish = request(inputs, out, planners=(PlannerPreset("icem", 32),), strict=True, **options)
        return compile_checkpoint(replace(wish, settings=PlannerSettings(iterations=3))).bundle


def test_a_planner_is_in_every_family_and_in_the_manifest(planning) -> None:
    facts, graph = planning.manifest, "imagine_icem_32x2"
    (planner,) = facts.planners
    assert (planner.graph, planner.elites, planner.kept, planner.iterations) == (graph, 4, 1, 3)
    assert facts.heads is None
    assert {f.name: f.precision[graph] for f in facts.families} == {
        "cpu-fp32": "fp32",
        "cpu-fp32-fp32-int8": "int8",
    }
    for family in facts.families:
        names = {each.name for each in facts.gates if each.family == family.name}
        assert names == {*gate.LIMITS, *IMAGINE_LIMITS} - {"imagine_feasible"}  # no hazards
    assert all(g.passed for g in facts.gates if g.family == "cpu-fp32")
    assert planning.graph("cpu-fp32", "forecast") == planning.graph(
        "cpu-fp32-fp32-int8", "forecast"
    )
    assert "products" in facts.provenance.tool[f"cpu-fp32-fp32-int8/{graph}"]


def test_golden_iterations_prove_the_planner_of_each_family(planning) -> None:
    golden, (planner,) = planning.golden(), planning.manifest.planners
    runtime, least = OnnxRuntimeBackend(), {"cpu-fp32": 0.9999, "cpu-fp32-fp32-int8": 0.9}
    for family, limit in least.items():
        engine = runtime.load(planning.graph(family, planner.graph))
        agreement = rank_agreement(engine, golden, planner.graph)
        assert agreement is not None
        assert agreement >= limit


def test_planners_and_no_planner_exclude_each_other(inputs, tmp_path, capsys) -> None:
    command = [
        "compile",
        str(inputs / "ckpt"),
        "--calib",
        str(inputs / "calib"),
        "--out",
        str(tmp_path / "x.jetsight"),
        "--no-planner",
    ]
    assert main([*command, "--planner", "icem"]) == 2
    assert "--no-planner is given together with planners" in capsys.readouterr().err
    assert main([*command[:-1], "--planner", "icem:32x9"]) == 2
    assert "looks 9 blocks ahead, but the model was trained for 2" in capsys.readouterr().err
