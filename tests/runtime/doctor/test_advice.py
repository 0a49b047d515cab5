"""Each trap of a Jetson is advised about where it holds, and nowhere else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.runtime.jetson_factory import BOARDS, look, modes, release, tree

from jetsight.doctor.report import Report
from jetsight.machine.nvidia_packages import same_release
from jetsight.machine.system import Cuda, Gpu

READY = {"tensorrt": "10.3.0", "pycuda": "2026.1"}
GPU = Gpu("RTX", 8 << 30, "8.9", multiprocessors=34, integrated=False)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """A board in the state that the instructions lead to."""
    return tree(tmp_path, BOARDS["agx-orin-jp62"]())


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A board as it is found, in most of the traps."""
    return tree(tmp_path, BOARDS["orin-nano-jp6"]())


def _about(report: Report, word: str) -> str:
    """The one line of advice with that word, or nothing."""
    lines = [line for line in report.advice if word in line]
    assert len(lines) <= 1
    return lines[0] if lines else ""


def test_board_that_followed_the_instructions_gets_no_advice(orin: Path) -> None:
    assert look(orin, READY).advice == ()


def test_tensorrt_of_pip_is_not_the_boards(orin: Path) -> None:
    line = _about(look(orin, {**READY, "tensorrt": "10.16.1.11"}), "that Python imports")
    assert "is 10.16.1.11 in /venv/tensorrt, but the board's is 10.3.0.30" in line
    assert "pip uninstall tensorrt tensorrt-cu12 tensorrt-cu13" in line
    assert "--system-site-packages" in line


def test_tensorrt_of_unknown_version_is_not_accused(orin: Path) -> None:
    assert look(orin, {**READY, "tensorrt": "unknown"}).advice == ()


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("10.3.0", "10.3.0.30", True),
        ("10.3", "10.3.0.30", True),
        ("10.16.1.11", "10.16.2.10", False),
        ("10.3.0", "10.13.3.9", False),
        ("10.3", "11.0", False),
    ],
)
def test_versions_are_compared_as_far_as_both_say(left: str, right: str, same: bool) -> None:
    assert same_release(left, right) is same
    assert same_release(right, left) is same


def _python(report_root: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr("platform.python_version", lambda: version)
    return look(report_root, {"pycuda": "2026.1"})


def test_hidden_tensorrt_names_the_python_it_is_for(
    orin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = _about(_python(orin, "3.10.12", monkeypatch), "TensorRT")
    assert line.endswith(
        "is hidden here; create the environment with: python3 -m venv --system-site-packages .venv"
    )
    line = _about(_python(orin, "3.11.9", monkeypatch), "TensorRT")
    assert "is for python3.10, this is python3.11" in line
    assert "/usr/bin/python3.10 -m venv --system-site-packages" in line


def test_tensorrt_without_its_python_module_names_the_package(orin: Path) -> None:
    (orin / "usr/lib/python3.10/dist-packages/tensorrt/__init__.py").unlink()
    (orin / "usr/lib/python3.10/dist-packages/tensorrt").rmdir()
    report = look(orin, {"pycuda": "2026.1"})
    assert "sudo apt install python3-libnvinfer" in _about(report, "without its Python module")
    (package,) = [package for package in report.packages if package.module == "tensorrt"]
    assert package.brought_by == "sudo apt install python3-libnvinfer"


def test_slow_mode_and_free_clocks_make_timings_incomparable(nano: Path, tmp_path: Path) -> None:
    report = look(nano, READY)
    mode = _about(report, "is below")
    assert mode.startswith("power mode 0 (15W) is below this board's fastest")
    assert "sudo nvpmodel -m 2 (MAXN_SUPER)" in mode
    clocks = _about(report, "not comparable")
    assert "(cpu 0 1 2 3, cpu 4 5 6 7, 17000000.gpu)" in clocks
    assert "sudo jetson_clocks" in clocks
    tree(tmp_path, modes({0: "15W", 1: "7W"}, 0))
    assert _about(look(nano, READY), "is below") == ""


def test_thor_is_advised_about_every_clock_that_is_free(tmp_path: Path) -> None:
    report = look(tree(tmp_path, BOARDS["thor-jp7"]()), {**READY, "tensorrt": "10.13.3.9"})
    assert "gpu-gpc-0, gpu-nvd-0, emc" in _about(report, "not comparable")
    assert "sudo nvpmodel -m 0 (MAXN)" in _about(report, "is below")
    assert "179 x instantaneous over-current" in _about(report, "since boot")


def test_heat_and_over_current_are_advised_about(nano: Path) -> None:
    report = look(nano, READY)
    assert "27390 x instantaneous over-current" in _about(report, "since boot")
    assert "gpu-thermal 96 of 99 C" in _about(report, "too hot")


def test_thermal_alert_that_is_on_is_advised_about(orin: Path) -> None:
    (orin / "sys/class/thermal/cooling_device0/cur_state").write_text("1\n")
    assert "gpu-throttle-alert is on" in _about(look(orin, READY), "too hot")


def test_little_memory_and_swapped_memory_are_advised_about(nano: Path, tmp_path: Path) -> None:
    report = look(nano, READY)
    assert "1.2 GB of memory is free" in _about(report, "may need 1.5")
    assert [area.zram for area in report.system.swaps] == [True] * 6
    assert "0.8 GB is swapped out to zram" in _about(report, "swapped")
    swap = "Filename Type Size Used Priority\n/mnt/swap file 8000000 {} -2\n"
    tree(
        tmp_path, {"proc/swaps": swap.format(500_000), "proc/meminfo": "MemAvailable: 2000000 kB\n"}
    )
    report = look(nano, READY)
    assert "pauses a measurement" in _about(report, "swapped")
    assert _about(report, "may need") == ""
    tree(tmp_path, {"proc/swaps": swap.format(50_000)})
    assert _about(look(nano, READY), "swapped") == ""


def test_old_jetpack_is_advised_about(orin: Path, tmp_path: Path) -> None:
    (orin / "var/lib/dpkg/status").unlink()
    tree(tmp_path, {"etc/nv_tegra_release": release("36.3.0")})
    assert "JetPack 6.0 is too old for jetsight" in _about(look(orin, READY), "too old")


def test_missing_pycuda_says_how_it_is_compiled(orin: Path) -> None:
    line = _about(look(orin, {"tensorrt": "10.3.0"}), "pycuda")
    assert "PATH=/usr/local/cuda/bin:$PATH pip install 'jetsight[jetson]'" in line
    assert "apt" not in line
    (orin / "usr/local/cuda/bin/nvcc").unlink()
    line = _about(look(orin, {"tensorrt": "10.3.0"}), "pycuda")
    assert "sudo apt install nvidia-jetpack, then PATH=" in line


def test_pycuda_is_missed_on_a_workstation_only_with_a_gpu_and_a_tensorrt(tmp_path: Path) -> None:
    driver = Cuda("580", "13.0", (GPU,), None)
    rtx = {"tensorrt_rtx": "1.7.1"}
    assert "pycuda" in _about(look(tmp_path, rtx, cuda=lambda _: driver), "pycuda")
    assert look(tmp_path, rtx).advice == ()
    assert look(tmp_path, {}, cuda=lambda _: driver).advice == ()


def test_advice_is_one_line_each(nano: Path) -> None:
    report = look(nano, {})
    assert len(report.advice) >= 7
    for line in report.advice:
        assert line.isprintable()
        assert len(line) < 260
    assert dataclasses.asdict(report)["advice"] == report.advice


def test_nothing_on_a_board_is_said_to_bring_a_tensorrt_from_pip(
    orin: Path, tmp_path: Path
) -> None:
    board, elsewhere = look(orin, {}), look(tmp_path / "pc", {})
    for report, extras in ((board, set()), (elsewhere, {"rtx", "torch-tensorrt"})):
        told = " ".join(package.brought_by for package in report.packages)
        assert {name for name in ("rtx", "torch-tensorrt") if f"[{name}]" in told} == extras
