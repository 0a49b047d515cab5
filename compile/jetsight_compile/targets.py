"""One table: what each target can run, and the families of graphs that are made for it.

A family is one pair of graphs, named `<backend>-<opset where it matters>-<precision>`. Precision is
in the graph (casts, Q/DQ), because builder flags no longer exist, and what a target cannot run is
refused before any work. Sources: TensorRT release notes and support matrices per JetPack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jetsight.errors import UsageError
from jetsight_compile.dense import Style

PRECISIONS = ("fp32", "fp16", "int8")

_CPU = Style(opset=20)
# TensorRT 10.3 parses neither `Attention` nor, safely, `Gelu`: both are written out.
_OP20 = Style(opset=20, gelu="erf")
_OP23 = Style(opset=23, attention="fused")

_TRT_INT8 = (
    "its Q/DQ placement differs from the CPU's (symmetric, placed around TensorRT's fusions) and "
    "is not in this version"
)
_NO_FP8 = "Orin (SM 8.7) has no FP8 or FP4 units, and TensorRT fails on such graphs silently"
_FP8_LATER = "FP8 and FP4 quantization is not in this version"


@dataclass(frozen=True)
class Target:
    """A machine graphs are compiled for.

    Attributes:
        name: what `--target` calls it.
        what: the machine and its compiler, for people.
        prefix: first part of its families' names.
        style: how its float32 graphs are written; float16 only adds casts.
        allowed: precisions it runs.
        default: precisions compiled when none is asked for.
        refused: reason per known precision that is not allowed.
    """

    name: str
    what: str
    prefix: str
    style: Style
    allowed: tuple[str, ...]
    default: tuple[str, ...]
    refused: Mapping[str, str]


def _tensorrt(name: str, what: str, style: Style, fp8: str) -> Target:
    refused = {"int8": _TRT_INT8, "fp8": fp8, "nvfp4": fp8}
    prefix = f"trt-op{style.opset}"
    return Target(name, what, prefix, style, ("fp32", "fp16"), ("fp16",), refused)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "cpu", "any CPU, through OpenVINO or ONNX Runtime", "cpu", _CPU,
            ("fp32", "int8"), ("fp32", "int8"),
            {"fp16": "CPU backends compute it in float32, so it would round and gain nothing"},
        ),
        _tensorrt("rtx", "RTX GPU, TensorRT-RTX", _OP23, _FP8_LATER),
        _tensorrt("orin-jp6", "Orin, JetPack 6, TensorRT 10.3", _OP20, _NO_FP8),
        _tensorrt("orin-jp7", "Orin, JetPack 7.2, TensorRT 10.16", _OP23, _NO_FP8),
        _tensorrt("thor-jp7", "Thor, JetPack 7.2, TensorRT 10.16", _OP23, _FP8_LATER),
    )
}  # fmt: skip


@dataclass(frozen=True)
class FamilyPlan:
    """One family to make.

    Attributes:
        name: e.g. `"cpu-int8"`.
        style: how its graphs are written before quantization.
        precision: one of `PRECISIONS`.
        targets: names of the targets that asked for it.
    """

    name: str
    style: Style
    precision: str
    targets: tuple[str, ...]


def plan(targets: Sequence[str], precisions: Sequence[str]) -> list[FamilyPlan]:
    """Families that serve `targets`, each once.

    Args:
        targets: names out of `TARGETS`.
        precisions: precisions wanted on every target; each target's default if empty.

    Raises:
        UsageError: an unknown target or precision, or one that a target cannot run, and why.

    Example:
        >>> [family.name for family in plan(["cpu", "orin-jp7", "thor-jp7"], [])]
        ['cpu-fp32', 'cpu-int8', 'trt-op23-fp16']
    """
    families: dict[str, FamilyPlan] = {}
    for target in (_target(name) for name in dict.fromkeys(targets)):
        for precision in dict.fromkeys(precisions or target.default):
            _check(target, precision)
            name = f"{target.prefix}-{precision}"
            style = target.style.in_half() if precision == "fp16" else target.style
            served = (*families[name].targets, target.name) if name in families else (target.name,)
            families[name] = FamilyPlan(name, style, precision, served)
    if not families:
        raise UsageError(f"no target was given; choose one or more of {', '.join(TARGETS)}")
    return list(families.values())


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}; choose one or more of {', '.join(TARGETS)}")
    return TARGETS[name]


def _check(target: Target, precision: str) -> None:
    if precision in target.allowed:
        return
    reason = target.refused.get(precision, "jetsight does not know this precision")
    raise UsageError(
        f"target {target.name} ({target.what}) cannot be compiled in {precision}: {reason}; "
        f"choose {' or '.join(target.allowed)}"
    )
