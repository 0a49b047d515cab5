"""Planner graphs of every kind of family: float, half, quantized, and as TensorRT takes them."""

from __future__ import annotations

import importlib.util
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from helpers.compile import tensorrt_rtx
from helpers.compile.planner_world import (
    PLANNERS,
    draws,
    imagining_model,
    problem_of,
    run_graph,
    start,
)
from helpers.compile.probes import windows_of

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle.parity import spearman
from jetsight.testing import tiny_planner
from jetsight_compile.calibration.data import Episodes, Side
from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.calibration.run import run_all
from jetsight_compile.config.targets import plan
from jetsight_compile.export import onnx_graph
from jetsight_compile.export.onnx_export import check_graph, operator_counts
from jetsight_compile.pipeline import family as families
from jetsight_compile.pipeline.family import FamilyBuilder, Options
from jetsight_compile.pipeline.family_passes import export_family, quantize_family
from jetsight_compile.planner_graph.signature import ImaginePorts

SPEC = tiny_planner(kind="icem", samples=16, horizon=2, elites=6, kept=2, rate_limited=True)
needs_rtx = pytest.mark.skipif(
    not importlib.util.find_spec("tensorrt_rtx"),
    reason="tensorrt_rtx is not installed; run: pip install 'jetsight[rtx]'",
)


class Made:
    """Families of one model, each made once; its other graphs are stand-ins."""

    def __init__(self) -> None:
        self.model = imagining_model(heads=False)
        frames = np.zeros((4, 24, 24, 3), np.uint8)
        z = np.zeros((4, self.model.config.latent_size), np.float32)
        side = Side(frames, z, windows_of(16), cast(Any, None))
        self.windows = side.windows
        both = Episodes(side, side)
        options = Options(methods=("max",))
        self.builder = FamilyBuilder(self.model, both, options, lambda line: None, [SPEC])
        self._made: dict[tuple[str, str], families.FamilyGraphs] = {}

    def family(self, target: str, precision: str) -> families.FamilyGraphs:
        if (target, precision) not in self._made:
            (each,) = plan([target], [precision])
            self._made[target, precision] = quantize_family(
                self.builder, export_family(self.builder, each)
            )
        return self._made[target, precision]


@pytest.fixture(scope="module")
def made():
    def nothing(model: Any, style: Any) -> onnx.ModelProto:
        return onnx.ModelProto()

    with pytest.MonkeyPatch.context() as patch:
        for name in families.EXPORTS:
            patch.setitem(families.EXPORTS, name, nothing)
        yield Made()


def test_a_family_carries_a_graph_per_planner(made) -> None:
    found = made.family("cpu", "fp32")
    assert found.precision["imagine_icem_16x2"] == "fp32"
    assert list(found.graphs) == ["encode", "forecast", "imagine_icem_16x2"]
    check_graph(found.graphs[SPEC.graph], SPEC.graph, ImaginePorts.of(made.model, SPEC))
    assert found.exact[SPEC.graph] is found.graphs[SPEC.graph]


@pytest.mark.parametrize("target", ["orin-jp6", pytest.param("orin-jp7", marks=pytest.mark.slow)])
def test_half_precision_rounds_and_only_that(made, target) -> None:
    graph = made.family(target, "fp16").graphs[SPEC.graph]
    halves = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert not any(tensor.name.startswith("judge/") for tensor in halves)
    assert len(halves) > 30
    problem, noises = problem_of(made.model, SPEC), draws(made.model, SPEC, 1)
    first = start(made.model, problem)
    engine = OnnxRuntimeBackend(optimise=False).load(graph.SerializeToString())
    found = run_graph(engine, problem, first, noises)
    with torch.inference_mode():
        expected = PLANNERS["icem"].step(made.model, problem, first, noises[0])
    assert spearman(found.costs.numpy(), expected.costs.numpy()) > 0.98
    torch.testing.assert_close(found.costs, expected.costs, rtol=0.05, atol=0.05)
    assert (found.costs != expected.costs).all()  # the control: it is another number format


def test_samples_are_a_plan_from_its_beginning_to_its_end(made) -> None:
    found = imagine_samples(made.windows, SPEC, made.model, most=8)
    shapes = ImaginePorts.of(made.model, SPEC).tensors.inputs
    assert [{n: v.shape for n, v in each.items()} for each in found] == [shapes] * 8
    widths = [float(each["std"].max()) for each in found]
    assert widths[:4] == sorted(widths[:4], reverse=True)
    assert widths[0] > 5 * widths[3]
    index = 0
    np.testing.assert_array_equal(found[index]["z_hist"], made.windows.z[index, :3])
    np.testing.assert_array_equal(found[index]["z_goal"], made.windows.z[index, 4])
    again = imagine_samples(made.windows, SPEC, made.model, most=8)
    np.testing.assert_array_equal(found[5]["noise"], again[5]["noise"])
    assert (found[5]["noise"] != found[4]["noise"]).any()


def test_the_cpus_int8_ranks_the_same(made) -> None:
    found = made.family("cpu", "encode=fp32,forecast=fp32,imagine=int8")
    graph, exact = found.graphs[SPEC.graph], found.exact[SPEC.graph]
    assert found.precision[SPEC.graph] == "int8"
    assert found.quantized[SPEC.graph].layers == tuple(onnx_graph.quantizable(exact))
    check_graph(graph, SPEC.graph, ImaginePorts.of(made.model, SPEC))
    samples = imagine_samples(made.windows, SPEC, made.model, most=4)
    costs, right = (
        run_all(OnnxRuntimeBackend(), each.SerializeToString(), samples) for each in (graph, exact)
    )
    ranks = [spearman(*pair) for pair in zip(costs, right, strict=True)]
    assert ranks[0] > 0.95
    assert max(ranks) == ranks[0]  # in narrower searches costs are closer to each other
    assert spearman(costs[0], right[1]) < 0.5  # the control: another start's candidates


@needs_rtx
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("orin-jp6", "fp16"),
        pytest.param("orin-jp7", "fp16", marks=pytest.mark.slow),
        pytest.param("orin-jp7", "bf16", marks=pytest.mark.slow),
        pytest.param("orin-jp7", "fp32", marks=pytest.mark.slow),
    ],
)
def test_tensorrt_compiles_a_planner(made, target, precision) -> None:
    graph = made.family(target, precision).graphs[SPEC.graph]
    built = tensorrt_rtx.build(graph.SerializeToString())
    inputs, outputs = ImaginePorts.of(made.model, SPEC).signature(SPEC.graph)
    promised = [{n: ("float32", s) for n, (_, s) in side.items()} for side in (inputs, outputs)]
    assert [built.inputs, built.outputs] == promised
    counts = operator_counts(graph)
    assert built.layers["MATRIX_MULTIPLY"] == counts["Gemm"] + counts["MatMul"]
    assert built.layers["NORMALIZATION"] == counts["LayerNormalization"]
    assert built.layers["TOPK"] == counts["TopK"]
