"""Foreign, cut and damaged engines are refused from 28 bytes, before TensorRT sees any."""

from __future__ import annotations

import random

import pytest
from helpers.runtime.engine_factory import make_plan

from jetsight.errors import EngineError
from jetsight.tensorrt import plan_header
from jetsight.tensorrt.bindings import RTX, TENSORRT

JETPACK6 = (10, 3, 0, 26)


def test_a_plan_of_this_tensorrt_passes() -> None:
    header = plan_header.check(make_plan(JETPACK6), TENSORRT, JETPACK6, "x")
    assert (header.library, header.version) == (TENSORRT, JETPACK6)
    header = plan_header.check(make_plan((1, 7, 1, 116)), RTX, (1, 7, 1, 116), "x")
    assert header.size_bytes == len(make_plan())


@pytest.mark.parametrize("place", range(4))
def test_each_part_of_the_version_counts(place: int) -> None:
    other = tuple(n + (i == place) for i, n in enumerate(JETPACK6))
    with pytest.raises(EngineError) as caught:
        plan_header.check(make_plan(other), TENSORRT, JETPACK6, "engine.plan")  # type: ignore[arg-type]
    built = ".".join(map(str, other))
    assert f"engine.plan: built for TensorRT {built}, found TensorRT 10.3.0.26" in str(caught.value)
    assert "jetsight build BUNDLE" in str(caught.value)


def test_an_unknown_build_number_matches_every_build() -> None:
    plan_header.check(make_plan(JETPACK6), TENSORRT, (10, 3, 0, 0), "x")
    with pytest.raises(EngineError, match=r"found TensorRT 10\.3\.1"):
        plan_header.check(make_plan(JETPACK6), TENSORRT, (10, 3, 1, 0), "x")


@pytest.mark.parametrize(
    ("data", "library", "version"),
    [
        (make_plan((1, 7, 1, 116)), TENSORRT, JETPACK6),
        (make_plan(JETPACK6), RTX, (1, 7, 1, 116)),
    ],
)
def test_tensorrt_and_tensorrt_rtx_do_not_share_engines(data, library, version) -> None:
    with pytest.raises(EngineError, match=r"built for TensorRT.* found TensorRT"):
        plan_header.check(data, library, version, "x")


CUTS = [0, 1, 4, 8, 16, 23, 24, 27, *random.Random(0).sample(range(28, 308), 50), 307]


@pytest.mark.parametrize("size", CUTS)
def test_a_cut_tensorrt_rtx_engine_is_refused(size: int) -> None:
    whole = make_plan((1, 7, 1, 116))
    assert len(whole) == 308
    with pytest.raises(EngineError, match=r"no TensorRT engine|was truncated"):
        plan_header.check(whole[:size], RTX, (1, 7, 1, 116), "x")
    with pytest.raises(EngineError, match="was truncated or extended"):
        plan_header.check(whole + b"x" * (size + 1), RTX, (1, 7, 1, 116), "x")


@pytest.mark.parametrize("bit", [*range(64), *range(128, 224)])
def test_a_flipped_bit_of_the_header_is_refused(bit: int) -> None:
    whole = bytearray(make_plan((1, 7, 1, 116)))
    whole[bit // 8] ^= 1 << bit % 8
    if bytes(whole[:4]) == b"ftrt":  # one bit from the other tag, which its version then refutes
        return
    with pytest.raises(EngineError) as caught:
        plan_header.check(bytes(whole), RTX, (1, 7, 1, 116), "x")
    assert "\n" not in str(caught.value)
