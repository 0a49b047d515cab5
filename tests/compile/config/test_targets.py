from __future__ import annotations

import pytest

from jetsight.errors import UsageError
from jetsight_compile.config.targets import TARGETS, check_planner, plan


@pytest.mark.parametrize(
    ("targets", "precisions", "families"),
    [
        (["cpu"], [], {"cpu-fp32": ("cpu",), "cpu-int8": ("cpu",)}),
        (["rtx"], [], {"trt-op23-fp16": ("rtx",)}),
        (
            ["orin-jp6"],
            ["fp16", "fp32"],
            {"trt-op20-fp16": ("orin-jp6",), "trt-op20-fp32": ("orin-jp6",)},
        ),
        (["orin-jp7", "thor-jp7", "orin-jp7"], [], {"trt-op23-fp16": ("orin-jp7", "thor-jp7")}),
        (
            ["cpu", "rtx"],
            ["auto"],
            {"cpu-fp32": ("cpu",), "cpu-int8": ("cpu",), "trt-op23-auto": ("rtx",)},
        ),
        (["cpu", "rtx"], ["fp32"], {"cpu-fp32": ("cpu",), "trt-op23-fp32": ("rtx",)}),
    ],
)
def test_families_serve_their_targets_once(targets, precisions, families) -> None:
    assert {each.name: each.targets for each in plan(targets, precisions)} == families


@pytest.mark.parametrize(
    ("targets", "precisions", "says"),
    [
        (["xavier"], [], "unknown target 'xavier'; choose one or more of cpu"),
        (["cpu"], ["fp16"], "cannot be compiled in fp16: CPU backends compute it in float32"),
        (["orin-jp6"], ["fp8"], "Orin .* has no FP8"),
        (["orin-jp6"], ["int4"], "opset 20, and INT4 needs opset 21"),
        (["thor-jp70"], ["nvfp4"], "FP4 needs opset 23"),
        (["rtx"], ["int8"], "documents INT8 for weights only.* choose fp32 or fp16"),
        (["cpu"], ["int3"], "unknown precision 'int3'; choose one of fp32, fp16"),
        (["orin-jp7"], ["encode=fp16"], "must name each of encode, forecast once"),
        (["cpu", "rtx"], ["int8"], "target rtx"),
        ([], [], "no target was given"),
    ],
)
def test_what_a_target_cannot_run_is_refused_with_the_reason(targets, precisions, says) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        plan(targets, precisions)
    assert "\n" not in str(caught.value)


def test_old_tensorrt_gets_old_operators() -> None:
    style = TARGETS["orin-jp6"].style
    assert (style.opset, style.attention, style.gelu) == (20, "parts", "erf")
    assert TARGETS["orin-jp7"].style.attention == "fused"


def test_every_default_is_allowed_and_every_refusal_is_not() -> None:
    for target in TARGETS.values():
        assert set(target.default) <= set(target.allowed)
        assert not set(target.refused) & set(target.allowed)


@pytest.mark.parametrize("target", TARGETS)
def test_elites_are_limited_by_the_topk_of_tensorrt(target: str) -> None:
    """The limit is on K, the number of elites; the number of samples does not matter."""
    check_planner(["cpu", target], "cem:38400", 3840)
    if target == "cpu":
        check_planner([target], "cem:65536", 65536)
        return
    with pytest.raises(UsageError) as caught:
        check_planner(["cpu", target], "cem:38410", 3841)
    said = str(caught.value)
    for part in (
        "cem:38410 has 3841 elites",
        f"target {target} (",
        "at most 3840",
        "set elites to",
    ):
        assert part in said
    assert "\n" not in said
