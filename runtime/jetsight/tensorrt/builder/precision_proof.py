"""Precision proof: the types in which matrix products run, from TensorRT's engine inspector.

An engine built for INT8 can silently compute in FP16. The inspector's JSON has every layer's kernel
and tensor types; the proof sums the matrix products by the type of their kernels. Both formats are
read: TensorRT 10 (`Bindings`, `Format/Datatype`) and 11 (`I/O Tensors`, `Datatype`).

Shapes in comments: B batch, M rows, K inner, N columns; S tokens, D head size.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jetsight.errors import EngineError
from jetsight.tensorrt.bindings import TensorRtModule, make_logger
from jetsight.tensorrt.log_messages import cuda_failure, shortened
from jetsight.tensorrt.record import Proof

# Spellings of a tensor's type; the first match counts, because "bfloat16" contains "float16", and
# "Float" is part of many.
_TYPES = (
    ("fp4", r"fp4|e2m1|nvf4"),
    ("fp8", r"fp8|e4m3|e5m2"),
    ("int4", r"int4"),
    ("int8", r"int8"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"half|fp16|float16"),
    ("tf32", r"tf32"),
    ("fp32", r"float|fp32"),
    ("int64", r"int64"),
    ("int32", r"int32"),
    ("bool", r"bool"),
)
# Operand types inside names like sm80_xmma_gemm_i8i8_i8i32_f32_tn_n or sm89_xmma_gemm_e4m3e4m3_...
_TACTIC_TYPES = (
    ("fp4", r"_e2m1e2m1|_nvf4"),
    ("fp8", r"_e4m3e4m3|_e5m2|_e4m3_e4m3|_f8f8"),
    ("int8", r"_i8i8|_i8f32_i8|_imma"),
    ("bf16", r"_bf16bf16"),
    ("fp16", r"_f16f16|_h16816|_hmma"),
    ("tf32", r"_tf32"),
    ("fp32", r"_f32f32|_sgemm|_fp32"),
)
_GEMM_KIND = re.compile(
    r"gemm|matrixmultiply|matmul|fc|fullyconnected|einsum|cublasmatrixmultiply|conv"
    r"|(?:cask(?:gemm|flatten)?)?convolution|(?:cask)?deconvolution|caskgemmmatrixmultiply"
)
# Kernels of matrix products in other kinds of layers: Myelin calls a fully connected product Fc.
# Names of layers count only if Myelin made them (they start with an underscore): others are the
# graph's own, and the kernel of a node called "mha/Gemm" may be any.
_GEMM_TACTIC = re.compile(r"gemm|gemv|fprop|__myl_\w*Fc")
_GEMM_NAME = re.compile(r"^_+(?:mye\d*_)?gem[mv]|^__myl_\w*Fc")
_ATTENTION_TACTIC = re.compile(r"(?:^|_)f?mha|flash_?att|sdpa", re.IGNORECASE)
_ATTENTION_NAME = re.compile(r"^_\w*mha", re.IGNORECASE)
_ATTENTION_KINDS = frozenset(("attention", "mha", "fmha"))
_REFORMAT = re.compile(r"^reformat", re.IGNORECASE)
_QUANTIZE = re.compile(r"^(?:de)?quantize|QuantizeLinear", re.IGNORECASE)
# Next step for precisions whose products must run in that type. Weight-only ones (INT4, NVFP4)
# compute in the float format around them: the parsed network proves them, the inspector cannot.
_NEXT_STEPS = {
    "int8": "build the -fp16 family, or compile again with other Q/DQ placement (--keep-float)",
    "fp8": "this GPU may have no FP8 units: build the -fp16 or -int8 family",
    "fp16": "compile the bundle again, its graph has no float16 casts",
    "bf16": "compile the bundle again, its graph has no bfloat16 casts",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a layer; `dims` is empty if the inspector does not list it."""

    type: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine in the inspector's JSON."""

    name: str
    kind: str
    tactic: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    kernel: tuple[int, ...]
    groups: int

    @property
    def attention(self) -> bool:
        """True if it computes a whole attention."""
        named = _ATTENTION_NAME.search(self.name) or _ATTENTION_TACTIC.search(self.tactic)
        return self.kind.lower() in _ATTENTION_KINDS or bool(named)

    @property
    def gemm(self) -> bool:
        """True if it computes matrix products."""
        if _REFORMAT.search(self.kind) or not self.outputs:
            return False
        named = _GEMM_TACTIC.search(self.tactic) or _GEMM_NAME.search(self.name)
        return bool(_GEMM_KIND.fullmatch(self.kind.lower()) or named) or self.attention

    @property
    def precision(self) -> str:
        """Type of the operands, from the kernel's name, else of the first input."""
        for name, pattern in _TACTIC_TYPES:
            if re.search(pattern, self.tactic.lower()):
                return name
        # Not of scalars: they are the alpha and beta of a GEMM.
        known = [tensor for tensor in self.inputs if tensor.size != 1] or list(self.inputs)
        return known[0].type if known else "unknown"

    @property
    def flop(self) -> int | None:
        """Floating-point operations of its products; None if shapes are missing."""
        matrices = [tensor.dims for tensor in self.inputs if len(tensor.dims) >= 2]
        out = self.outputs[0].dims if self.outputs else ()
        if not matrices or not out or min(*out, *matrices[0]) < 1:
            return None
        if self.attention:
            return _attention_flop(matrices, out)
        if self.kernel:  # a convolution: [B, C, h, w]
            depth = matrices[0][1] // max(self.groups, 1)
            return 2 * math.prod(out) * depth * math.prod(self.kernel)
        return 2 * math.prod(out) * matrices[0][-1]  # [B, M, K] x [B, K, N]


def _attention_flop(matrices: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int | None:
    if len(matrices) < 3:
        return None
    # Q [B, S, D] times K, then times V [B, T, D]: T products per element of Q and of the output.
    tokens = matrices[-1][-2]
    return 2 * tokens * (math.prod(matrices[0]) + math.prod(out))


def inspect(library: TensorRtModule, plan: bytes) -> str:
    """Read the inspector's JSON for an engine that was just built on this machine.

    Raises:
        EngineError: the engine cannot be deserialized; with TensorRT's message.
    """
    trt, logger = library.module, make_logger(library)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    try:
        if engine is None:
            cuda = cuda_failure("\n".join(logger.errors))
            raise EngineError(
                f"{library} cannot load the engine it just built: {shortened(logger.errors)}"
                f"{f'; {cuda}' if cuda else ''}"
            )
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    finally:
        logger.forget()


def parse(text: str) -> list[EngineLayer]:
    """Parse the layers of an engine from the JSON of `get_engine_information`.

    Raises:
        EngineError: it is not that JSON, or was built without `ProfilingVerbosity.DETAILED`.
    """
    try:
        value = json.loads(text)
        layers = value["Layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EngineError("the engine inspector returned no JSON with the key 'Layers'") from None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise EngineError(
            "the engine inspector lists layer names only; the engine was built without "
            "ProfilingVerbosity.DETAILED"
        )
    return [_layer(layer) for layer in layers]


def prove(text: str, precision: str) -> Proof:
    """Sum the matrix products of an engine by precision.

    Args:
        text: the inspector's JSON.
        precision: of the family, e.g. `"int8"`.

    Raises:
        EngineError: the JSON cannot be read.
    """
    layers = parse(text)
    gemms = [layer for layer in layers if layer.gemm]
    flop = [layer.flop for layer in gemms]
    # One layer without shapes makes all count alike: operations and layers do not add up.
    unit: Literal["flop", "layers"] = "layers" if None in flop or not gemms else "flop"
    work: Counter[str] = Counter()
    for layer, operations in zip(gemms, flop, strict=True):
        work[layer.precision] += operations if unit == "flop" and operations else 1
    total = sum(work.values())
    return Proof(
        asked=precision,
        unit=unit,
        shares={name: amount / total for name, amount in sorted(work.items())},
        gemm_layers=len(gemms),
        reformat_layers=sum(bool(_REFORMAT.search(layer.kind)) for layer in layers),
        quantize_layers=sum(_only_quantizes(layer) for layer in layers),
        fused_attention=sum(layer.attention for layer in layers),
    )


def refuse_fallback(proof: Proof, what: str) -> None:
    """Raise unless some products run in the requested precision.

    Args:
        proof: of the engine.
        what: name of the engine in messages.

    Raises:
        EngineError: silent precision fallback; with the shares and the next step.
    """
    # Any share passes: a family may keep layers in float on purpose (--keep-float).
    if proof.asked not in _NEXT_STEPS or proof.shares.get(proof.asked, 0.0) > 0.0:
        return
    if not proof.gemm_layers:
        return  # `unproven` reports it
    raise EngineError(
        f"{what}: silent precision fallback, {proof.asked} was requested, but TensorRT runs "
        f"{shares_text(proof)}; nothing was kept, {_NEXT_STEPS[proof.asked]}"
    )


def unproven(proof: Proof, *, ahead: bool = False) -> str | None:
    """Explain why a proof is not conclusive; None if it is.

    Args:
        proof: of the engine.
        ahead: kernels are chosen at run time, so that missing types are no fallback.
    """
    if not proof.gemm_layers:
        return "the engine inspector shows no layer that computes matrix products"
    if ahead and set(proof.shares) == {"unknown"}:
        return "the engine inspector does not list the types in which matrix products run"
    return None


def shares_text(proof: Proof) -> str:
    """Format the shares: `int8 92%, fp16 8% of GEMM operations`."""
    shares = sorted(proof.shares.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares) or "no GEMM layer"
    total = "GEMM operations" if proof.unit == "flop" else f"{proof.gemm_layers} GEMM layers"
    return f"{parts} of {total}"


def _only_quantizes(layer: EngineLayer) -> bool:
    """Return whether a layer only quantizes or dequantizes."""
    if layer.gemm or "+" in layer.name:  # "+" joins the names of fused layers
        return False
    return bool(_QUANTIZE.search(layer.kind) or _QUANTIZE.search(layer.name))


def _layer(value: Mapping[str, Any]) -> EngineLayer:
    groups = value.get("Groups", 1)
    return EngineLayer(
        name=str(value.get("Name", "")),
        kind=str(value.get("LayerType", "")),
        tactic=str(value.get("TacticName", "")),
        inputs=_tensors(value.get("Inputs")),
        outputs=_tensors(value.get("Outputs")),
        kernel=_numbers(value.get("Kernel")),
        groups=groups if isinstance(groups, int) else 1,
    )


def _tensors(values: Any) -> tuple[Tensor, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(
        Tensor(_type_of(value), _numbers(value.get("Dimensions")))
        for value in values
        if isinstance(value, dict)
    )


def _type_of(value: Mapping[str, Any]) -> str:
    # TensorRT 11 spells its key in two ways, and some tensors have the type in `Format` alone.
    for key in ("Datatype", "DataType", "Format/Datatype", "Format"):
        text = str(value.get(key, "")).lower()
        for name, pattern in _TYPES:
            if re.search(pattern, text):
                return name
    return "unknown"


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return ()
    return tuple(value)
