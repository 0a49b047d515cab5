"""Fingerprint of an engine: graph, build options, and machine.

Engines with the same key are interchangeable: everything that they depend on is in the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from jetsight.machine import system
from jetsight.machine.jetson import jetson
from jetsight.storage import strict_json
from jetsight.tensorrt.bindings import RTX, TensorRtModule, product, version_text

_MIB = 1 << 20
# The kernel reserves another amount at each boot. With this step the sizes of Jetson modules and
# usual cards are far from the limits of rounding: AGX Orin 64 has 62841 MB.
_MEMORY_STEP_MB = 2048
Via = Literal["onnx", "torch-tensorrt"]


@dataclass(frozen=True)
class HostSpec:
    """Machine and TensorRT of an engine; None for what the machine does not report.

    Attributes:
        library: `"tensorrt"` or `"tensorrt_rtx"`.
        version: of that library, `"10.3.0.26"`.
        driver: NVIDIA driver, `"580.95.05"`.
        cuda: newest CUDA the driver supports, `"13.0"`.
        gpu: name of the GPU.
        sm: compute capability, `"8.7"`.
        multiprocessors: of the GPU.
        memory_mb: of the GPU, rounded to 2048.
        l4t: release of Jetson Linux; None elsewhere.
        power_mode: nvpmodel mode at build; tactics are timed in it.
    """

    library: str
    version: str
    driver: str | None = None
    cuda: str | None = None
    gpu: str | None = None
    sm: str | None = None
    multiprocessors: int | None = None
    memory_mb: int | None = None
    l4t: str | None = None
    power_mode: str | None = None

    @property
    def target(self) -> str | None:
        """Name of the compile target of this machine; None if none is known."""
        major = self.version.partition(".")[0]
        if self.l4t is not None:
            # L4T 38 is for Thor alone; from 39 (JetPack 7.2) on the GPU tells Orin from Thor.
            known = {"36": "orin-jp6", "38": "thor-jp70"}.get(self.l4t.partition(".")[0])
            thor = (self.sm or "").startswith(("10.", "11."))  # Thor is SM 11.0, in DriveOS 10.1
            return known or ("thor-jp7" if thor else "orin-jp7")
        return "rtx" if self.library == RTX else f"x86-trt{major}"

    @property
    def tied(self) -> HostSpec:
        """The spec as engines depend on it: of the driver, only the major version."""
        driver = None if self.driver is None else self.driver.partition(".")[0]
        return replace(self, driver=driver)

    def differences(self, found: HostSpec) -> list[str]:
        """List `name built | found` for each field that differs, except the power mode."""
        lines = []
        for name in (field.name for field in fields(self) if field.name != "power_mode"):
            built, here = getattr(self, name), getattr(found, name)
            # On a Jetson its module may not be loaded yet; the driver belongs to the L4T release.
            unknown = name == "driver" and None in (built, here) and self.l4t is not None
            if getattr(self.tied, name) != getattr(found.tied, name) and not unknown:
                lines.append(f"{name} {_shown(name, built)} | {_shown(name, here)}")
        return lines


def host_spec(library: TensorRtModule, root: str | Path = "/") -> HostSpec:
    """Describe this machine and its first GPU; `root` replaces `/`."""
    cuda, board = system.cuda(Path(root)), jetson(Path(root))
    gpu = cuda.devices[0] if cuda.devices else None
    return HostSpec(
        library=library.name,
        version=version_text(library.version),
        driver=cuda.driver,
        cuda=cuda.cuda,
        gpu=gpu.name if gpu else None,
        sm=gpu.compute_capability if gpu else None,
        multiprocessors=gpu.multiprocessors if gpu else None,
        memory_mb=_rounded(gpu.memory_bytes) if gpu else None,
        l4t=board.l4t if board else None,
        power_mode=board.power_mode if board else None,
    )


@dataclass(frozen=True)
class BuildOptions:
    """Options of the user; None for TensorRT's default.

    Attributes:
        workspace_mb: limit of the scratch memory of a layer.
        level: 0 to 5, effort of TensorRT's search for faster kernels.
        via: front end, TensorRT's ONNX parser or torch-tensorrt.
    """

    workspace_mb: int | None = None
    level: int | None = None
    via: Via = "onnx"


@dataclass(frozen=True)
class Fingerprint:
    """Everything an engine depends on.

    Attributes:
        graph_sha256: of the ONNX bytes, which hold the weights.
        family: graph family, which determines the precision recipe.
        precision: of this graph in the family.
        options: build options.
        host: the machine.
    """

    graph_sha256: str
    family: str
    precision: str
    options: BuildOptions
    host: HostSpec

    @property
    def key(self) -> str:
        """32 hex digits; equal only for equal fingerprints."""
        # strict_json gives equal bytes for equal values, so the digest can be a key.
        tied = replace(self, host=self.host.tied)
        return hashlib.sha256(strict_json.dump(tied)).hexdigest()[:32]

    @property
    def host_key(self) -> str:
        """16 hex digits of the machine, which measured kernel times depend on."""
        return hashlib.sha256(strict_json.dump(self.host.tied)).hexdigest()[:16]


def _rounded(size_bytes: int) -> int:
    return round(size_bytes / _MIB / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _shown(name: str, value: object) -> str:
    if value is None:
        return "none"
    return product(str(value)) if name == "library" else str(value)
