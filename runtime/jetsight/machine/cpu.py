"""The processor: its instruction sets and physical cores."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from jetsight.machine import sysfs

VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # 512-bit and 256-bit registers


@functools.cache
def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Read Linux's names of this CPU's instruction sets; empty if they cannot be read."""
    # x86 calls the line "flags", Arm "Features". All cores of a machine have the same.
    info = sysfs.fields(root / "proc/cpuinfo", ":")
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def has_vnni() -> bool:
    """Return whether u8 times s8 is exact; older x86 saturates sums of two products at 16 bits."""
    return bool(VNNI & cpu_flags())


def default_threads() -> int:
    """Count the physical cores this process may use."""
    # It honours taskset and the cpusets of containers, which `cpu_count` does not; Linux only.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not allowed:
        return os.cpu_count() or 1
    # Not the logical ones: hyper-threads slow down dense float code.
    return len({_core_of(cpu) for cpu in allowed})


def _core_of(cpu: int) -> str:
    """Name the physical core of logical `cpu`; the cpu itself if the kernel does not list it."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)
