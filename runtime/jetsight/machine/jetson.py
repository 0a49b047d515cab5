"""Identity of a Jetson: module, L4T, JetPack, TensorRT, CUDA and its power mode."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jetsight.machine import nvidia_packages, sysfs

# L4T release, as long as needed -> (JetPack, its TensorRT). JetPack 6.0 and older ship TensorRT 8.
_JETPACK = {
    "35": ("5.1", "8.5"),
    "36.3": ("6.0", "8.6"),
    "36.4.0": ("6.1", "10.3"),
    "36.4.3": ("6.2", "10.3"),
    "36.4.4": ("6.2.1", "10.3"),
    "36.4.7": ("6.2.1", "10.3"),
    "36.4": ("6.1 or 6.2", "10.3"),
    "36.5": ("6.2.2", "10.3"),
    "38.2": ("7.0", "10.13"),
    "38.4": ("7.1", "10.13"),
    "39.2.0": ("7.2", "10.16"),
    "39.2.1": ("7.2.1", "10.16"),
    "39.2": ("7.2", "10.16"),
}


@dataclass(frozen=True)
class PowerMode:
    """A row of nvpmodel's table; the number is what `nvpmodel -m` takes."""

    number: str
    name: str


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    `jetpack_tensorrt` is the version in that JetPack, `tensorrt` the installed one; `fastest_mode`
    is the board's power mode with the highest ceiling.
    """

    model: str | None
    l4t: str | None
    jetpack: str | None
    jetpack_tensorrt: str | None
    power_mode: str | None
    power_mode_name: str | None = None
    fastest_mode: PowerMode | None = None
    tensorrt: str | None = None
    cuda_toolkit: str | None = None


def jetson(root: Path) -> Jetson | None:
    """Describe the Jetson board; None anywhere else."""
    records = nvidia_packages.packages(root, ("nvidia-jetpack", "nvidia-l4t-core"))
    l4t = _l4t(root, records.get("nvidia-l4t-core", ""))
    # The device tree is the kernel's, so containers have it even without files of L4T.
    compatible = sysfs.text(root / "proc/device-tree/compatible") or ""
    if l4t is None and "nvidia,tegra" not in compatible:
        return None
    pack, shipped = _jetpack(l4t or "")
    # The metapackage is exact where it is installed; else the release of L4T has to do.
    installed = re.match(r"\d+(?:\.\d+)+", records.get("nvidia-jetpack", ""), flags=re.ASCII)
    modes = power_modes(root)
    mode = _power_mode(root)
    return Jetson(
        model=sysfs.text(root / "proc/device-tree/model"),
        l4t=l4t,
        jetpack=installed[0] if installed else pack,
        jetpack_tensorrt=shipped,
        power_mode=mode,
        power_mode_name=next((known.name for known in modes if known.number == mode), None),
        fastest_mode=max(modes, key=_ceiling, default=None),
        tensorrt=nvidia_packages.tensorrt(root),
        cuda_toolkit=nvidia_packages.cuda(root),
    )


def power_modes(root: Path) -> tuple[PowerMode, ...]:
    """List the power modes of this board, in the order of its table."""
    row = re.compile(r"\s*<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=([\w.-]+)", flags=re.ASCII)
    matches = map(row.match, sysfs.lines(root / "etc/nvpmodel.conf"))
    return tuple(PowerMode(str(int(match[1])), match[2]) for match in matches if match)


def _ceiling(mode: PowerMode) -> tuple[int, int]:
    """Sort key of modes: MAXN_SUPER, MAXN, then by watts. Numbers differ from board to board."""
    watts = re.search(r"(\d{1,4})W", mode.name, flags=re.ASCII)
    unlimited = 2 if "MAXN_SUPER" in mode.name else int("MAXN" in mode.name)
    return unlimited, int(watts[1]) if watts else 0


def _power_mode(root: Path) -> str | None:
    status = sysfs.text(root / "var/lib/nvpmodel/status") or ""
    match = re.search(r"pmode:(\d{1,4})\b", status, flags=re.ASCII)
    return str(int(match[1])) if match else None


def _l4t(root: Path, package: str) -> str | None:
    """Read the release file, or the package record: containers may lack the file."""
    first = (sysfs.text(root / "etc/nv_tegra_release") or "")[:200]
    match = re.search(r"R(\d{1,3}) \(release\), REVISION: (\d{1,3}\.\d{1,3})", first)
    if match:
        return f"{match[1]}.{match[2]}"
    recorded = re.match(r"\d+\.\d+\.\d+", package, flags=re.ASCII)
    return recorded[0] if recorded else None


def _jetpack(l4t: str) -> tuple[str | None, str | None]:
    parts = l4t.split(".")
    for length in range(len(parts), 0, -1):
        known = _JETPACK.get(".".join(parts[:length]))
        if known:
            return known
    return None, None
