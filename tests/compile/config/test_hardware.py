"""The tables of targets and Jetson modules, and the command that prints them."""

from __future__ import annotations

import json
import re

import pytest

from jetsight.cli import main
from jetsight.errors import UsageError
from jetsight.machine.jetson_modules import MODULES
from jetsight_compile.config.precision import PRECISIONS
from jetsight_compile.config.targets import TARGETS, plan


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_precision_is_allowed_or_has_its_reason(target) -> None:
    assert set(PRECISIONS) == set(target.allowed) | set(target.refused)
    for precision, reason in target.refused.items():
        assert precision not in target.allowed
        assert len(reason) > 20, "a reason, not a word"
        with pytest.raises(UsageError) as caught:
            plan([target.name], [precision])
        text = str(caught.value)
        assert reason in text
        assert target.name in text
        assert all(allowed in text for allowed in target.allowed)
        assert "\n" not in text


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_families_are_named_by_backend_opset_and_precision(target) -> None:
    prefix = "cpu" if target.name == "cpu" else f"trt-op{target.style.opset}"
    for precision in target.allowed:
        (family,) = plan([target.name], [precision])
        assert family.name == f"{prefix}-{precision}"
        assert family.precision == {"encode": precision, "forecast": precision}
        assert family.style.opset == target.style.opset
        assert family.style.compute == ("fp32" if target.name == "cpu" else "fp16")


def test_what_a_number_format_needs_is_there() -> None:
    """INT4 is in ONNX from opset 21, FP4 and attention from 23; TensorRT 10.3 parses up to 20."""
    for target in TARGETS.values():
        style = target.style
        assert style.opset >= 21 or "int4" not in target.allowed
        assert style.opset >= 23 or "nvfp4" not in target.allowed
        assert style.opset >= 23 or style.attention == "parts"
        if "10.3" in target.compiler:
            assert style.opset <= 20
            assert style.gelu == "erf"
        if target.name.startswith("orin"):
            assert not {"fp8", "nvfp4"} & set(target.allowed)


def test_another_base_is_another_name() -> None:
    (family,) = plan(["orin-jp7"], ["int8"], "bf16")
    assert (family.name, family.style.compute) == ("trt-op23-int8-overbf16", "bf16")
    (mixed,) = plan(["orin-jp7"], ["encode=fp16,forecast=int8"])
    assert mixed.name == "trt-op23-fp16-int8"


def test_auto_chooses_from_what_all_its_targets_run() -> None:
    (family,) = plan(["thor-jp7", "orin-jp7"], ["auto"])
    assert family.targets == ("thor-jp7", "orin-jp7")
    assert set(family.allowed) == set(PRECISIONS) - {"fp8", "nvfp4"}
    (alone,) = plan(["thor-jp7"], ["auto"])
    assert set(alone.allowed) == set(PRECISIONS)
    (card,) = plan(["x86-trt11"], ["auto"])  # it may be an Ampere, which has neither
    assert set(card.allowed) == set(PRECISIONS) - {"fp8", "nvfp4"}
    (named,) = plan(["x86-trt11"], ["fp8"])
    assert named.precision == {"encode": "fp8", "forecast": "fp8"}


def test_every_module_is_served_and_every_jetson_target_has_one() -> None:
    assert len({module.name for module in MODULES}) == len(MODULES) == 8
    for module in MODULES:
        assert set(module.targets) <= set(TARGETS)
        assert len(module.targets) > 1, "of JetPack 6 and 7, or of 7.0 and 7.2"
    served = {name for module in MODULES for name in module.targets}
    assert served == {name for name in TARGETS if name.startswith(("orin", "thor"))}


def test_figures_of_the_modules_fit_together() -> None:
    for module in MODULES:
        cuda, tensor = module.cores
        assert (module.sm == "8.7") == ("Orin" in module.name)
        assert 24 <= cuda / tensor <= 32
        assert module.int8_tops / module.fp16_tflops == pytest.approx(2.0, rel=0.05)
        assert 50 <= module.bandwidth_gb_s <= 273
        assert re.fullmatch(r"\d+(, \d+)*|\d+ to \d+", module.power_w)
    by_name = {module.name: module for module in MODULES}
    assert by_name["AGX Orin 64GB"].memory_gb == 64
    assert by_name["Orin Nano 8GB"].weights_floor_ms(102_000_000) == pytest.approx(1.0)
    assert by_name["Thor T5000"].weights_floor_ms(273_000_000) == pytest.approx(1.0)


def test_the_command_prints_both_tables(capsys) -> None:
    assert main(["targets"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0].split()[:5] == ["target", "machine", "compiler", "opset", "attention"]
    for target in TARGETS.values():
        row, features = (line for line in lines if line.startswith(f"{target.name} "))
        assert features.endswith(", ".join(target.features))
        assert target.compiler in row
        assert ("one operator" in row) == (target.style.attention == "fused")
        for precision in PRECISIONS:
            assert bool(re.search(rf"[ *]{precision}\b", row)) == (precision in target.allowed)
            assert (f"{precision}+" in row) == (precision in target.some)
        assert all(f"*{precision}" in row for precision in target.default)
    for module in MODULES:
        (row,) = (line for line in lines if line.startswith(module.name))
        assert f"{module.memory_gb} GB" in row
        assert f"{module.bandwidth_gb_s:g} GB/s" in row
    assert max(len(line) for line in lines) <= 140
    assert not any(line != line.rstrip() for line in lines)


def test_the_command_prints_json_with_the_reasons(capsys) -> None:
    assert main(["targets", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert [row["name"] for row in found["targets"]] == list(TARGETS)
    orin = next(row for row in found["targets"] if row["name"] == "orin-jp6")
    assert "no FP8" in orin["refused"]["fp8"]
    assert orin["style"]["opset"] == 20
    assert [row["name"] for row in found["modules"]] == [module.name for module in MODULES]
    assert found["modules"][0]["targets"] == ["orin-jp6", "orin-jp7"]
