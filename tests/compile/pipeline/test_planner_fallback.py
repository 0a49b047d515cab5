"""Blocks that go back to float until a planner plans as before."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from helpers.compile.probes import graph_of, nodes_of
from onnx import helper

from jetsight_compile.config.targets import plan
from jetsight_compile.export.onnx_graph import block_of
from jetsight_compile.pipeline import settle
from jetsight_compile.pipeline.family import FamilyGraphs
from jetsight_compile.quantize import float_fallback, quantized, schemes
from jetsight_compile.validate import planner_gates

GRAPH, ROWS, SIZE = "imagine_cem_8x2", 64, 16
BLOCKS = ("blocks.0", "blocks.1", "blocks.2", "blocks.3")


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((ROWS, SIZE)).astype(np.float32)} for _ in range(8)]


@pytest.fixture(scope="module")
def exact() -> onnx.ModelProto:
    """Four products in a row; INT8 loses most where one input has huge weights."""
    rng, tensors, nodes = np.random.default_rng(0), {}, []
    for index, block in enumerate(BLOCKS):
        tensors[f"w{index}"] = rng.standard_normal((SIZE, SIZE)).astype(np.float32) / 4
        out = "y" if block == BLOCKS[-1] else f"h{index + 1}"
        name = f"step0/{block}.up/MatMul"
        nodes.append(
            helper.make_node("MatMul", [f"h{index}" if index else "x", f"w{index}"], [out], name)
        )
    tensors["w2"][0] = 40.0
    model = graph_of(nodes, tensors, x=(ROWS, SIZE), y=(ROWS, SIZE))
    model.graph.name = GRAPH
    return model


class Case:
    """A family with one quantized planner, and gates that a test decides."""

    def __init__(self, exact, samples, patch: pytest.MonkeyPatch) -> None:
        (family,) = plan(["cpu"], ["int8"])
        whole = schemes.cpu_rows(exact, samples)
        precision = dict.fromkeys(("encode", "forecast", GRAPH), "int8")
        self.made = FamilyGraphs(
            family,
            {GRAPH: exact},
            precision=precision,
            graphs={GRAPH: whole.model},
            quantized={GRAPH: whole},
        )
        self.judged: list[tuple[str, ...]] = []
        self.said: list[str] = []
        self.builder = cast(
            Any,
            SimpleNamespace(
                samples={GRAPH: samples},
                exported=lambda graph, style: exact,
                ports=lambda graph: None,
                say=self.said.append,
            ),
        )
        self.enough = 0
        patch.setattr(planner_gates, "judge", self._judge)
        patch.setattr(settle, "finished", lambda model, graph, ports: model)

    def _judge(self, planner: Any, backends: Any) -> Any:
        products = [n for n in planner.compiled.graph.node if n.name.startswith("step0/")]
        kept = tuple(block_of(n.name) for n in products if n.op_type == "MatMul")
        self.judged.append(kept)
        return SimpleNamespace(passed=len(kept) >= self.enough, gates=lambda family: [])

    def settled(self, enough: int, *, whole: bool = True) -> tuple[FamilyGraphs, bool]:
        self.enough = enough
        truth = cast(Any, SimpleNamespace(facts=SimpleNamespace(graph=GRAPH)))
        settled = settle.settle_planner(self.builder, self.made, truth, whole=whole)
        self.reasons = settled.reasons
        return settled.family, settled.result.passed


@pytest.fixture
def case(exact, samples, monkeypatch) -> Case:
    return Case(exact, samples, monkeypatch)


def test_a_planner_that_passes_stays_as_it_is(case) -> None:
    made, passed = case.settled(0)
    assert passed
    assert made is case.made
    assert case.judged == [()]
    assert case.said == [f"gate cpu-int8 {GRAPH}"]


def test_the_most_harmful_block_goes_back_first(case, exact, samples) -> None:
    made, passed = case.settled(1)
    order = float_fallback.most_harmful(
        exact, case.made.quantized[GRAPH], samples[3::4], quantized.outputs(exact, samples[3::4])
    )
    assert passed
    assert made.quantized[GRAPH].kept == (order[0],)
    assert case.judged == [(), (order[0],)]
    assert nodes_of(made.graphs[GRAPH])[f"step0/{order[0]}.up/MatMul"].op_type == "MatMul"
    assert made.quantized[GRAPH].share == 0.75
    assert case.said[-1] == f"cpu-int8 {GRAPH}: {order[0]} in float"


def test_half_of_the_products_stay_quantized_or_none(case, exact) -> None:
    made, passed = case.settled(3)
    assert passed
    assert [len(kept) for kept in case.judged] == [0, 1, 2, 4]
    assert made.precision == {"encode": "int8", "forecast": "int8", GRAPH: "fp32"}
    assert made.graphs[GRAPH] is exact
    assert GRAPH not in made.quantized
    assert case.said[-1] == f"cpu-int8 {GRAPH}: all in fp32"


def test_strictly_it_fails_where_blocks_are_not_enough(case) -> None:
    made, passed = case.settled(3, whole=False)
    assert not passed
    assert [len(kept) for kept in case.judged] == [0, 1, 2]
    assert made.quantized[GRAPH].share == 0.5
    assert len(made.quantized[GRAPH].kept) == 2


def test_a_planner_that_fails_in_float32_has_nothing_to_give_back(case) -> None:
    precision = {**case.made.precision, GRAPH: "fp32"}
    graphs = {GRAPH: case.made.exact[GRAPH]}
    case.made = replace(case.made, quantized={}, graphs=graphs, precision=precision)
    made, passed = case.settled(9)
    assert not passed
    assert made is case.made
    assert len(case.judged) == 1
    assert not case.reasons
