"""How fast processor, GPU and memory may run, and whether they are pinned there.

Two timings made at different clocks say nothing about each other: on one Orin NX the memory clock
alone moved a median by 45 %. So every build record and benchmark carries a `Clocks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jetsight import sysfs


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
    return Clocks(cpu=tuple(_cpu(root)), gpu=tuple(_gpu(root)), emc=None)


def _cpu(root: Path) -> Iterable[ClockRate]:
    for policy in sysfs.nodes(root / "sys/devices/system/cpu/cpufreq", "policy[0-9]*"):
        yield _rate(policy.name, policy, "scaling_{}_freq", "scaling_governor", 1000)


def _gpu(root: Path) -> Iterable[ClockRate]:
    for node in sysfs.nodes(root / "sys/class/devfreq", "*gpu*"):
        yield _rate(node.name, node, "{}_freq", "governor", 1)


def _rate(name: str, node: Path, file: str, governor: str, unit_hz: int) -> ClockRate:
    read = [sysfs.integer(node / file.format(what)) for what in ("cur", "min", "max")]
    current, low, high = (None if value is None else value * unit_hz for value in read)
    locked = None if low is None or high is None else low == high
    return ClockRate(name, current, low, high, sysfs.text(node / governor), locked)
