"""One table: what each target can run, and the families of graphs that are made for it.

A family is one set of graphs, named `<backend>-<opset where it matters>-<precision>`. Precision is
in the graph (casts, Q/DQ), because builder flags no longer exist, and what a target cannot run is
refused before any work. Sources: TensorRT release notes and support matrices per JetPack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jetsight.errors import UsageError
from jetsight_compile.config.precision import AUTO, PRECISIONS, family_suffix, parse
from jetsight_compile.export.layers import Compute, Style

_CPU = Style(opset=20)
# TensorRT 10.3 parses neither `Attention` nor, safely, `Gelu`: both are written out.
_OP20 = Style(opset=20, gelu="erf")
_OP23 = Style(opset=23, attention="fused")

_ORIN_FP8 = "Orin (SM 8.7) has no FP8 or FP4 units, and TensorRT fails on such graphs silently"
_INT4_OPSET = "its TensorRT parses ONNX up to opset 20, and INT4 needs opset 21"
_INT4_SHARED = "it shares its graphs with JetPack 6, in opset 20, and INT4 needs opset 21"
_FP4_OPSET = "its TensorRT parses ONNX up to opset 22, and FP4 needs opset 23"
_BLACKWELL = "FP4 units came with Blackwell, for which TensorRT 11 is the tested compiler"
_RTX_INT8 = "TensorRT-RTX documents INT8 for weights only, not for activations"
_CPU_ONLY = {
    "fp16": "CPU backends compute it in float32, so it would round and gain nothing",
    "bf16": "CPU backends compute it in float32, so it would round and gain nothing",
    "fp8": "no CPU backend has FP8 kernels",
    "int4": "no CPU backend of jetsight gains from it",
    "nvfp4": "no CPU backend has FP4 kernels",
}


@dataclass(frozen=True)
class Target:
    """A machine graphs are compiled for.

    Attributes:
        name: what `--target` calls it.
        what: the machine and its compiler, for people.
        compiler: `"TensorRT 10.3"` and so on; what is installed there.
        prefix: first part of its families' names.
        style: how its float32 graphs are written; other formats only add casts and Q/DQ.
        allowed: precisions it runs, the smallest float format last of the float ones.
        default: precisions compiled when none is asked for.
        refused: reason per known precision that is not allowed.
        features: what its compiler has beyond the common core.
        some: precisions that only the newer of its GPUs run: compiled when asked for by name, never
            chosen by a search; `jetsight build` refuses them on an older one.
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

    @property
    def every(self) -> tuple[str, ...]:
        """Precisions that each of its GPUs runs."""
        return tuple(precision for precision in self.allowed if precision not in self.some)


def _tensorrt(
    name: str,
    what: str,
    compiler: str,
    style: Style,
    features: tuple[str, ...],
    some: tuple[str, ...] = (),
    **refused: str,
) -> Target:
    allowed = tuple(p for p in PRECISIONS if p not in refused)
    prefix = f"trt-op{style.opset}"
    return Target(name, what, compiler, prefix, style, allowed, ("fp16",), refused, features, some)


_SINCE_16 = ("fused attention", "KV-cache update", "same-SM engines", "tiling search")
TARGETS = {
    target.name: target
    for target in (
        Target(
            "cpu",
            "any CPU",
            "OpenVINO, ONNX Runtime",
            "cpu",
            _CPU,
            ("fp32", "int8"),
            ("fp32", "int8"),
            _CPU_ONLY,
            ("VNNI where the CPU has it",),
        ),
        _tensorrt(
            "orin-jp6",
            "Orin, JetPack 6.1 to 6.2.2",
            "TensorRT 10.3",
            _OP20,
            ("pattern-fused attention",),
            fp8=_ORIN_FP8,
            nvfp4=_ORIN_FP8,
            int4=_INT4_OPSET,
        ),
        _tensorrt(
            "orin-jp7",
            "Orin, JetPack 7.2",
            "TensorRT 10.16",
            _OP23,
            _SINCE_16,
            fp8=_ORIN_FP8,
            nvfp4=_ORIN_FP8,
        ),
        _tensorrt(
            "thor-jp70",
            "Thor, JetPack 7.0 and 7.1",
            "TensorRT 10.13",
            _OP20,
            ("pattern-fused attention", "same-SM engines", "tiling search"),
            int4=_INT4_SHARED,
            nvfp4=_FP4_OPSET,
        ),
        _tensorrt("thor-jp7", "Thor, JetPack 7.2", "TensorRT 10.16", _OP23, _SINCE_16),
        _tensorrt(
            "x86-trt10",
            "PC GPU, Ampere or newer",
            "TensorRT 10.16",
            _OP23,
            _SINCE_16,
            some=("fp8",),
            nvfp4=_BLACKWELL,
        ),
        _tensorrt(
            "x86-trt11",
            "PC GPU, Ampere or newer",
            "TensorRT 11",
            _OP23,
            (*_SINCE_16, "build routes"),
            some=("fp8", "nvfp4"),
        ),
        _tensorrt(
            "rtx",
            "RTX GPU, engines built without one",
            "TensorRT-RTX 1.7",
            _OP23,
            ("fused attention", "built on any CPU"),
            some=("bf16", "fp8", "nvfp4"),
            int8=_RTX_INT8,
        ),
    )
}


@dataclass(frozen=True)
class FamilyPlan:
    """One family to make.

    Attributes:
        name: e.g. `"cpu-int8"`, `"trt-op20-fp16-int8"` (encoder in fp16, predictor in int8).
        style: how its graphs are written, in the float format of what is not quantized.
        precision: of each graph, out of `PRECISIONS`, or `AUTO`; `imagine` where the planners'
            graphs do not get that of `forecast`.
        targets: names of the targets that asked for it.
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
    """Families that serve `targets`, each once.

    Args:
        targets: names out of `TARGETS`.
        precisions: wanted on every target, as `precisions.parse` reads them; each target's default
            if empty.
        base: float format of what a quantization leaves float, on TensorRT targets.

    Raises:
        UsageError: an unknown target or precision, or one that a target cannot run, and why.

    Example:
        >>> [family.name for family in plan(["cpu", "orin-jp7", "thor-jp7"], [])]
        ['cpu-fp32', 'cpu-int8', 'trt-op23-fp16']
    """
    families: dict[str, FamilyPlan] = {}
    for target in (_target(name) for name in dict.fromkeys(targets)):
        for asked in dict.fromkeys(_asked(target, precisions)):
            wanted = _family(target, asked, base)
            known = families.get(wanted.name)
            if known is not None:
                both = tuple(p for p in known.allowed if p in wanted.allowed)
                wanted = FamilyPlan(
                    known.name,
                    known.style,
                    known.precision,
                    (*known.targets, *wanted.targets),
                    both,
                )
            families[wanted.name] = wanted
    if not families:
        raise UsageError(f"no target was given; choose one or more of {', '.join(TARGETS)}")
    return list(families.values())


def _asked(target: Target, precisions: Sequence[str]) -> Iterator[str]:
    """Precisions wanted on one target; the CPU has nothing to search, it compiles its two."""
    for precision in precisions or target.default:
        if precision == AUTO and target.prefix == "cpu":
            yield from target.default
        else:
            yield precision


def _family(target: Target, asked: str, base: Compute) -> FamilyPlan:
    precision = parse(asked)
    for each in precision.values():
        if each != AUTO:
            _check(target, each)
    is_cpu = target.prefix == "cpu"
    float_format: Compute = "fp32" if is_cpu else base
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
