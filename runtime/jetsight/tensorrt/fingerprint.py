"""Fingerprint of an engine: its graph, how it was built, and on which machine.

Two engines with one key may stand for each other; anything that makes them differ is in the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from jetsight.machine import system
from jetsight.machine.jetson import jetson
from jetsight.storage import strict_json
from jetsight.tensorrt.bindings import RTX, TensorRtModule, called, spoken

_MIB = 1 << 20
# What a kernel reserves differs from boot to boot, a module does not. With this step the Jetson
# modules and usual cards are far from where rounding turns: AGX Orin 64 has 62841 MB.
_MEMORY_STEP_MB = 2048
Via = Literal["onnx", "torch-tensorrt"]


@dataclass(frozen=True)
class HostSpec:
    """The machine and the TensorRT an engine is for; None where the machine does not say.

    Attributes:
        library: `"tensorrt"` or `"tensorrt_rtx"`.
        version: of that library, `"10.3.0.26"`.
        driver: NVIDIA driver, `"580.95.05"`.
        cuda: newest CUDA the driver serves, `"13.0"`.
        gpu: its name.
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
        """Name of the compile target that fits this machine; None if none is known."""
        major = self.version.partition(".")[0]
        if self.l4t is not None:
            known = {"36": "orin-jp6", "38": "thor-jp70"}.get(self.l4t.partition(".")[0])
            thor = (self.sm or "").startswith(("10.", "11."))
            return known or ("thor-jp7" if thor else "orin-jp7")
        return "rtx" if self.library == RTX else f"x86-trt{major}"

    @property
    def tied(self) -> HostSpec:
        """The facts as engines depend on them: of the driver, its major version."""
        driver = None if self.driver is None else self.driver.partition(".")[0]
        return replace(self, driver=driver)

    def differences(self, found: HostSpec) -> list[str]:
        """`name built | found` for each fact that differs, the power mode left out."""
        lines = []
        for field in fields(self):
            built, here = getattr(self, field.name), getattr(found, field.name)
            alike = getattr(self.tied, field.name) == getattr(found.tied, field.name)
            # On a Jetson its module may not be loaded yet; the driver belongs to the L4T release.
            unsaid = field.name == "driver" and None in (built, here) and self.l4t is not None
            if not alike and not unsaid and field.name != "power_mode":
                lines.append(
                    f"{field.name} {_shown(field.name, built)} | {_shown(field.name, here)}"
                )
        return lines


def host_spec(library: TensorRtModule, root: str | Path = "/") -> HostSpec:
    """Describe this machine and its first GPU; `root` replaces `/`."""
    cuda, board = system.cuda(Path(root)), jetson(Path(root))
    gpu = cuda.devices[0] if cuda.devices else None
    return HostSpec(
        library=library.name,
        version=spoken(library.version),
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
    """Options of the user; None leaves it to TensorRT.

    Attributes:
        workspace_mb: most scratch memory a layer may take.
        level: 0 to 5, how long TensorRT looks for faster kernels.
        via: what reads the model, TensorRT's ONNX parser or torch-tensorrt.
    """

    workspace_mb: int | None = None
    level: int | None = None
    via: Via = "onnx"


@dataclass(frozen=True)
class Fingerprint:
    """Everything an engine depends on.

    Attributes:
        graph_sha256: of the ONNX bytes, which hold the weights.
        family: graph family, which names the precision recipe.
        precision: of this graph in it.
        options: what the user chose.
        host: the machine.
    """

    graph_sha256: str
    family: str
    precision: str
    options: BuildOptions
    host: HostSpec

    @property
    def key(self) -> str:
        """32 hex digits; equal only if all of it is."""
        tied = replace(self, host=self.host.tied)
        return hashlib.sha256(strict_json.dump(tied)).hexdigest()[:32]

    @property
    def host_key(self) -> str:
        """16 hex digits for what measured kernel times depend on: the machine alone."""
        return hashlib.sha256(strict_json.dump(self.host.tied)).hexdigest()[:16]


def _rounded(size_bytes: int) -> int:
    return round(size_bytes / _MIB / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _shown(name: str, value: object) -> str:
    if value is None:
        return "none"
    return called(str(value)) if name == "library" else str(value)
