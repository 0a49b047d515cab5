"""The machine of a measurement: processor, the instructions INT8 depends on, load, versions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from jetsight.machine import system as machine
from jetsight.machine.cpu import VNNI, cpu_flags
from jetsight.version import __version__

# Instruction sets that decide how fast INT8 is: with VNNI (or AMX) one instruction multiplies and
# adds four bytes into 32 bits; without it u8s8 needs three and gains little over float32.
_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": VNNI,
    "amx_int8": ("amx_int8",),
    "asimd_dot": ("asimddp",),
    "i8mm": ("i8mm",),
}
_PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "openvino")


def machine_spec(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, cores, memory, load per core, and INT8 instructions of this machine."""
    system = machine.system(root)
    features = cpu_features(root)
    return {
        "processor": system.processor or system.architecture,
        "architecture": system.architecture,
        "cores": system.cores,
        "memory_bytes": system.memory_bytes,
        "os": system.os,
        "python": system.python,
        "instructions": features,
        "load_per_core": round(os.getloadavg()[0] / system.cores, 2),
    }


def cpu_features(root: Path = Path("/")) -> dict[str, bool]:
    """Return which of the relevant instruction sets the processor has."""
    flags = cpu_flags(root)
    return {name: not flags.isdisjoint(any_of) for name, any_of in _FEATURES.items()}


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of jetsight and of those `packages` that are installed."""
    found = {"jetsight": __version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
