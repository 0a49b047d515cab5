"""Layers of a graph, their fallback blocks, and their arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.compile.probes import copy_of, graph_of, nodes_of, tensors_of
from onnx import helper

from jetsight.errors import EngineError, UsageError
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import (
    block_of,
    blocks_of,
    check_quantized,
    graph_flop,
    matches_any,
    quantizable,
    share,
    weighted,
    work,
)

STYLE = Style(20, gelu="erf")


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("step0/blocks.0.qkv/Gemm", "blocks.0"),
        ("step11/blocks.10.mlp.up/Gemm_2", "blocks.10"),
        ("trunk.blocks.1.attention/MatMul", "trunk.blocks.1"),
        ("trunk.layers.0/Conv", "trunk.layers.0"),
        ("step1/last.kv/Gemm", "last"),
        ("trunk.last.mlp.down/Gemm", "trunk.last"),
        ("step0/project/Gemm", "project"),
        ("step0/project.up/Gemm", "project"),
        ("trunk.projector.up/Gemm", "trunk.projector"),
        ("trunk.embed/Gemm", "trunk.embed"),
        ("trunk.lastly/Gemm", "trunk.lastly"),
        ("all/Gemm", "all"),
    ],
)
def test_a_layer_belongs_to_a_block(layer, block) -> None:
    assert block_of(layer) == block


@pytest.mark.parametrize(
    ("kind", "name", "blocks"),
    [
        ("conv", "encode", ["trunk.layers.0", "trunk.layers.1", "trunk.hidden", "trunk.out"]),
        ("vit", "encode", ["trunk.embed", "trunk.blocks.0", "trunk.last", "trunk.projector"]),
        ("vit", "forecast", ["all", "blocks.0", "last", "project"]),
    ],
)
def test_blocks_hold_every_layer_once_in_the_order_they_run(exports, kind, name, blocks) -> None:
    layers = quantizable(exports.graph(kind, name, STYLE))
    found = blocks_of(layers)
    assert list(found) == blocks
    assert sorted(layer for each in found.values() for layer in each) == sorted(layers)
    assert len(set(layers)) == len(layers)
    for block, each in found.items():
        assert {block_of(layer) for layer in each} == {block}


def test_a_block_spans_all_unrolled_steps(exports) -> None:
    blocks = blocks_of(quantizable(exports.graph("conv", "forecast", STYLE)))
    assert {name.split("/")[0] for name in blocks["blocks.0"]} == {"step0", "step1"}
    assert blocks["all"] == ["all/Gemm"]


def small() -> dict[str, np.ndarray]:
    return {
        "w": np.ones((4, 8), np.float32),
        "k": np.ones((6, 3, 2, 2), np.float32),
        "left": np.ones((5, 7), np.float32),
    }


def test_work_is_what_one_counts_by_hand() -> None:
    make = helper.make_node
    nodes = [
        make("Gemm", ["x", "w"], ["h"], name="gemm"),  # [7, 4] @ [4, 8]
        make("MatMul", ["left", "h"], ["m"], name="left"),  # [5, 7] @ [7, 8]
        make("Transpose", ["h"], ["t"], name="t"),
        make("MatMul", ["m", "t"], ["y"], name="both"),  # [5, 8] @ [8, 7], no constant
    ]
    graph = graph_of(nodes, small(), x=(7, 4), y=(5, 7))
    assert work(graph) == {"gemm": 7 * 4 * 8, "left": 5 * 7 * 8, "both": 5 * 8 * 7}
    assert graph_flop(graph.SerializeToString()) == 2 * (224 + 280 + 280)
    assert share(graph, ["gemm"]) == 224 / (224 + 280 + 280)
    assert share(graph, ["gemm", "left", "both"]) == 1.0
    assert share(graph, []) == 0.0
    assert quantizable(graph) == ["gemm", "left"]
    conv = graph_of(
        [make("Conv", ["x", "k"], ["y"], name="c", strides=[2, 2])],
        small(),
        x=(1, 3, 8, 8),
        y=(1, 6, 4, 4),
    )
    assert work(conv) == {"c": (6 * 4 * 4) * (3 * 2 * 2)}


def test_a_graph_of_unknown_shapes_is_refused() -> None:
    """A dynamic size reads as 0, and so would the work."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="where"),  # its size depends on x
        helper.make_node("Cast", ["where"], ["h"], name="cast", to=1),
        helper.make_node("MatMul", ["w", "h"], ["y"], name="product"),
    ]
    graph = graph_of(nodes, {"w": np.ones((3, 2), np.float32)}, x=(7, 4), y=(3, 9))
    with pytest.raises(
        EngineError, match=r"not static: the shape of 'h' is not known; export it with static"
    ):
        work(graph)


def test_patterns_are_of_layers_with_or_without_their_step(exports) -> None:
    graph = exports.graph("conv", "forecast", STYLE)
    assert matches_any(graph, "last.*")
    assert matches_any(graph, "step1/last.kv/*")
    assert not matches_any(graph, "step2/last.kv/*")
    assert not matches_any(graph, "trunk.*")
    left = quantizable(graph, ["last.*"])
    assert len(left) == 21 - 2 * 5 - 2  # and the latents' own layer, of each step
    with pytest.raises(UsageError, match=r"'lost\.\*' matches no layer; layers are \['action_emb"):
        quantizable(graph, ["last.*", "lost.*"])


def test_what_is_small_and_delicate_is_never_quantized(exports) -> None:
    for kind in ("conv", "vit"):
        graph = exports.graph(kind, "forecast", STYLE)
        delicate = [n.name for n in weighted(graph) if n.name.startswith("action_embedding.")]
        assert len(delicate) == 3
        assert not set(delicate) & set(quantizable(graph))


def test_the_latents_own_layers_stay_float_where_they_are_few_of_the_products(exports) -> None:
    """A projector of two large layers is worth quantizing; the control, on a graph of each kind."""
    for kind, stays in (("conv", True), ("vit", False)):
        graph = exports.graph(kind, "forecast", STYLE)
        latents = {n.name for n in weighted(graph) if "/project" in n.name}
        assert (share(graph, latents) < 0.02) == stays
        assert latents & set(quantizable(graph)) == (set() if stays else latents)
        graph.graph.name = "imagine_icem_8x2"
        try:
            assert not latents & set(quantizable(graph))
        finally:
            graph.graph.name = "forecast"


def quantized_graph():
    """`x -> Q -> DQ -> Gemm(DQ weight)`, by hand."""
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        make("DequantizeLinear", ["q", "s", "z"], ["dq"], name="dq"),
        make("DequantizeLinear", ["wq", "s", "z"], ["wdq"], name="wdq"),
        make("Gemm", ["dq", "wdq"], ["y"], name="layer"),
    ]
    tensors = {
        "s": np.float32(0.1).reshape(()),
        "z": np.zeros((), np.int8),
        "wq": np.ones((4, 8), np.int8),
        "w": np.ones((4, 8), np.float32),
    }
    return graph_of(nodes, tensors, x=(7, 4), y=(7, 8))


def test_proof_of_quantization_needs_both_inputs() -> None:
    graph = quantized_graph()
    assert check_quantized(graph, ["layer"]) == 2
    for index, value in ((0, "x"), (1, "w")):
        wrong = copy_of(graph)
        nodes_of(wrong)["layer"].input[index] = value
        with pytest.raises(EngineError, match=r"left layer 'layer' in float \(inputs quantized"):
            check_quantized(wrong, ["layer"])
    weights_alone = copy_of(graph)
    nodes_of(weights_alone)["layer"].input[0] = "x"
    assert check_quantized(weights_alone, ["layer"], activations=False) == 1
    with pytest.raises(EngineError, match="'layer' in float"):
        check_quantized(graph, ["layer"], activations=False)
    with pytest.raises(EngineError, match="'renamed' in float"):
        check_quantized(graph, ["renamed"])
    assert set(tensors_of(graph)) == {"s", "z", "wq", "w"}
