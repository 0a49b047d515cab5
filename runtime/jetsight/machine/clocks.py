"""Clock limits of processor, GPU and memory, and whether they are pinned there.

Two timings made at different clocks say nothing about each other: on one Orin NX the memory clock
alone moved a median by 45 %. So every build record and benchmark carries a `Clocks`.

Where the files are: processors are cpufreq policies everywhere. The GPU of Orin is a devfreq node
named after its address (`17000000.gpu`, before JetPack 6 `17000000.ga10b`), that of Thor one node
per clock domain (`gpu-gpc-0`, `gpu-nvd-0`). The memory clock (EMC) is the devfreq node `bwmgr` on
JetPack 7; on JetPack 6 it is in debugfs, which only root can read, and other users see no more
than the ceiling that the power mode sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jetsight.machine import sysfs

_GPU_NODE = re.compile(r"(?:[0-9a-f]+\.)?(?:gpu|g[abpv]1\db)|gpu-[a-z]+-\d+", flags=re.ASCII)
_GPU_PLATFORM = ("17000000.gpu", "17000000.ga10b", "gpu.0")  # where sysfs has no class/devfreq
_EMC_DEBUG = "sys/kernel/debug/bpmp/debug/clk/emc"
_EMC_CEILINGS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")


@dataclass(frozen=True)
class ClockRate:
    """One clock. `locked` says whether it can only run at its ceiling; None if files do not say."""

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
        """True if every clock that says so is locked, False if one is not, None if none says."""
        known = [rate.locked for rate in self.all() if rate.locked is not None]
        return all(known) if known else None

    def all(self) -> tuple[ClockRate, ...]:
        """Every clock, the memory's last."""
        return (*self.cpu, *self.gpu, *([self.emc] if self.emc else []))


def clocks(root: Path) -> Clocks:
    """Read the clocks of this machine; `root` replaces `/`."""
    return Clocks(cpu=tuple(_cpu(root)), gpu=tuple(_gpu(root)), emc=_emc(root))


def _cpu(root: Path) -> Iterator[ClockRate]:
    for policy in sysfs.nodes(root / "sys/devices/system/cpu/cpufreq", "policy[0-9]*"):
        read = _kilohertz(policy)
        if read != (None, None, None):
            governor = sysfs.text(policy / "scaling_governor")
            cores = sysfs.text(policy / "affected_cpus") or policy.name.removeprefix("policy")
            name = f"cpu {cores}"
            yield ClockRate(name, *read, governor, locked=_pinned(read[1], read[2]))


def _kilohertz(policy: Path) -> tuple[int | None, int | None, int | None]:
    current, low, high = (
        sysfs.integer(policy / f"scaling_{what}_freq") for what in ("cur", "min", "max")
    )
    return _times(current, 1000), _times(low, 1000), _times(high, 1000)


def _gpu(root: Path) -> Iterator[ClockRate]:
    found = [
        node
        for node in sysfs.nodes(root / "sys/class/devfreq", "*")
        if _GPU_NODE.fullmatch(node.name)
    ]
    platform = root / "sys/devices/platform"
    for node in found or [platform / name / "devfreq_dev" for name in _GPU_PLATFORM]:
        name = node.parent.name if node.name == "devfreq_dev" else node.name
        rate = _devfreq(node, name)
        if rate is not None:
            yield rate


def _devfreq(node: Path, name: str) -> ClockRate | None:
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
    ceilings = [sysfs.integer(root / path) for path in _EMC_CEILINGS]
    ceiling = min((cap for cap in ceilings if cap), default=None)  # 0 stands for none
    if rate is not None:
        return rate
    return ClockRate("emc", None, None, ceiling, None, None) if ceiling else None


def _emc_debug(node: Path) -> ClockRate | None:
    current, low, high = (sysfs.integer(node / what) for what in ("rate", "min_rate", "max_rate"))
    if current is None:
        return None
    held = sysfs.integer(node / "mrq_rate_locked")
    return ClockRate("emc", current, low, high, None, None if held is None else held == 1)


def _pinned(low: int | None, high: int | None) -> bool | None:
    return None if low is None or high is None else low == high


def _times(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor
