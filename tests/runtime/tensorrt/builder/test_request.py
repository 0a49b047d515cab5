from __future__ import annotations

import pytest

from jetsight.errors import EngineError
from jetsight.tensorrt.builder import request
from jetsight.tensorrt.fingerprint import HostSpec

ORIN, ADA, HOPPER, THOR, TURING = ("8.7", "8.9", "9.0", "11.0", "7.5")


def host(sm: str | None) -> HostSpec:
    return HostSpec("tensorrt", "10.16.2.10", gpu=None if sm is None else "A GPU", sm=sm)


@pytest.mark.parametrize(
    ("precision", "sm"),
    [("fp8", ORIN), ("nvfp4", ORIN), ("nvfp4", ADA), ("nvfp4", HOPPER), ("bf16", TURING)],
)
def test_a_format_this_gpu_has_no_units_for_is_refused(precision: str, sm: str) -> None:
    with pytest.raises(
        EngineError, match=rf"trt-x encode is in {precision}, and A GPU \(SM {sm}\)"
    ):
        request.require(precision, host(sm), "trt-x encode")


@pytest.mark.parametrize(
    ("precision", "sm"),
    [
        ("fp8", ADA),
        ("fp8", HOPPER),
        ("nvfp4", THOR),
        ("bf16", ORIN),
        ("int8", ORIN),
        ("fp16", TURING),
        ("int4", ORIN),
        ("fp8", None),
        ("", ORIN),
    ],
)
def test_what_it_has_units_for_is_built(precision: str, sm: str | None) -> None:
    request.require(precision, host(sm), "trt-x encode")
