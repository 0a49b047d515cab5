"""The processor: its instruction sets and physical cores."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from jetsight.machine import sysfs

VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # one for each width of register


@functools.cache
def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Read the instruction sets of this CPU as Linux names them; empty where it does not say."""
    # x86 calls the line "flags", Arm "Features". All cores of a machine have the same.
    found = sysfs.fields(root / "proc/cpuinfo", ":")
    return frozenset((found.get("flags") or found.get("Features") or "").split())


def has_vnni() -> bool:
    """Tell whether u8 times s8 is exact; older x86 saturates sums of two products at 16 bits."""
    return bool(VNNI & cpu_flags())


def default_threads() -> int:
    """Count the physical cores this process may use: hyper-threads slow down dense float code."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not allowed:
        return os.cpu_count() or 1
    return len({_core_of(cpu) for cpu in allowed})


def _core_of(cpu: int) -> str:
    """Name of the physical core of logical `cpu`; the cpu itself where the kernel does not say."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)
