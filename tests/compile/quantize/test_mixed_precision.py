"""`--precision auto` on cases where the right answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.compile.probes import copy_of, graph_of, nodes_of, samples_of, windows_of
from onnx import helper, numpy_helper

from jetsight.errors import GateError, UsageError
from jetsight.machine.jetson_modules import MODULES, Module
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_graph import block_of, blocks_of, quantizable, share
from jetsight_compile.quantize import (
    float_fallback,
    mixed_precision,
    qdq,
    quantized,
    ranges,
    schemes,
)
from jetsight_compile.quantize.mixed_precision import Task, choose, floor_ms, smallest_module
from jetsight_compile.validate.plan_agreement import question

STYLE = Style(20, gelu="erf")
NANO = MODULES[0]


def task_of(exports, allowed: tuple[str, ...] = ("fp32", "fp16", "int8"), **changed) -> Task:
    """The forecast of the tiny model, of which INT8 keeps 39 dB."""
    plain = Task(
        graph="forecast",
        export=lambda compute: exports.graph("conv", "forecast", STYLE.computing(compute)),
        allowed=allowed,
        base="fp16",
        samples=samples_of(exports, "conv", "forecast", 16),
        methods=("max",),
        keep_float=(),
        query=None,
        module=NANO,
        say=lambda text: None,
    )
    return dataclasses.replace(plain, **changed)


def quantizer(exports, harmful: dict[str, float]):
    """`quantize.tensorrt` without ModelOpt, whose ranges are wrong by a factor in some blocks."""
    graph = exports.graph("conv", "forecast", STYLE)
    layers = tuple(quantizable(graph))
    reads = {name: nodes_of(graph)[name].input[0] for name in layers}
    seen = ranges.collect(graph, reads.values(), samples_of(exports, "conv", "forecast", 8))
    amax = {n: seen[v].amax * harmful.get(block_of(n), 1.0) for n, v in reads.items()}

    def tensorrt(exact, kind, samples, *, methods, keep_float=()) -> quantized.Quantized:
        kept = tuple(quantizable(exact, keep_float))
        recipe = qdq.QuantizationRecipe(kind, kept, {name: amax[name] for name in kept})
        return quantized.applied(exact, recipe, methods[0], {methods[0]: 0.0})

    return tensorrt


def test_what_passes_whole_is_taken_whole(exports, monkeypatch) -> None:
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {}))
    said: list[str] = []
    choice = choose(task_of(exports, say=said.append))
    assert choice.precision == "int8"
    assert [(t.precision, t.kept, t.passed) for t in choice.trials] == [
        ("fp32", (), True),
        ("fp16", (), True),
        ("int8", (), True),
    ]
    assert [trial.chosen for trial in choice.trials] == [False, False, True]
    assert choice.made.layers == tuple(quantizable(exports.graph("conv", "forecast", STYLE)))
    assert said == [f"try forecast in {p}" for p in ("fp32", "fp16", "int8")]


@pytest.mark.parametrize("block", ["all", "last"])
def test_the_harmful_block_goes_back_to_float_and_no_other(exports, monkeypatch, block) -> None:
    """Its activations all land on zero; every other block is as good as it was."""
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {block: 1e4}))
    choice = choose(task_of(exports))
    assert [(t.precision, t.kept, t.passed) for t in choice.trials] == [
        ("fp32", (), True),
        ("fp16", (), True),
        ("int8", (), False),
        ("int8", (block,), True),
    ]
    whole, fewer = choice.trials[2:]
    assert fewer.chosen
    assert fewer.sqnr_db > 22 > whole.sqnr_db
    graph = exports.graph("conv", "forecast", STYLE)
    left = [name for name in quantizable(graph) if block_of(name) != block]
    assert choice.made.layers == tuple(left)
    assert fewer.share == pytest.approx(share(graph, left))
    assert whole.floor_ms < fewer.floor_ms < choice.trials[1].floor_ms


def test_two_harmful_blocks_go_one_after_the_other(exports, monkeypatch) -> None:
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {"all": 1e4, "last": 1e4}))
    monkeypatch.setattr(float_fallback, "FEWEST_SHARE", 0.1)
    choice = choose(task_of(exports))
    kept = [set(trial.kept) for trial in choice.trials if trial.precision == "int8"]
    assert [len(each) for each in kept] == [0, 1, 2]
    assert kept[1] < kept[2] == {"all", "last"}
    assert choice.precision == "int8"
    assert choice.trials[-1].passed


def test_too_little_left_to_quantize_is_not_worth_it(exports, monkeypatch) -> None:
    """Nearly everything is harmful: float it is, and no row keeps less than half of the work."""
    blocks = blocks_of(quantizable(exports.graph("conv", "forecast", STYLE)))
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, dict.fromkeys(blocks, 1e4)))
    choice = choose(task_of(exports))
    assert choice.precision == "fp16"
    assert choice.made is None
    assert all(trial.share >= float_fallback.FEWEST_SHARE for trial in choice.trials)
    assert not any(trial.passed for trial in choice.trials if trial.precision == "int8")


def test_the_planners_order_can_refuse_what_the_latents_would_pass(exports, monkeypatch) -> None:
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {"last": 4.0}))
    monkeypatch.setattr(mixed_precision, "LEAST_RANK", 0.99)
    choice = choose(task_of(exports, query=question(windows_of(40))))
    (chosen,) = (trial for trial in choice.trials if trial.chosen)
    assert chosen.kept
    assert chosen.plan.rank >= 0.99
    whole = next(trial for trial in choice.trials if trial.precision == "int8")
    assert whole.sqnr_db > mixed_precision.LEAST_DB
    assert 0.5 < whole.plan.rank < 0.99
    assert not whole.passed
    choice = choose(task_of(exports))
    assert choice.precision == "int8"
    assert all(trial.plan is None for trial in choice.trials)


def test_nothing_that_passes_is_an_error_with_a_way_out(exports, monkeypatch) -> None:
    monkeypatch.setattr(mixed_precision, "LEAST_DB", 1000.0)
    with pytest.raises(GateError, match=r"train longer, or compile this target in fp32") as caught:
        choose(task_of(exports, allowed=("fp16",)))
    assert "\n" not in str(caught.value)


def test_rows_say_what_was_measured(exports, monkeypatch) -> None:
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {}))
    monkeypatch.setattr(mixed_precision, "LEAST_RANK", 0.5)
    fp32, fp16, int8 = choose(task_of(exports, query=question(windows_of(40)))).trials
    assert fp32.sqnr_db > 120 > fp16.sqnr_db > int8.sqnr_db > 30
    assert (fp32.plan.rank, fp32.plan.first_action) == (1.0, 1.0)
    assert fp32.plan.rank > fp16.plan.rank > int8.plan.rank > 0.5
    assert {trial.module for trial in (fp32, fp16, int8)} == {"Orin Nano 4GB"}
    assert {trial.graph for trial in (fp32, fp16, int8)} == {"forecast"}
    assert fp32.floor_ms == pytest.approx(2 * fp16.floor_ms)
    assert fp16.share == fp32.share == 1.0 > int8.share > 0.9


def test_layers_that_were_asked_to_stay_float_do(exports, monkeypatch) -> None:
    monkeypatch.setattr(schemes, "tensorrt", quantizer(exports, {}))
    choice = choose(task_of(exports, keep_float=("last.*",)))
    assert choice.precision == "int8"
    assert not any(block_of(name) == "last" for name in choice.made.layers)
    with pytest.raises(UsageError, match="'lost' matches no layer"):
        choose(task_of(exports, keep_float=("lost",)))


def test_weights_alone_are_tried_where_they_come_in_groups(exports) -> None:
    """No weight of this tiny forecast has 64 inputs; of 16 most have."""
    style = Style(23, attention="fused")
    task = task_of(
        exports,
        allowed=("fp16", "int4", "nvfp4"),
        export=lambda compute: exports.graph("conv", "forecast", style.computing(compute)),
    )
    choice = choose(task)
    assert {trial.precision for trial in choice.trials} == {"fp16", "nvfp4"}
    assert choice.precision == ("nvfp4" if choice.trials[-1].passed else "fp16")


def test_a_format_whose_range_is_left_never_passes(exports) -> None:
    """Weights as they should not be: in float16 their sums are infinite, and then no numbers."""

    def export(compute: str):
        model = copy_of(exports.graph("conv", "forecast", STYLE.computing(compute)))
        for tensor in model.graph.initializer:
            if tensor.name == "step/blocks.0.mlp.up.weight":
                large = numpy_helper.to_array(tensor) * tensor_type(compute)(6e4)
                tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
        return model

    def tensor_type(compute: str):
        return {"fp32": np.float32, "fp16": np.float16}[compute]

    choice = choose(task_of(exports, allowed=("fp32", "fp16"), export=export))
    assert choice.precision == "fp32"
    assert choice.trials[1].sqnr_db < mixed_precision.LEAST_DB
    assert not choice.trials[1].passed


def module_of(ops: float, bandwidth_gb_s: float) -> Module:
    """`ops` multiply-accumulates of INT8 per second, half as many in FP16."""
    return dataclasses.replace(
        NANO, int8_tops=2 * ops / 1e12, fp16_tflops=ops / 1e12, bandwidth_gb_s=bandwidth_gb_s
    )


def three_layers():
    """`[2, 64] -> 32 -> 32 -> 32`, the last two with one weight, as unrolled steps have."""
    make = helper.make_node
    nodes = [
        make("Gemm", ["x", "a"], ["h"], name="first"),
        make("Gemm", ["h", "b"], ["i"], name="step0/again"),
        make("Gemm", ["i", "b"], ["y"], name="step1/again"),
    ]
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.standard_normal((64, 32)).astype(np.float32),
        "b": rng.standard_normal((32, 32)).astype(np.float32),
    }
    return graph_of(nodes, tensors, x=(2, 64), y=(2, 32))


def test_the_floor_by_hand_where_weights_decide() -> None:
    slow, graph = module_of(1e15, 1e-6), three_layers()  # 1000 bytes a second
    a, b = 64 * 32, 2 * 32 * 32  # shared weights are read once per use
    assert floor_ms(graph, "fp16", (), "fp16", slow) == pytest.approx(2 * (a + b))
    assert floor_ms(graph, "fp32", (), "fp32", slow) == pytest.approx(4 * (a + b))
    assert floor_ms(graph, "int8", ["first"], "fp16", slow) == pytest.approx(a + 2 * b)
    with_scales = a / 2 + 2 * a / 64
    assert floor_ms(graph, "int4", ["first"], "fp16", slow) == pytest.approx(with_scales + 2 * b)
    with_scales = a / 2 + a / 16
    assert floor_ms(graph, "nvfp4", ["first"], "fp16", slow) == pytest.approx(with_scales + 2 * b)


def test_the_floor_by_hand_where_products_decide() -> None:
    slow, graph = module_of(1e6, 1e9), three_layers()
    first, again = 2 * 64 * 32, 2 * 2 * 32 * 32
    per_ms = 1e3  # INT8; FP16 half of it, FP32 a quarter
    assert floor_ms(graph, "fp16", (), "fp16", slow) == pytest.approx((first + again) * 2 / per_ms)
    assert floor_ms(graph, "fp32", (), "fp32", slow) == pytest.approx((first + again) * 4 / per_ms)
    for kind in ("int8", "fp8"):
        expected = (first + again * 2) / per_ms
        assert floor_ms(graph, kind, ["first"], "fp16", slow) == pytest.approx(expected)
    weights_alone = floor_ms(graph, "int4", ["first"], "fp16", slow)
    assert weights_alone == pytest.approx((first + again) * 2 / per_ms), "they compute in float"


def test_the_smallest_module_of_the_targets_decides() -> None:
    assert smallest_module(["orin-jp6"]).name == "Orin Nano 4GB"
    assert smallest_module(["thor-jp7"]).name == "Thor T4000"
    assert smallest_module(["thor-jp7", "orin-jp7"]).name == "Orin Nano 4GB"
    assert smallest_module(["x86-trt11"]).name == "Thor T5000"
