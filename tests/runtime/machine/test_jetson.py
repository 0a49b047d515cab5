"""Boards we do not have, described from trees of the files they have."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.runtime.jetson_factory import (
    BOARDS,
    agx_orin_jp62,
    devfreq,
    dpkg,
    look,
    modes,
    release,
    tree,
)

from jetsight.cli.doctor import describe
from jetsight.doctor.report import TensorRt
from jetsight.machine import nvidia_packages, sysfs
from jetsight.machine.clocks import ClockRate, clocks
from jetsight.machine.jetson import PowerMode, jetson
from jetsight.machine.thermal import Temperature, Throttle, temperatures, throttles

MHZ = 1_000_000


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tree(tmp_path, BOARDS[request.param]())


# name -> JetPack, TensorRT, CUDA toolkit, power mode, its name, fastest mode
EXPECTED = {
    "agx-orin-jp62": ("6.2", "10.3.0.30", "12.6.11", "0", "MAXN", PowerMode("0", "MAXN")),
    "orin-nano-jp6": ("6.2.1", "10.3.0", None, "0", "15W", PowerMode("2", "MAXN_SUPER")),
    "agx-orin-jp72": ("7.2", "10.16.2.10", "13.2.1", "0", "MAXN", PowerMode("0", "MAXN")),
    "thor-jp7": ("7.0", "10.13.3.9", "13.0.0", "1", "120W", PowerMode("0", "MAXN")),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_board_software_and_power_mode(tmp_path: Path, name: str) -> None:
    found = jetson(tree(tmp_path, BOARDS[name]()))
    assert found is not None
    assert (
        found.jetpack,
        found.tensorrt,
        found.cuda_toolkit,
        found.power_mode,
        found.power_mode_name,
        found.fastest_mode,
    ) == EXPECTED[name]
    assert found.jetpack_tensorrt in ("10.3", "10.13", "10.16")
    assert found.tensorrt.startswith(found.jetpack_tensorrt)


def test_laptop_is_no_jetson(tmp_path: Path) -> None:
    report = look(tree(tmp_path, BOARDS["laptop"]()))
    assert report.jetson is None
    assert report.tensorrt == TensorRt(None, (), None, None)
    assert report.clocks.gpu == ()
    assert report.clocks.emc is None
    assert report.advice == ()
    assert report.throttles == (Throttle("processor package", 12, None),)


def test_clocks_of_an_orin_looked_at_by_root(tmp_path: Path) -> None:
    found = clocks(tree(tmp_path, BOARDS["agx-orin-jp62"]()))
    assert [rate.name for rate in found.cpu] == ["cpu 0 1 2 3", "cpu 4 5 6 7", "cpu 8 9 10 11"]
    assert found.cpu[0].current_hz == 2_201_600_000
    speed = 1300 * MHZ
    assert found.gpu == (ClockRate("17000000.gpu", speed, speed, speed, "nvhost_podgov", True),)
    assert found.emc == ClockRate("emc", 3199 * MHZ, 204 * MHZ, 3199 * MHZ, None, True)
    assert found.locked is True


def test_memory_clock_hidden_from_users_leaves_its_ceiling(tmp_path: Path) -> None:
    found = clocks(tree(tmp_path, BOARDS["orin-nano-jp6"]()))
    assert found.emc == ClockRate("emc", None, None, 2133 * MHZ, None, None)
    assert found.gpu[0].locked is False
    assert found.locked is False
    (tmp_path / "sys/kernel/nvpmodel_clk_cap/emc").write_text("0\n")
    assert clocks(tmp_path).emc is None


def test_clocks_of_jetpack_7_are_devfreq_nodes(tmp_path: Path) -> None:
    thor = clocks(tree(tmp_path / "thor", BOARDS["thor-jp7"]()))
    assert [rate.name for rate in thor.gpu] == ["gpu-gpc-0", "gpu-nvd-0"]
    assert thor.emc == ClockRate("emc", 3200 * MHZ, 665 * MHZ, 4266 * MHZ, "tegra_wmark", False)
    orin = clocks(tree(tmp_path / "orin", BOARDS["agx-orin-jp72"]()))
    assert orin.emc is not None
    assert orin.emc.locked is True  # its floor is low, its governor holds the ceiling
    assert orin.locked is True


def test_gpu_clock_is_found_without_the_class_folder(tmp_path: Path) -> None:
    node = "sys/devices/platform/17000000.ga10b/devfreq_dev"
    tree(tmp_path, devfreq(node, 306, 306, 918, "nvhost_podgov"))
    (rate,) = clocks(tmp_path).gpu
    assert (rate.name, rate.max_hz) == ("17000000.ga10b", 918 * MHZ)


def test_devfreq_nodes_are_links_on_a_board(tmp_path: Path) -> None:
    node = "sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu"
    tree(tmp_path, devfreq(node, 306, 306, 918, "nvhost_podgov"))
    (tmp_path / "sys/class/devfreq").mkdir(parents=True)
    (tmp_path / "sys/class/devfreq/17000000.gpu").symlink_to(tmp_path / node)
    (tmp_path / "sys/class/devfreq/13e00000.host1x").symlink_to(tmp_path / "nothing")
    assert [rate.name for rate in clocks(tmp_path).gpu] == ["17000000.gpu"]


def test_nothing_known_is_not_locked_and_not_unlocked(tmp_path: Path) -> None:
    found = clocks(tmp_path)
    assert (found.cpu, found.gpu, found.emc, found.locked) == ((), (), None, None)


def test_temperatures_keep_zones_that_are_switched_off(tmp_path: Path) -> None:
    orin = temperatures(tree(tmp_path / "orin", BOARDS["agx-orin-jp62"]()))
    assert orin[0] == Temperature("cpu-thermal", 48_562, 99_000)
    assert orin[2] == Temperature("cv0-thermal", None, 99_000)
    nano = temperatures(tree(tmp_path / "nano", BOARDS["orin-nano-jp6"]()))
    assert nano[2].millidegrees is None  # -256 C stands for a part without power
    thor = temperatures(tree(tmp_path / "thor", BOARDS["thor-jp7"]()))
    assert [zone.zone for zone in thor if zone.millidegrees is None] == ["gpu-thermal"]


def test_zones_are_in_numeric_order(tmp_path: Path) -> None:
    tree(tmp_path, {f"sys/class/thermal/thermal_zone{i}/type": f"zone{i}" for i in range(12)})
    assert [zone.zone for zone in temperatures(tmp_path)][9:] == [
        "zone9",
        "zone10",
        "zone11",
    ]


def test_throttle_counters_and_alerts(tmp_path: Path) -> None:
    found = throttles(tree(tmp_path, BOARDS["agx-orin-jp62"]()))
    assert [(sign.reason, sign.events, sign.active) for sign in found] == [
        ("under-voltage", 0, None),
        ("average over-current", 0, None),
        ("instantaneous over-current", 0, None),
        ("gpu-throttle-alert", None, False),
    ]
    (tmp_path / "sys/class/hwmon/hwmon3/name").write_text("another\n")
    (tmp_path / "sys/class/thermal/cooling_device0/cur_state").write_text("1\n")
    assert throttles(tmp_path) == (Throttle("gpu-throttle-alert", None, True),)


@pytest.mark.parametrize(
    ("l4t", "jetpack", "shipped"),
    [
        ("36.3.0", "6.0", "8.6"),
        ("36.4.0", "6.1", "10.3"),
        ("36.4.3", "6.2", "10.3"),
        ("36.4.9", "6.1 or 6.2", "10.3"),
        ("36.5.0", "6.2.2", "10.3"),
        ("38.2.2", "7.0", "10.13"),
        ("38.4.0", "7.1", "10.13"),
        ("39.2.1", "7.2.1", "10.16"),
        ("40.1.0", None, None),
    ],
)
def test_jetpack_of_an_l4t_release(
    tmp_path: Path, l4t: str, jetpack: str | None, shipped: str | None
) -> None:
    tree(tmp_path, {"etc/nv_tegra_release": release(l4t)})
    found = jetson(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack, found.jetpack_tensorrt) == (l4t, jetpack, shipped)


def test_container_without_the_release_file_is_still_a_jetson(tmp_path: Path) -> None:
    files = {"proc/device-tree/compatible": "nvidia,p3767-0003\0nvidia,tegra234\0"}
    found = jetson(tree(tmp_path, files))
    assert found is not None
    assert (found.l4t, found.jetpack) == (None, None)
    tree(tmp_path, {"var/lib/dpkg/status": dpkg({"nvidia-l4t-core": "36.5.0-2026011519"})})
    found = jetson(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == ("36.5.0", "6.2.2")


@pytest.mark.parametrize(
    ("names", "fastest"),
    [
        ({0: "15W", 1: "7W"}, PowerMode("0", "15W")),
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "MAXN"}, PowerMode("2", "MAXN_SUPER")),
        ({0: "MODE_30W", 1: "MODE_50W", 2: "MAXN"}, PowerMode("2", "MAXN")),
        ({}, None),
    ],
)
def test_fastest_mode_is_by_name_never_by_number(
    tmp_path: Path, names: dict[int, str], fastest: PowerMode | None
) -> None:
    files = {"etc/nv_tegra_release": release("36.4.3"), **modes(names, 7)}
    found = jetson(tree(tmp_path, files))
    assert found is not None
    assert found.fastest_mode == fastest
    assert (found.power_mode, found.power_mode_name) == ("7", None)


def test_removed_packages_do_not_count(tmp_path: Path) -> None:
    status = dpkg({"a": "1.0"}, removed={"libnvinfer10": "10.3.0.30-1+cuda12.5"})
    tree(tmp_path, {"var/lib/dpkg/status": status})
    assert nvidia_packages.packages(tmp_path, ("a", "libnvinfer10", "b")) == {"a": "1.0"}
    assert nvidia_packages.tensorrt(tmp_path) is None
    tree(tmp_path, {"usr/lib/aarch64-linux-gnu/libnvinfer.so.not.a.version": ""})
    assert nvidia_packages.tensorrt(tmp_path) is None
    tree(tmp_path, {"usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": ""})
    assert nvidia_packages.tensorrt(tmp_path) == "10.3.0"


def test_every_board_is_printed_and_is_json(board: Path) -> None:
    report = look(board)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["clocks"]["cpu"]
    text = "\n".join(describe(report))
    assert "MHz of" in text
    if report.jetson:
        for part in ("power mode  ", "fastest ", "of the system", "throttled"):
            assert part in text


def _spoil(path: Path, how: str) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a loop":
        path.symlink_to(path)
    elif how != "missing":
        path.write_bytes(
            {"empty": b"", "garbage": b"\xff\x00\n=:{\n<9 > " * 999, "NA": b"N/A\n"}[how]
        )


@pytest.mark.parametrize("how", ["missing", "a folder", "a loop", "empty", "garbage", "NA"])
def test_every_file_is_optional(board: Path, how: str) -> None:
    """Each file alone is spoilt, one after the other, until all of them are."""
    leaves = [path for path in board.rglob("*") if path.is_file() or not any(path.iterdir())]
    assert len(leaves) > 15
    for leaf in leaves:
        _spoil(leaf, how)
        report = look(board)
        assert json.dumps(dataclasses.asdict(report))
        assert list(describe(report))
    assert report.clocks.locked is None


class Vanishing:
    """An open file whose reading raises, or gives None as a read does that would block."""

    def __init__(self, answer: OSError | None) -> None:
        self.answer = answer

    def __enter__(self) -> Vanishing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, size: int) -> None:
        if self.answer is not None:
            raise self.answer


@pytest.mark.parametrize(
    "answer", [None, OSError(errno.EAGAIN, "try again"), OSError(errno.EIO, "")]
)
def test_node_that_vanishes_while_it_is_read_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    tree(tmp_path, agx_orin_jp62())
    opened = Path.open

    def open_(path: Path, *arguments: Any) -> Any:
        return Vanishing(answer) if path.name in ("temp", "cur_freq") else opened(path, *arguments)

    assert temperatures(tmp_path)[0].millidegrees == 48_562
    monkeypatch.setattr(Path, "open", open_)
    assert temperatures(tmp_path)[0] == Temperature("cpu-thermal", None, 99_000)
    (gpu,) = clocks(tmp_path).gpu
    assert (gpu.current_hz, gpu.locked) == (None, True)


@pytest.mark.parametrize("text", ["12 34", "1e3", "0x10", "1" * 40, "٣", ""])
def test_only_a_plain_integer_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "node").write_text(text)
    assert sysfs.integer(tmp_path / "node") is None
    (tmp_path / "node").write_text("-12\n")
    assert sysfs.integer(tmp_path / "node") == -12


def test_escape_codes_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"proc/device-tree/model": "Jetson\x1b[2J\0", "etc/nv_tegra_release": release("36.4.3")},
    )
    found = jetson(tmp_path)
    assert found is not None
    assert found.model == "Jetson [2J"
