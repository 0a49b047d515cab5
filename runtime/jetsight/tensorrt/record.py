"""Build record of an engine: origin, machine, and results of the checks.

It is a JSON file beside the engine, with the engine's digest, and is trusted only because its
folder belongs to this user alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jetsight.errors import EngineError
from jetsight.machine.clocks import Clocks
from jetsight.storage import strict_json
from jetsight.tensorrt.fingerprint import Fingerprint

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Port:
    """One input or output of an engine."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Proof:
    """Findings of the engine inspector about the precision of the kernels.

    Attributes:
        asked: precision of the family.
        unit: unit of the shares, floating-point operations of matrix products or, if shapes are
            missing, their number.
        shares: part of that work per precision; they sum to 1.
        gemm_layers: layers that compute matrix products or convolutions.
        reformat_layers: layers that only change a layout or a type.
        quantize_layers: layers that only quantize or dequantize.
        fused_attention: layers that compute a whole attention.
    """

    asked: str
    unit: Literal["flop", "layers"]
    shares: Mapping[str, float]
    gemm_layers: int
    reformat_layers: int
    quantize_layers: int
    fused_attention: int


@dataclass(frozen=True)
class Parity:
    """Smallest cosine to PyTorch's float32 outputs over the bundle's golden samples.

    For a planner's graph it is the smallest rank correlation of its candidates' costs.
    """

    samples: int
    smallest_cosine: float
    limit: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run, inputs written before and outputs readable after; nothing trimmed.

    Attributes:
        runs: measured runs.
        warm_up: runs before them, not counted.
        p50_ms: median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        max_ms: the slowest run.
        clocks: of processor, GPU and memory.
    """

    runs: int
    warm_up: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    clocks: Clocks


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """Description of one built engine.

    Attributes:
        fingerprint: everything the engine depends on; also names its folder.
        bundle: name of the bundle it was built from.
        graph: `"encode"`, `"forecast"` or `"imagine"`.
        built_utc: time of the build, `2026-01-31T12:00:00Z`.
        seconds: duration of TensorRT's build.
        plan_bytes: size of the engine.
        plan_sha256: its digest; nothing else is ever deserialized.
        plan_version: version in its header.
        inputs: by name.
        outputs: by name.
        layers: number of layers of each kind in the parsed network.
        quantized: products of that network with both inputs dequantized.
        weight_only: products whose weight alone is.
        renamed: the engine's name of a tensor to the graph's, if they differ.
        proof: of the precision; None if `skipped` has a reason.
        parity: with PyTorch; None likewise.
        latency: of one run; None likewise.
        skipped: reasons by the name of the check.
    """

    format: Literal["jetsight-engine"] = "jetsight-engine"
    version: Literal["1.0"] = "1.0"
    fingerprint: Fingerprint
    bundle: str
    graph: str
    built_utc: str
    seconds: float
    plan_bytes: int
    plan_sha256: str
    plan_version: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layers: Mapping[str, int]
    quantized: int = 0
    weight_only: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)
    proof: Proof | None = None
    parity: Parity | None = None
    latency: Latency | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (
            ("plan_sha256", self.plan_sha256),
            ("fingerprint.graph_sha256", self.fingerprint.graph_sha256),
        ):
            if not _SHA256.fullmatch(value):
                raise EngineError(f"{name} is no SHA-256 in 64 lowercase hex digits")
        if self.plan_bytes < 1:
            raise EngineError(f"plan_bytes is {self.plan_bytes}")

    @property
    def proven(self) -> bool:
        """True if it passed the gates on a GPU; without one it could not be run."""
        # With a GPU a gate that fails raises before there is a record.
        return self.fingerprint.host.gpu is not None


def dump(record: BuildRecord) -> bytes:
    """Write the record as JSON."""
    return strict_json.dump(record)


def parse(data: bytes, what: str) -> BuildRecord:
    """Read a record, and check all of it.

    Raises:
        EngineError: anything is wrong; one line that names the key.
    """
    return strict_json.parse(data, BuildRecord, what, error=EngineError)
