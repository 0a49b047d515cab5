"""NVIDIA's system software (not pip's), read from package records and files.

The system's TensorRT matches the driver of the board. Python may import another one, so the two
are distinguished here and compared by the doctor.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jetsight.errors import ArtefactError
from jetsight.machine import sysfs
from jetsight.storage import strict_json

_STATUS_BYTES = 64 << 20  # a desktop has 3 to 8 MB of package records
_TENSORRT_PACKAGES = ("libnvinfer10", "libnvinfer11", "libnvinfer8", "tensorrt")


@dataclass(frozen=True)
class _Release:
    version: str


@dataclass(frozen=True)
class _CudaRelease:
    cuda: _Release


def packages(root: Path, names: Collection[str]) -> dict[str, str]:
    """Read the versions of installed Debian packages, epoch and revision included."""
    versions = {}
    name, installed = "", False
    for line in sysfs.lines(root / "var/lib/dpkg/status", max_bytes=_STATUS_BYTES):
        key, _, value = line.partition(": ")
        if key == "Package":
            name, installed = value, False
        elif name not in names:
            continue
        elif key == "Status":
            # A removed package may keep a record, as "deinstall ok config-files".
            installed = value.endswith(" installed")
        elif key == "Version" and installed and value.isprintable():  # dpkg writes Status first
            versions[name] = value
    return versions


def tensorrt(root: Path) -> str | None:
    """Read the version of the system's TensorRT, with the digits known: 10.3.0.30 or 10.3.0."""
    records = packages(root, _TENSORRT_PACKAGES)
    for name in _TENSORRT_PACKAGES:
        match = re.match(r"\d+(?:\.\d+){1,3}", records.get(name, ""), flags=re.ASCII)
        if match:
            return match[0]
    for library in sysfs.nodes(root / "usr/lib", "*-linux-gnu/libnvinfer.so.*.*.*"):
        version = library.name.removeprefix("libnvinfer.so.")
        if re.fullmatch(r"\d+(?:\.\d+){2,3}", version, flags=re.ASCII):
            return version
    return None


def cuda(root: Path) -> str | None:
    """Read the version of the CUDA toolkit under /usr/local/cuda."""
    path = root / "usr/local/cuda/version.json"
    raw = "\n".join(sysfs.lines(path)).encode()
    try:
        return strict_json.parse(raw, _CudaRelease, str(path), allow_unknown=True).cuda.version
    except ArtefactError:
        return None


def has_compiler(root: Path) -> bool:
    """Return whether the CUDA toolkit has nvcc, which building PyCUDA needs."""
    try:
        return (root / "usr/local/cuda/bin/nvcc").exists()
    except OSError:
        return False


def bindings(root: Path) -> tuple[str, ...]:
    """List the folders where the system's own Python finds `tensorrt`."""
    found = sysfs.nodes(root, "usr/lib/python3*/dist-packages/tensorrt")
    return tuple(f"/{path.relative_to(root).as_posix()}" for path in found)


def same_release(left: str, right: str) -> bool:
    """Return whether the digits that both versions have agree: 10.3.0 and 10.3.0.30, not 10.16."""
    pairs = zip(re.findall(r"\d+", left), re.findall(r"\d+", right), strict=False)
    return all(int(one) == int(other) for one, other in pairs)
