"""File trees of boards we do not have: what `/etc`, `/proc`, `/sys` and `/var` say on each.

Paths and contents follow public logs of these boards. A value of None is a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jetsight.doctor import examine
from jetsight.doctor.report import Report
from jetsight.machine.system import Cuda
from jetsight.tensorrt.engine_cache import EngineStore

Files = Mapping[str, "str | None"]
ORIN_MODES = {0: "MAXN", 1: "MODE_15W", 2: "MODE_30W", 3: "MODE_50W"}
NANO_MODES = {0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}
THOR_MODES = {0: "MAXN", 1: "120W", 2: "90W", 3: "70W"}
CLASS, PLATFORM = "sys/class/devfreq", "sys/devices/platform"


def tree(root: Path, files: Files) -> Path:
    """Write the files under `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)
    return root


def release(l4t: str) -> str:
    """The first lines of /etc/nv_tegra_release."""
    major, _, rest = l4t.partition(".")
    return (
        f"# R{major} (release), REVISION: {rest}, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
    )


def dpkg(versions: Mapping[str, str], removed: Mapping[str, str] | None = None) -> str:
    """/var/lib/dpkg/status with these packages installed, and some removed but not purged."""
    states = [(name, "install ok installed", version) for name, version in versions.items()]
    states += [(n, "deinstall ok config-files", v) for n, v in (removed or {}).items()]
    return "\n".join(
        f"Package: {name}\nStatus: {state}\nArchitecture: arm64\nVersion: {version}\n"
        f"Depends: libc6 (>= 2.34)\nDescription: of NVIDIA\n Version: 0.0 is not a field\n"
        for name, state, version in states
    )


def cpu(policies: Mapping[int, tuple[int, int, int]]) -> dict[str, str]:
    """Cpufreq policies: first core -> (current, min, max) in kHz."""
    files = {}
    for core, rates in policies.items():
        folder = f"sys/devices/system/cpu/cpufreq/policy{core}"
        for what, rate in zip(("cur", "min", "max"), rates, strict=True):
            files[f"{folder}/scaling_{what}_freq"] = f"{rate}\n"
        files[f"{folder}/scaling_governor"] = "schedutil\n"
        files[f"{folder}/affected_cpus"] = " ".join(str(core + i) for i in range(4)) + "\n"
    return files


def devfreq(node: str, current: int, low: int, high: int, governor: str) -> dict[str, str]:
    """One devfreq node, rates in MHz."""
    rates = {"cur_freq": current, "min_freq": low, "max_freq": high}
    files = {f"{node}/{name}": f"{mhz}000000\n" for name, mhz in rates.items()}
    return {**files, f"{node}/governor": f"{governor}\n"}


def thermal(zones: Mapping[str, str], passive: int = 99_000) -> dict[str, str | None]:
    """Thermal zones in order; an empty text is a zone that cannot be read."""
    files: dict[str, str | None] = {}
    for row, (name, temperature) in enumerate(zones.items()):
        folder = f"sys/class/thermal/thermal_zone{row}"
        files[f"{folder}/type"] = f"{name}\n"
        files[f"{folder}/temp"] = f"{temperature}\n" if temperature else None
        files[f"{folder}/trip_point_0_type"] = "critical\n"
        files[f"{folder}/trip_point_0_temp"] = "104500\n"
        files[f"{folder}/trip_point_1_type"] = "passive\n"
        files[f"{folder}/trip_point_1_temp"] = f"{passive}\n"
    return files


def events(*counts: int, chip: int = 3) -> dict[str, str]:
    """The over-current counters, among other chips."""
    folder = f"sys/class/hwmon/hwmon{chip}"
    files = {"sys/class/hwmon/hwmon1/name": "ina3221\n", f"{folder}/name": "soctherm_oc\n"}
    for row, count in enumerate(counts, start=1):
        files[f"{folder}/oc{row}_event_cnt"] = f"{count}\n"
        files[f"{folder}/oc{row}_throt_en"] = "1\n"
    return files


def modes(table: Mapping[int, str], current: int) -> dict[str, str]:
    """nvpmodel's table and the mode that is set."""
    rows = [
        f"< POWER_MODEL ID={row} NAME={name} >\nCPU_ONLINE CORE_0 1\n"
        for row, name in table.items()
    ]
    return {
        "etc/nvpmodel.conf": "# comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_0 /sys/x\n"
        + "\n".join(rows)
        + "< PM_CONFIG DEFAULT=2 >\n",
        "var/lib/nvpmodel/status": f"pmode:{current:04d} fmode:quiet\n",
    }


def system(l4t: str, model: str, chip: str, memory_kb: tuple[int, int]) -> dict[str, str]:
    """What every Jetson says about itself."""
    total, available = memory_kb
    return {
        "etc/nv_tegra_release": release(l4t),
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": f"nvidia,p3701-0005\0nvidia,{chip}\0",
        "proc/meminfo": f"MemTotal:       {total} kB\nMemAvailable:   {available} kB\n",
        "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
        "proc/cpuinfo": "processor: 0\nmodel name: ARMv8 Processor rev 1 (v8l)\n",
    }


def cuda_toolkit(version: str) -> dict[str, str]:
    """/usr/local/cuda of that version, nvcc included."""
    parts = {"cuda": {"name": "CUDA SDK", "version": version}, "nvidia_fs": {"name": "x"}}
    return {
        "usr/local/cuda/version.json": json.dumps(parts, indent=3),
        "usr/local/cuda/bin/nvcc": "",
    }


def agx_orin_jp62() -> dict[str, str | None]:
    """AGX Orin 64 GB, L4T 36.4.3, MAXN, `jetson_clocks` run, looked at by root."""
    emc = "sys/kernel/debug/bpmp/debug/clk/emc"
    return {
        **system(
            "36.4.3", "NVIDIA Jetson AGX Orin Developer Kit", "tegra234", (64346480, 58133644)
        ),
        **modes(ORIN_MODES, 0),
        **cpu({0: (2201600,) * 3, 4: (2201600,) * 3, 8: (2201600,) * 3}),
        **devfreq(f"{CLASS}/17000000.gpu", 1300, 1300, 1300, "nvhost_podgov"),
        **devfreq(f"{CLASS}/15340000.vic", 115, 115, 729, "userspace"),
        f"{emc}/rate": "3199000000\n",
        f"{emc}/min_rate": "204000000\n",
        f"{emc}/max_rate": "3199000000\n",
        f"{emc}/mrq_rate_locked": "1\n",
        "sys/kernel/nvpmodel_clk_cap/emc": "3199000000\n",
        **thermal(
            {
                "cpu-thermal": "48562",
                "gpu-thermal": "45125",
                "cv0-thermal": "",
                "tj-thermal": "48562",
            }
        ),
        **events(0, 0, 0),
        "sys/class/thermal/cooling_device0/type": "gpu-throttle-alert\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device1/cur_state": "2\n",
        "var/lib/dpkg/status": dpkg(
            {
                "adduser": "3.118ubuntu5",
                "libnvinfer10": "10.3.0.30-1+cuda12.5",
                "nvidia-jetpack": "6.2+b77",
                "nvidia-l4t-core": "36.4.3-20250107174145",
            },
            removed={"tensorrt": "8.6.2.3-1+cuda12.2"},
        ),
        **cuda_toolkit("12.6.11"),
        "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
    }


def orin_nano_jp6() -> dict[str, str | None]:
    """Orin Nano 8 GB Super, L4T 36.4.7 without the JetPack package, as a user finds it."""
    return {
        **system(
            "36.4.7",
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            "tegra234",
            (7802912, 1123456),
        ),
        **modes(NANO_MODES, 0),
        **cpu({0: (1113600, 729600, 1510400), 4: (729600, 729600, 1510400)}),
        **devfreq(f"{CLASS}/17000000.gpu", 306, 306, 612, "nvhost_podgov"),
        "sys/kernel/nvpmodel_clk_cap/emc": "2133000000\n",
        **thermal({"cpu-thermal": "51500", "gpu-thermal": "95750", "cv0-thermal": "-256000"}),
        **events(0, 0, 27390),
        "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        + "".join(
            f"/dev/zram{i}                              partition\t650240\t\t131072\t\t5\n"
            for i in range(6)
        ),
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.10": "",
        "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
    }


def agx_orin_jp72() -> dict[str, str | None]:
    """AGX Orin, L4T 39.2.0, MAXN, clocks locked: the memory clock is a devfreq node now."""
    return {
        **system(
            "39.2.0", "NVIDIA Jetson AGX Orin Developer Kit", "tegra234", (64387712, 60161220)
        ),
        **modes(ORIN_MODES, 0),
        **cpu({0: (2201600,) * 3, 4: (2201600,) * 3}),
        **devfreq(f"{CLASS}/17000000.gpu", 1300, 1300, 1300, "nvhost_podgov"),
        **devfreq(f"{CLASS}/bwmgr", 3200, 204, 3200, "performance"),
        **thermal({"cpu-thermal": "50375", "gpu-thermal": "47000", "tj-thermal": "50375"}),
        **events(0, 0, 0),
        "var/lib/dpkg/status": dpkg(
            {"libnvinfer10": "10.16.2.10-1+cuda13.2", "nvidia-jetpack": "7.2-b187"}
        ),
        **cuda_toolkit("13.2.1"),
        "sys/module/nvidia/version": "595.78\n",
        "usr/lib/python3.12/dist-packages/tensorrt/__init__.py": "",
    }


def thor_jp7() -> dict[str, str | None]:
    """AGX Thor, L4T 38.2.1, in its default 120 W, clocks free."""
    return {
        **system(
            "38.2.1", "NVIDIA Jetson AGX Thor Developer Kit", "tegra264", (128827392, 120000000)
        ),
        **modes(THOR_MODES, 1),
        **cpu({0: (972000, 972000, 2601000)}),
        **devfreq(f"{CLASS}/gpu-gpc-0", 315, 315, 1386, "nvhost_podgov"),
        **devfreq(f"{CLASS}/gpu-nvd-0", 315, 315, 1692, "nvhost_podgov"),
        **devfreq(f"{CLASS}/bwmgr", 3200, 665, 4266, "tegra_wmark"),
        **thermal(
            {
                "tj-thermal": "60410",
                "soc012-thermal": "58470",
                "cpu-thermal": "59220",
                "gpu-thermal": "",
            }
        ),
        **events(0, 0, 179, chip=5),
        "var/lib/dpkg/status": dpkg({"libnvinfer10": "10.13.3.9-1+cuda13.0"}),
        **cuda_toolkit("13.0.0"),
        "sys/module/nvidia/version": "580.00\n",
        "usr/lib/python3.12/dist-packages/tensorrt/__init__.py": "",
    }


def laptop() -> dict[str, str | None]:
    """An Intel laptop: clocks and temperatures, nothing of NVIDIA's."""
    return {
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\n',
        "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 900000 kB\n",
        "proc/cpuinfo": "processor: 0\nmodel name: Intel(R) Core(TM) i7-1260P\n",
        **cpu({0: (2100000, 400000, 4700000)}),
        **devfreq(f"{CLASS}/0000:00:02.0", 300, 300, 1400, "simple_ondemand"),
        **thermal({"acpitz": "27800", "x86_pkg_temp": "61000"}),
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "12\n",
        "sys/class/hwmon/hwmon0/name": "coretemp\n",
    }


BOARDS = {
    "agx-orin-jp62": agx_orin_jp62,
    "orin-nano-jp6": orin_nano_jp6,
    "agx-orin-jp72": agx_orin_jp72,
    "thor-jp7": thor_jp7,
    "laptop": laptop,
}


def look(root: Path, installed: dict[str, str] | None = None, **fakes: Any) -> Report:
    """The report on a tree, with these packages and no GPU driver."""
    defaults = {
        "version_of": lambda module: (installed or {}).get(module),
        "path_of": lambda module: f"/venv/{module}",
        "cuda": lambda _: Cuda(None, None, (), "no NVIDIA driver"),
        "infos": [],
        "loads": lambda _: True,
        "store": EngineStore(root / "engines"),
    }
    return examine.examine(root, **{**defaults, **fakes})
