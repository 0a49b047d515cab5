"""Clock rates of processor, GPU and memory, and whether each is locked at its ceiling.

Timings at different clocks cannot be compared: on one Orin NX the memory clock alone moved a
median by 45 %. So every build record and benchmark carries a `Clocks`.

Location of the files: processors are cpufreq policies everywhere. The GPU of Orin is a devfreq node
named after its address (`17000000.gpu`, before JetPack 6 `17000000.ga10b`), that of Thor one node
per clock domain (`gpu-gpc-0`, `gpu-nvd-0`). The memory clock (EMC) is the devfreq node `bwmgr` on
JetPack 7; on JetPack 6 it is in debugfs, which only root can read, and other users see only the
ceiling of the power mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jetsight.machine import sysfs

_GPU_NODE = re.compile(r"(?:[0-9a-f]+\.)?(?:gpu|g[abpv]1\db)|gpu-[a-z]+-\d+", flags=re.ASCII)
_GPU_PLATFORM = ("17000000.gpu", "17000000.ga10b", "gpu.0")  # for kernels without class/devfreq
_EMC_DEBUG = "sys/kernel/debug/bpmp/debug/clk/emc"
_EMC_CEILINGS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")


@dataclass(frozen=True)
class ClockRate:
    """One clock; `locked` if it can only run at its ceiling, None if that is not known."""

    name: str
    current_hz: int | None
    min_hz: int | None
    max_hz: int | None
    governor: str | None
    locked: bool | None


@dataclass(frozen=True)
class Clocks:
    """Clocks of the CPU clusters, the GPU's parts and the memory (EMC); empty where unknown."""

    cpu: tuple[ClockRate, ...]
    gpu: tuple[ClockRate, ...]
    emc: ClockRate | None

    @property
    def locked(self) -> bool | None:
        """True if every known clock is locked, False if one is not, None if none is known."""
        known = [rate.locked for rate in self.all() if rate.locked is not None]
        return all(known) if known else None

    def all(self) -> tuple[ClockRate, ...]:
        """List every clock, the memory's last."""
        return (*self.cpu, *self.gpu, *([self.emc] if self.emc else []))


def clocks(root: Path) -> Clocks:
    """Read the clocks of this machine; `root` replaces `/`."""
    return Clocks(cpu=tuple(_cpu(root)), gpu=tuple(_gpu(root)), emc=_emc(root))


def _cpu(root: Path) -> Iterator[ClockRate]:
    for policy in sysfs.nodes(root / "sys/devices/system/cpu/cpufreq", "policy[0-9]*"):
        files = (policy / f"scaling_{what}_freq" for what in ("cur", "min", "max"))
        current, low, high = (
            None if kHz is None else kHz * 1000 for kHz in map(sysfs.integer, files)
        )
        if (current, low, high) != (None, None, None):
            governor = sysfs.text(policy / "scaling_governor")
            cores = sysfs.text(policy / "affected_cpus") or policy.name.removeprefix("policy")
            yield ClockRate(f"cpu {cores}", current, low, high, governor, _pinned(low, high))


def _gpu(root: Path) -> Iterator[ClockRate]:
    devfreq, platform = sysfs.nodes(root / "sys/class/devfreq", "*"), root / "sys/devices/platform"
    nodes = [(node, node.name) for node in devfreq if _GPU_NODE.fullmatch(node.name)]
    for node, name in nodes or [(platform / n / "devfreq_dev", n) for n in _GPU_PLATFORM]:
        rate = _devfreq(node, name)
        if rate is not None:
            yield rate


def _devfreq(node: Path, name: str) -> ClockRate | None:
    # devfreq counts in Hz, cpufreq in kHz.
    current, low, high = (sysfs.integer(node / f"{what}_freq") for what in ("cur", "min", "max"))
    if current is None and low is None and high is None:
        return None
    governor = sysfs.text(node / "governor")
    locked = _pinned(low, high)
    if governor == "performance" and current is not None and current == high:
        locked = True  # devfreq's governor of that name holds the ceiling for any floor
    return ClockRate(name, current, low, high, governor, locked)


def _emc(root: Path) -> ClockRate | None:
    rate = _devfreq(root / "sys/class/devfreq/bwmgr", "emc") or _emc_debug(root / _EMC_DEBUG)
    if rate is not None:
        return rate
    ceilings = [sysfs.integer(root / path) for path in _EMC_CEILINGS]
    ceiling = min((cap for cap in ceilings if cap), default=None)  # 0 means no ceiling
    return ClockRate("emc", None, None, ceiling, None, None) if ceiling else None


def _emc_debug(node: Path) -> ClockRate | None:
    current, low, high = (sysfs.integer(node / what) for what in ("rate", "min_rate", "max_rate"))
    if current is None:
        return None
    held = sysfs.integer(node / "mrq_rate_locked")
    return ClockRate("emc", current, low, high, None, None if held is None else held == 1)


def _pinned(low: int | None, high: int | None) -> bool | None:
    return None if low is None or high is None else low == high
