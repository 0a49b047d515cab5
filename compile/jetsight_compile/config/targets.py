"""Table of the targets, the precisions each can run, and its families of graphs.

A family is one set of graphs, named `<backend>-<opset where it matters>-<precision>`. Precision is
in the graph (casts, Q/DQ), because builder flags no longer exist; a precision that a target cannot
run is refused before any work. Sources: TensorRT release notes and support matrices per JetPack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jetsight.errors import UsageError
from jetsight_compile.config.precision import AUTO, PRECISIONS, family_suffix, parse
from jetsight_compile.export.layers import Compute, Style

_CPU = Style(opset=20)
# TensorRT 10.3 parses neither `Attention` nor, safely, `Gelu`: both are written out.
_OP20 = Style(opset=20, gelu="erf")
_OP23 = Style(opset=23, attention="fused")

# Reasons by precision that a target refuses.
_NO_FP8 = "Orin (SM 8.7) has no FP8 or FP4 units, and TensorRT fails on such graphs silently"
_ORIN = {"fp8": _NO_FP8, "nvfp4": _NO_FP8}
_ORIN_JP6 = {**_ORIN, "int4": "its TensorRT parses ONNX up to opset 20, and INT4 needs opset 21"}
_THOR_JP70 = {
    "int4": "it shares its graphs with JetPack 6, in opset 20, and INT4 needs opset 21",
    "nvfp4": "its TensorRT parses ONNX up to opset 22, and FP4 needs opset 23",
}
_TRT10 = {"nvfp4": "FP4 units came with Blackwell, for which TensorRT 11 is the tested compiler"}
_RTX = {"int8": "TensorRT-RTX documents INT8 for weights only, not for activations"}
# "K exceeds the maximum value allowed (3840)" (TensorRT-RTX 1.7.1, measured: 3840 of 65536 builds,
# 3841 of 4000 does not); TensorRT's operator reference has the same limit.
_TENSORRT_TOPK = 3840
_CPU_ONLY = {
    "fp16": "CPU backends compute it in float32, so it would round and gain nothing",
    "bf16": "CPU backends compute it in float32, so it would round and gain nothing",
    "fp8": "no CPU backend has FP8 kernels",
    "int4": "no CPU backend of jetsight gains from it",
    "nvfp4": "no CPU backend has FP4 kernels",
}


@dataclass(frozen=True)
class Target:
    """A machine that graphs are compiled for.

    Attributes:
        name: value of `--target`.
        what: description of the machine.
        compiler: installed compiler and version, like `"TensorRT 10.3"`.
        prefix: first part of its families' names.
        style: form of its float32 graphs; other formats only add casts and Q/DQ.
        allowed: precisions it runs, the smallest float format last of the float ones.
        default: precisions compiled without `--precision`.
        refused: reason per known precision that is not allowed.
        features: features of its compiler beyond the common core.
        some: precisions that only the newer of its GPUs run: compiled if named explicitly, never
            chosen by a search; `jetsight build` refuses them on an older GPU.
        largest_topk: largest K of its compiler's TopK, None without a limit; the axis has none.
    """

    name: str
    what: str
    compiler: str
    prefix: str
    style: Style
    allowed: tuple[str, ...]
    default: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    largest_topk: int | None = None

    @property
    def every(self) -> tuple[str, ...]:
        """Precisions that all of its GPUs run."""
        return tuple(precision for precision in self.allowed if precision not in self.some)


def _tensorrt(
    name: str,
    what: str,
    compiler: str,
    style: Style,
    features: tuple[str, ...],
    refused: Mapping[str, str] | None = None,
    some: tuple[str, ...] = (),
) -> Target:
    refused = refused or {}
    return Target(
        name=name,
        what=what,
        compiler=compiler,
        prefix=f"trt-op{style.opset}",
        style=style,
        allowed=tuple(p for p in PRECISIONS if p not in refused),
        default=("fp16",),
        refused=refused,
        features=features,
        some=some,
        largest_topk=_TENSORRT_TOPK,
    )


_PATTERN, _MORE = ("pattern-fused attention",), ("same-SM engines", "tiling search")
_SINCE_16 = ("fused attention", "KV-cache update", *_MORE)
_PC, _FP8_FP4 = "PC GPU, Ampere or newer", ("fp8", "nvfp4")
TARGETS = {
    target.name: target
    for target in (
        Target(
            name="cpu",
            what="any CPU",
            compiler="OpenVINO, ONNX Runtime",
            prefix="cpu",
            style=_CPU,
            allowed=("fp32", "int8"),
            default=("fp32", "int8"),
            refused=_CPU_ONLY,
            features=("VNNI where the CPU has it",),
        ),
        _tensorrt(
            "orin-jp6", "Orin, JetPack 6.1 to 6.2.2", "TensorRT 10.3", _OP20, _PATTERN, _ORIN_JP6
        ),
        _tensorrt("orin-jp7", "Orin, JetPack 7.2", "TensorRT 10.16", _OP23, _SINCE_16, _ORIN),
        _tensorrt(
            "thor-jp70",
            "Thor, JetPack 7.0 and 7.1",
            "TensorRT 10.13",
            _OP20,
            (*_PATTERN, *_MORE),
            _THOR_JP70,
        ),
        _tensorrt("thor-jp7", "Thor, JetPack 7.2", "TensorRT 10.16", _OP23, _SINCE_16),
        _tensorrt("x86-trt10", _PC, "TensorRT 10.16", _OP23, _SINCE_16, _TRT10, some=("fp8",)),
        _tensorrt(
            "x86-trt11", _PC, "TensorRT 11", _OP23, (*_SINCE_16, "build routes"), some=_FP8_FP4
        ),
        _tensorrt(
            "rtx",
            "RTX GPU, engines built without one",
            "TensorRT-RTX 1.7",
            _OP23,
            ("fused attention", "built on any CPU"),
            _RTX,
            some=("bf16", *_FP8_FP4),
        ),
    )
}


@dataclass(frozen=True)
class FamilyPlan:
    """One family to compile.

    Attributes:
        name: e.g. `"cpu-int8"`, `"trt-op20-fp16-int8"` (encoder in fp16, predictor in int8).
        style: form of its graphs, in the float format of the layers that are not quantized.
        precision: of each graph, out of `PRECISIONS`, or `AUTO`; has `imagine` if the planners'
            graphs do not get that of `forecast`.
        targets: names of the targets it serves.
        allowed: precisions that all GPUs of these targets run, for `AUTO` to choose from.
    """

    name: str
    style: Style
    precision: Mapping[str, str]
    targets: tuple[str, ...]
    allowed: tuple[str, ...]

    @property
    def backend(self) -> str:
        """First part of the name, `"cpu"` or `"trt"`."""
        return self.name.partition("-")[0]


def plan(
    targets: Sequence[str], precisions: Sequence[str], base: Compute = "fp16"
) -> list[FamilyPlan]:
    """List the families that serve `targets`, each once.

    Args:
        targets: names out of `TARGETS`.
        precisions: for every target, in the notation of `precision.parse`; each target's default if
            empty.
        base: float format of the layers that are not quantized, on TensorRT targets.

    Raises:
        UsageError: an unknown target or precision, or one that a target cannot run.

    Example:
        >>> [family.name for family in plan(["cpu", "orin-jp7", "thor-jp7"], [])]
        ['cpu-fp32', 'cpu-int8', 'trt-op23-fp16']
    """
    families: dict[str, FamilyPlan] = {}
    for target in (_target(name) for name in dict.fromkeys(targets)):
        for choice in dict.fromkeys(_choices(target, precisions)):
            family = _family(target, choice, base)
            known = families.get(family.name)
            if known is not None:
                # A search for a shared family may end only in what all of its targets run.
                allowed = tuple(p for p in known.allowed if p in family.allowed)
                family = replace(known, targets=(*known.targets, target.name), allowed=allowed)
            families[family.name] = family
    if not families:
        raise UsageError(f"no target was given; choose one or more of {', '.join(TARGETS)}")
    return list(families.values())


def check_planner(targets: Sequence[str], planner: str, elites: int) -> None:
    """Refuse a planner that the compiler of a target cannot build.

    Its graph finds the elites with one TopK, whose K is the number of elites.

    Args:
        targets: names out of `TARGETS`.
        planner: name for messages.
        elites: E; 0 for a planner without.

    Raises:
        UsageError: a target's TopK finds fewer.
    """
    for target in map(_target, targets):
        if target.largest_topk is not None and elites > target.largest_topk:
            raise UsageError(
                f"planner {planner} has {elites} elites, but TopK of target {target.name} "
                f"({target.compiler}) finds at most {target.largest_topk}; set elites to at most "
                f"{target.largest_topk} with --planner-settings, or choose fewer samples"
            )


def _choices(target: Target, precisions: Sequence[str]) -> Iterator[str]:
    """Yield the precisions for one target; `auto` on the CPU means its two."""
    for precision in precisions or target.default:
        if precision == AUTO and target.prefix == "cpu":
            yield from target.default
        else:
            yield precision


def _family(target: Target, choice: str, base: Compute) -> FamilyPlan:
    precision = parse(choice)
    for each in precision.values():
        if each != AUTO:
            _check(target, each)
    is_cpu = target.prefix == "cpu"
    float_format: Compute = "fp32" if is_cpu else base
    # The base is in every quantized graph, so the target has to run it too.
    _check(target, float_format)
    suffix = family_suffix(precision, float_format, usual="fp32" if is_cpu else "fp16")
    style = target.style.computing(float_format)
    return FamilyPlan(f"{target.prefix}-{suffix}", style, precision, (target.name,), target.every)


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}; choose one or more of {', '.join(TARGETS)}")
    return TARGETS[name]


def _check(target: Target, precision: str) -> None:
    if precision in target.allowed:
        return
    reason = target.refused.get(precision, "jetsight does not know this precision")
    raise UsageError(
        f"target {target.name} ({target.what}, {target.compiler}) cannot be compiled in "
        f"{precision}: {reason}; choose {' or '.join(target.allowed)}"
    )
