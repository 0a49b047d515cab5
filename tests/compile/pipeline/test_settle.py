"""A compile keeps what passed: float where a gate needs it, the rest left out, and said so.

Graphs, gates and measurements are real; only single limits are moved, to values that this model
misses.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from helpers.compile.probes import nodes_of
from helpers.compile.tiny_model import save_checkpoint, square_episode, write_dataset

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle.bundle import Bundle
from jetsight.cli import INCOMPLETE, main
from jetsight.errors import GateError
from jetsight.session import Session
from jetsight_compile.export.onnx_graph import block_of
from jetsight_compile.pipeline import compile as pipeline
from jetsight_compile.pipeline import family_passes, settle
from jetsight_compile.pipeline.compile import Compilation, Compiled, CompileRequest
from jetsight_compile.quantize import float_fallback, quantized, schemes
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.metrics import Measurement
from jetsight_compile.validate.runner import GateResult

# The first quantized forms of this model have 24.5 and 31.3 dB here.
ENCODER, PREDICTOR = "latent_sqnr_db", "forecast_inside_sqnr_db"
IMPOSSIBLE = "latent_cosine"  # of 2
PLANNER = "imagine_cem_8x2"


@pytest.fixture(scope="module")
def inputs(exports, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_checkpoint(folder / "ckpt", exports.model("conv"))
    write_dataset(folder / "calib", [square_episode(seed) for seed in range(4)])
    return folder


@pytest.fixture(scope="module")
def quantized_families(exports, inputs) -> Compilation:
    """Two quantized families before any gate; not to be modified."""
    with pytest.MonkeyPatch.context() as patch:
        exports.stand_in(patch)
        ask = CompileRequest(inputs / "ckpt", inputs / "calib", inputs / "out", methods=("max",))
        state = Compilation(ask, lambda stage: None)
        for run in (
            pipeline.check_request,
            pipeline.load_checkpoint,
            pipeline.load_calibration,
            pipeline.export_graphs,
            pipeline.quantize_graphs,
            pipeline.run_float_model,
        ):
            run(state)
    return state


@pytest.fixture
def state(quantized_families, tmp_path, monkeypatch) -> Compilation:
    for module in (family_passes, settle):  # one backend is enough here
        monkeypatch.setattr(module, "judges", lambda family: [OnnxRuntimeBackend()])
    state = copy.copy(quantized_families)
    state.families, state.fallbacks = list(state.families), []
    state.request = replace(state.request, out=tmp_path / "x.jetsight")
    return state


def finish(state: Compilation) -> Bundle:
    """The passes from the gates on."""
    for run in (
        pipeline.gate_graphs,
        pipeline.gate_planners,
        pipeline.require_gates,
        pipeline.name_families,
        pipeline.write_bundle,
    ):
        run(state)
    return state.bundle


@pytest.fixture
def limit(monkeypatch) -> Callable[..., None]:
    """Move a limit for one number format."""

    def moved(name: str, precision: str, value: float) -> None:
        direction, limits = gate.LIMITS[name]
        monkeypatch.setitem(gate.LIMITS, name, (direction, {**limits, precision: value}))

    return moved


def fallbacks(bundle: Bundle) -> list[tuple[str, str, str, str]]:
    found = bundle.manifest.fallbacks
    return [(each.family, each.graph, each.action, each.detail) for each in found]


def precisions(bundle: Bundle) -> dict[str, list[str]]:
    return {each.name: list(each.precision.values()) for each in bundle.manifest.families}


def test_what_passes_is_written_as_requested(state) -> None:
    bundle = finish(state)
    assert precisions(bundle) == {"cpu-fp32": ["fp32"] * 2, "cpu-int8": ["int8"] * 2}
    assert bundle.manifest.fallbacks == ()
    assert Compiled(bundle, {}).complete


def test_the_block_that_a_gate_names_goes_back_to_float(state, limit) -> None:
    limit(PREDICTOR, "int8", 32.0)
    bundle = finish(state)
    (found,) = bundle.manifest.fallbacks
    assert (found.family, found.graph, found.action) == ("cpu-int8", "forecast", "blocks")
    assert found.reason.startswith(f"cpu-int8 {PREDICTOR} is 31.3")
    assert precisions(bundle)["cpu-int8"] == ["int8", "int8"], "the rest stays quantized"
    nodes = nodes_of(onnx.load_from_string(bundle.graph("cpu-int8", "forecast")))
    named = {n.name: n for n in nodes.values() if n.op_type in ("MatMul", "Gemm")}
    exact = {n.name: n for n in state.families[1].exact["forecast"].graph.node}
    for name, node in named.items():
        in_float = block_of(name) in found.detail.split(", ")
        assert (node.input[0] == exact[name].input[0]) or not in_float
    assert any(block_of(name) in found.detail for name in named)
    assert all(g.passed and g.control_failed for g in bundle.manifest.gates)
    assert Compiled(bundle, {}).complete, "what was requested is there"


def test_a_graph_that_no_block_mends_is_in_float_and_the_name_says_so(state, limit) -> None:
    limit(ENCODER, "int8", 90.0)
    bundle = finish(state)
    assert precisions(bundle) == {"cpu-fp32": ["fp32"] * 2, "cpu-fp32-int8": ["fp32", "int8"]}
    assert fallbacks(bundle) == [
        ("cpu-int8", "encode", "float", "fp32"),
        ("cpu-int8", "", "renamed", "cpu-fp32-int8"),
    ]
    assert bundle.graph("cpu-fp32", "encode") == bundle.graph("cpu-fp32-int8", "encode")
    assert {each.family for each in bundle.manifest.gates} == {"cpu-fp32", "cpu-fp32-int8"}
    assert "cpu-fp32-int8/encode" not in bundle.manifest.provenance.tool
    assert not Compiled(bundle, {}).complete
    with Session.open(bundle, "onnxruntime", "cpu-fp32-int8") as session:
        assert min(session.parity.values()) > 0.99


def test_a_family_that_ends_in_float_is_merged_into_the_float_family(state, limit) -> None:
    limit(ENCODER, "int8", 90.0)
    limit(PREDICTOR, "int8", 90.0)
    bundle = finish(state)
    assert precisions(bundle) == {"cpu-fp32": ["fp32", "fp32"]}
    assert fallbacks(bundle)[-1] == ("cpu-int8", "", "merged", "cpu-fp32")


def test_a_family_that_fails_in_float32_is_left_out(state, limit) -> None:
    limit(IMPOSSIBLE, "fp32", 2.0)
    said: list[str] = []
    state.say = said.append
    bundle = finish(state)
    assert precisions(bundle) == {"cpu-int8": ["int8", "int8"]}
    assert fallbacks(bundle) == [("cpu-fp32", "", "left_out", "")]
    assert "limit at least 2" in bundle.manifest.fallbacks[0].reason
    assert "cpu-fp32: left out" in said


def test_without_any_family_nothing_is_written(state, limit) -> None:
    limit(IMPOSSIBLE, "fp32", 2.0)
    limit(IMPOSSIBLE, "int8", 2.0)
    with pytest.raises(GateError, match=r"no bundle was written: cpu-fp32 latent_cosine .*next:"):
        finish(state)
    assert not state.request.out.exists()


def test_strictly_one_failed_gate_is_enough(state, limit) -> None:
    limit(ENCODER, "int8", 90.0)
    state.request = replace(state.request, strict=True)
    with pytest.raises(GateError, match=r"cpu-int8 latent_sqnr_db is 24.*, limit at least 90"):
        finish(state)
    assert not state.request.out.exists()


@pytest.mark.parametrize("strict", [False, True])
def test_a_control_that_passes_stops_everything(state, limit, strict) -> None:
    """A limit that even half a mis-scaled layer keeps: the gate no longer sees what it is for."""
    limit(ENCODER, "int8", -100.0)
    state.request = replace(state.request, strict=strict)
    with pytest.raises(GateError, match=r"negative control reached .* and should have failed"):
        finish(state)
    assert not state.request.out.exists()


def with_planner(state: Compilation, values: list[float], patch: pytest.MonkeyPatch) -> None:
    """Add a planner whose rank correlation is the next of `values` at each judgement."""
    state.plans_expected = {
        PLANNER: cast(Any, SimpleNamespace(facts=SimpleNamespace(graph=PLANNER)))
    }
    for index, family in enumerate(state.families):
        state.families[index] = replace(
            family,
            precision={**family.precision, PLANNER: "fp32"},
            graphs={**family.graphs, PLANNER: family.graphs["forecast"]},
            exact={**family.exact, PLANNER: family.exact["forecast"]},
        )
    state.requested = {each.plan.name: each.precision for each in state.families}

    def judged(planner: Any, backends: Any) -> GateResult:
        rank = {"imagine_rank": Measurement(values.pop(0))}
        return GateResult({"imagine": planner.precision}, rank, {"imagine_rank": 0.1})

    patch.setattr(planner_gates, "judge", judged)


def test_a_planner_that_fails_in_float32_is_left_out_of_that_family(state, monkeypatch) -> None:
    with_planner(state, [0.2, 1.0], monkeypatch)
    for run in (pipeline.gate_graphs, pipeline.gate_planners, pipeline.require_gates):
        run(state)
    without, having = state.families
    assert PLANNER not in {**without.graphs, **without.precision, **without.quantized}
    assert PLANNER in having.graphs
    (found,) = state.fallbacks
    assert (found.family, found.graph, found.action) == ("cpu-fp32", PLANNER, "left_out")
    assert "imagine_rank is 0.2, limit at least 0.9999" in found.reason
    ranked = [f for f, gates in state.gates.items() if "imagine_rank" in {g.name for g in gates}]
    assert ranked == ["cpu-int8"]


def test_blocks_of_a_graph_without_a_recipe_go_back_to_float(exports) -> None:
    """Weights with outliers: what INT8 really loses, returns with the block that has them."""
    graph = onnx.ModelProto()
    graph.CopyFrom(exports.graph("conv", "forecast"))
    rng = np.random.default_rng(0)
    sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.graph.input}
    samples = [
        {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
        for _ in range(8)
    ]
    layers = [each for each in schemes.quantizable(graph) if "last" in each]
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name in {nodes_by_name(graph)[each].input[1] for each in layers}:
        value = onnx.numpy_helper.to_array(weights[name]).copy()
        value[0] = 40.0 * np.abs(value).max()
        weights[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
    whole = schemes.cpu_int8(graph, samples, methods=("max",))
    right = quantized.outputs(graph, samples)

    def error(made: quantized.Quantized) -> float:
        return quantized.relative_error(quantized.outputs(made.model, samples), right)

    assert whole.recipe is None
    order = float_fallback.most_harmful(graph, whole, samples[3::4], right[3::4])
    mended = float_fallback.restore_float(whole, graph, order[:1])
    control = float_fallback.restore_float(whole, graph, order[-1:])
    assert order[0] == "last"
    assert error(mended) < 0.5 * error(control) <= error(whole) * 1.01
    assert mended.tensors < whole.tensors
    everything = float_fallback.restore_float(whole, graph, order)
    assert error(everything) < 1e-10, "all layers in float are the float graph"


def nodes_by_name(graph: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in graph.graph.node}


def test_the_command_says_what_is_missing(inputs, exports, tmp_path, limit, capsys, monkeypatch):
    exports.stand_in(monkeypatch)
    limit(IMPOSSIBLE, "fp32", 2.0)
    out = tmp_path / "x.jetsight"
    command = ["compile", str(inputs / "ckpt"), "--calib", str(inputs / "calib"), "--no-planner"]
    command += ["--method", "max", "--json", "--out"]
    assert main([*command, str(out)]) == INCOMPLETE
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is False
    assert [each["name"] for each in found["families"]] == ["cpu-int8"]
    assert [each["action"] for each in found["fallbacks"]] == ["left_out"]
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Not as requested\n  cpu-fp32: LEFT OUT, because cpu-fp32 latent_cosine" in shown
    assert main([*command, str(tmp_path / "strict.jetsight"), "--strict"]) == 6
    assert not (tmp_path / "strict.jetsight").exists()
