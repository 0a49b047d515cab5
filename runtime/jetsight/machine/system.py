"""Facts of this machine: board, memory, GPU driver and cameras, read without an import.

Every probe answers None or nothing when the file or library it needs is absent, unreadable or
odd; a machine is described by what it does say. `root` replaces `/` so that tests bring their own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.machine import sysfs

# CUdevice_attribute
_MULTIPROCESSORS, _INTEGRATED, _SM_MAJOR, _SM_MINOR = 16, 18, 75, 76


@dataclass(frozen=True)
class Swap:
    """One swap area; `zram` is memory itself, compressed."""

    path: str
    zram: bool
    size_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class System:
    """Operating system, processor and memory; cores are those this process may use."""

    os: str | None
    python: str
    architecture: str
    processor: str | None
    cores: int
    memory_bytes: int | None
    memory_available_bytes: int | None
    swaps: tuple[Swap, ...]


@dataclass(frozen=True)
class Gpu:
    """One CUDA device; an integrated one shares the board's memory with the processor."""

    name: str
    memory_bytes: int
    compute_capability: str
    multiprocessors: int
    integrated: bool


@dataclass(frozen=True)
class Cuda:
    """Answers of the NVIDIA driver; `problem` explains why there are no devices."""

    driver: str | None
    cuda: str | None
    devices: tuple[Gpu, ...]
    problem: str | None


@dataclass(frozen=True)
class VideoDevice:
    """One V4L2 node and whether this user may open it."""

    path: str
    name: str | None
    accessible: bool


def system(root: Path) -> System:
    """Describe the operating system and the processor."""
    release = sysfs.fields(root / "etc/os-release", "=")
    memory = sysfs.fields(root / "proc/meminfo", ":")
    processor = sysfs.fields(root / "proc/cpuinfo", ":")
    return System(
        os=release.get("PRETTY_NAME", "").strip('"') or None,
        python=platform.python_version(),
        architecture=platform.machine(),
        processor=processor.get("model name") or processor.get("Model"),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=_kilobytes(memory.get("MemTotal")),
        memory_available_bytes=_kilobytes(memory.get("MemAvailable")),
        swaps=swaps(root),
    )


def swaps(root: Path) -> tuple[Swap, ...]:
    """Swap areas in use: `Filename Type Size Used Priority`, sizes in kilobytes."""
    found = []
    row = re.compile(r"(/\S+)\s+\w+\s+(\d{1,15})\s+(\d{1,15})\s", flags=re.ASCII)
    for match in map(row.match, sysfs.lines(root / "proc/swaps")):
        if match:
            path, size, used = match[1], int(match[2]) * 1024, int(match[3]) * 1024
            found.append(Swap(path, path.startswith("/dev/zram"), size, used))
    return tuple(found)


def cuda(root: Path, load: Callable[[str], Any] = ctypes.CDLL) -> Cuda:
    """Ask the driver for its devices; no context is created, no memory is taken."""
    driver = sysfs.text(root / "sys/module/nvidia/version")
    try:
        library = load("libcuda.so.1")
    except OSError:
        return Cuda(driver, None, (), "no NVIDIA driver (libcuda.so.1 is not installed)")
    try:
        return _ask(library, driver)
    except (AttributeError, ctypes.ArgumentError, ValueError) as error:
        return Cuda(driver, None, (), f"libcuda.so.1 is not usable ({error})")


def library_loads(name: str) -> bool:
    """Tell whether the dynamic linker finds the system library of that file name."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def video_devices(root: Path) -> tuple[VideoDevice, ...]:
    """V4L2 capture nodes in numeric order; metadata nodes of a camera are left out."""
    found = []
    for node in sysfs.nodes(root / "dev", "video[0-9]*"):
        about = root / "sys/class/video4linux" / node.name
        if (sysfs.text(about / "index") or "0") != "0":
            continue
        shown = "/" + node.relative_to(root).as_posix()
        accessible = os.access(node, os.R_OK | os.W_OK)
        found.append(VideoDevice(shown, sysfs.text(about / "name"), accessible))
    return tuple(found)


def _ask(library: Any, driver: str | None) -> Cuda:
    code = library.cuInit(0)
    if code != 0:
        problem = "no CUDA device" if code == 100 else f"cuInit failed with CUDA error {code}"
        return Cuda(driver, None, (), problem)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    devices = tuple(_device(library, ordinal) for ordinal in range(count.value))
    release = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Cuda(driver, release, devices, None if devices else "no CUDA device")


def _device(library: Any, ordinal: int) -> Gpu:
    device, size = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)

    def ask(attribute: int) -> int:
        value = ctypes.c_int(0)
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        return value.value

    return Gpu(
        name=name.value.decode(errors="replace"),
        memory_bytes=size.value,
        compute_capability=f"{ask(_SM_MAJOR)}.{ask(_SM_MINOR)}",
        multiprocessors=ask(_MULTIPROCESSORS),
        integrated=bool(ask(_INTEGRATED)),
    )


def _kilobytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+) kB", text or "")
    return int(match[1]) * 1024 if match else None
