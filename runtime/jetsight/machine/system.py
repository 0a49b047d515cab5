"""Operating system, memory, GPU driver and cameras of this machine.

Every probe returns None or nothing when the file or library it needs is absent, unreadable or
malformed. `root` replaces `/` in tests.
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
    """One swap area; `zram` is compressed memory, not a disk."""

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
    """State of the NVIDIA driver; `problem` is the reason why there are no devices."""

    driver: str | None
    cuda: str | None
    devices: tuple[Gpu, ...]
    problem: str | None


@dataclass(frozen=True)
class VideoDevice:
    """One V4L2 node; `accessible` if this user may open it."""

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
    """List the swap areas in use."""
    # Rows of /proc/swaps: Filename Type Size Used Priority, sizes in kilobytes.
    row = re.compile(r"(/\S+)\s+\w+\s+(\d{1,15})\s+(\d{1,15})\s", flags=re.ASCII)
    matches = filter(None, map(row.match, sysfs.lines(root / "proc/swaps")))
    return tuple(
        Swap(m[1], m[1].startswith("/dev/zram"), int(m[2]) * 1024, int(m[3]) * 1024)
        for m in matches
    )


def cuda(root: Path, load: Callable[[str], Any] = ctypes.CDLL) -> Cuda:
    """List the driver's devices without creating a context or taking GPU memory."""
    driver = sysfs.text(root / "sys/module/nvidia/version")
    try:
        library = load("libcuda.so.1")
    except OSError:
        return Cuda(driver, None, (), "no NVIDIA driver (libcuda.so.1 is not installed)")
    try:
        return _probe(library, driver)
    # AttributeError: libcuda lacks a function.
    except (AttributeError, ctypes.ArgumentError, ValueError) as error:
        return Cuda(driver, None, (), f"libcuda.so.1 is not usable ({error})")


def library_loads(name: str) -> bool:
    """Return whether the dynamic linker can load the system library of that file name."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def video_devices(root: Path) -> tuple[VideoDevice, ...]:
    """List V4L2 capture nodes in numeric order."""
    devices = []
    for node in sysfs.nodes(root / "dev", "video[0-9]*"):
        about = root / "sys/class/video4linux" / node.name
        if (sysfs.text(about / "index") or "0") != "0":
            continue  # a metadata node of the same camera
        path = "/" + node.relative_to(root).as_posix()
        accessible = os.access(node, os.R_OK | os.W_OK)
        devices.append(VideoDevice(path, sysfs.text(about / "name"), accessible))
    return tuple(devices)


def _probe(library: Any, driver: str | None) -> Cuda:
    code = library.cuInit(0)
    if code != 0:
        # 100 is CUDA_ERROR_NO_DEVICE.
        problem = "no CUDA device" if code == 100 else f"cuInit failed with CUDA error {code}"
        return Cuda(driver, None, (), problem)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    devices = tuple(_device(library, ordinal) for ordinal in range(count.value))
    release = f"{version.value // 1000}.{version.value % 1000 // 10}"  # 1000 * major + 10 * minor
    return Cuda(driver, release, devices, None if devices else "no CUDA device")


def _device(library: Any, ordinal: int) -> Gpu:
    device, size = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    # The function without _v2 returns 32 bits.
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)

    def get(attribute: int) -> int:
        value = ctypes.c_int(0)
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        return value.value

    return Gpu(
        name=name.value.decode(errors="replace"),
        memory_bytes=size.value,
        compute_capability=f"{get(_SM_MAJOR)}.{get(_SM_MINOR)}",
        multiprocessors=get(_MULTIPROCESSORS),
        integrated=bool(get(_INTEGRATED)),
    )


def _kilobytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+) kB", text or "")
    return int(match[1]) * 1024 if match else None  # the kernel's kB are KiB
