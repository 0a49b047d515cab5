"""How a choice of number formats is written, and what is refused."""

from __future__ import annotations

import doctest

import pytest

from jetsight.errors import UsageError
from jetsight.machine import jetson_modules
from jetsight_compile.config import precision as precisions
from jetsight_compile.config.precision import (
    AUTO,
    FLOATS,
    PRECISIONS,
    QUANTIZED,
    WEIGHT_ONLY,
    family_suffix,
    of_planners,
    parse,
)
from jetsight_compile.export import onnx_graph


@pytest.mark.parametrize("precision", [*PRECISIONS, AUTO])
def test_one_precision_is_for_all_graphs(precision) -> None:
    assert parse(precision) == {"encode": precision, "forecast": precision}


@pytest.mark.parametrize(
    "text",
    ["encode=fp16,forecast=int8", "forecast=int8,encode=fp16", " encode=fp16, forecast=int8"],
)
def test_one_precision_for_each_graph_in_the_order_they_run(text) -> None:
    assert list(parse(text).items()) == [("encode", "fp16"), ("forecast", "int8")]


def test_planners_follow_the_forecast_unless_told_otherwise() -> None:
    other = parse("encode=fp16,forecast=fp16,imagine=int8")
    assert list(other.items()) == [("encode", "fp16"), ("forecast", "fp16"), ("imagine", "int8")]
    assert family_suffix(other, "fp16", usual="fp16") == "fp16-fp16-int8"
    assert of_planners(other, "fp16") == "int8"
    assert of_planners(parse("encode=fp16,forecast=nvfp4"), "bf16") == "bf16"
    for same in ("imagine=int8", "imagine=auto"):
        assert parse(f"encode=fp16,forecast=int8,{same}") == parse("encode=fp16,forecast=int8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fp61", r"unknown precision 'fp61'; choose one of fp32, fp16, bf16, fp8, int8.*, auto"),
        ("", "unknown precision ''"),
        ("FP16", "unknown precision 'FP16'"),
        ("encode=fp16", r"'encode=fp16' must name each of encode, forecast once, like encode="),
        ("encode=fp16,encode=int8", "must name each of encode, forecast once"),
        ("encode=fp16,forecast=int8,encode=fp8", "must name each of encode, forecast once"),
        ("encode=fp16,forecast=fp16,imagine=fp61", "unknown precision 'fp61'"),
        ("encode=fp16,forecast=fp16,imagine=int4", "planners cannot be in int4: .* choose int8"),
        ("encode=fp16,imagine=int8", "must name each of encode, forecast once"),
        ("encode=fp16,plan=int8", "must name each of encode, forecast once"),
        ("encode=fp16,forecast=", "unknown precision ''"),
        ("encode=fp16,forecast=int8,", "unknown precision ''"),
        ("fp16,int8", "unknown precision 'fp16,int8'"),
    ],
)
def test_what_is_no_choice_is_refused_in_one_line(text, says) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "base", "suffix"),
    [
        ("fp16", "fp16", "fp16"),
        ("bf16", "fp16", "bf16"),
        ("bf16", "bf16", "bf16"),  # nothing is left float beside it
        ("int8", "fp16", "int8"),
        ("int8", "bf16", "int8-overbf16"),
        ("encode=fp16,forecast=int8", "fp16", "fp16-int8"),
        ("encode=int8,forecast=fp16", "fp16", "int8-fp16"),
        ("encode=fp16,forecast=nvfp4", "bf16", "fp16-nvfp4-overbf16"),
        ("encode=fp16,forecast=bf16", "bf16", "fp16-bf16"),
        ("auto", "fp16", "auto"),
        ("auto", "bf16", "auto-overbf16"),
    ],
)
def test_a_familys_name_says_what_it_is_in(text, base, suffix) -> None:
    assert family_suffix(parse(text), base, usual="fp16") == suffix


def test_names_tell_choices_apart() -> None:
    """Two families of one name would be one family of the bundle."""
    each = (*PRECISIONS, AUTO)
    many = [c for c in each if c not in WEIGHT_ONLY]
    texts = [f"encode={a},forecast={b},imagine={c}" for a in each for b in each for c in many]
    every = {tuple(parse(text).items()) for text in texts}
    for base in ("fp16", "bf16", "fp32"):
        names = {family_suffix(dict(choice), base, usual="fp16") for choice in every}
        assert len(names) == len(every)
    over = {family_suffix(parse("int8"), base, usual="fp16") for base in ("fp16", "bf16", "fp32")}
    assert over == {"int8", "int8-overbf16", "int8-overfp32"}
    assert family_suffix(parse("int8"), "fp32", usual="fp32") == "int8"
    assert set(FLOATS).isdisjoint(QUANTIZED)
    assert set(PRECISIONS) == {*FLOATS, *QUANTIZED}


@pytest.mark.parametrize("module", [precisions, jetson_modules, onnx_graph])
def test_examples_of_the_docstrings_are_true(module) -> None:
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
