"""The processor: its instruction sets and physical cores."""

from __future__ import annotations

import functools
import os
from pathlib import Path


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU as Linux names them on x86; empty where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2].split() for line in text.splitlines() if line[:5] == "flags")
    return frozenset(next(flags, []))


def has_vnni() -> bool:
    """The CPU multiplies u8 by s8 exactly; older x86 saturates sums of two products at 16 bits."""
    return bool({"avx512_vnni", "avx_vnni"} & cpu_flags())


def default_threads() -> int:
    """Physical cores this process may use: hyper-threads slow down dense float code."""
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
