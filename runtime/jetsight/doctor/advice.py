"""Advice for known problems of a machine: the finding, its effect, and the command to run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jetsight.machine.nvidia_packages import same_release

if TYPE_CHECKING:
    from jetsight.doctor.report import Report
    from jetsight.machine.jetson import Jetson

BUILD_MEMORY_BYTES = 1_500_000_000  # about the need of an engine of the ViT-L class
_SWAPPED_BYTES = 100_000_000  # a little is always swapped; more means pauses while measuring
_NEAR_MILLIDEGREES = 5_000
_VENV = "python3 -m venv --system-site-packages .venv"


def advise(report: Report, loads: Callable[[str], bool], nvcc: bool) -> tuple[str, ...]:
    """List one line per problem of this machine.

    Args:
        report: findings; its own advice is ignored.
        loads: returns whether a system library of that file name can be loaded.
        nvcc: the CUDA toolkit's compiler is installed.
    """
    lines = [*_cameras(report), *_drawing(report, loads)]
    board = report.jetson
    if board is not None:
        lines += [*_jetpack(board), *_tensorrt(report, board)]
        lines += [*_power(board), *_speed(report), *_memory(report)]
    return (*lines, *_pycuda(report, nvcc))


def _cameras(report: Report) -> Iterator[str]:
    locked = [camera.path for camera in report.cameras if not camera.accessible]
    if locked:
        yield (
            f"{', '.join(locked)} cannot be opened by this user; run: "
            "sudo usermod -aG video $USER, then log in again"
        )


def _drawing(report: Report, loads: Callable[[str], bool]) -> Iterator[str]:
    # OpenCV, which draws PushT, links against both; pip cannot install them.
    absent = [name for name in ("libGL.so.1", "libgthread-2.0.so.0") if not loads(name)]
    if report.version("gym_pusht") and absent:
        yield (
            f"gym_pusht cannot draw without {' and '.join(absent)}; on Debian and Ubuntu run: "
            "sudo apt install libgl1 libglib2.0-0"
        )


def _jetpack(board: Jetson) -> Iterator[str]:
    # The default claims nothing of a board whose TensorRT is not known.
    shipped = board.tensorrt or board.jetpack_tensorrt or "10"
    if int(shipped.partition(".")[0]) < 10:
        name = f"JetPack {board.jetpack}" if board.jetpack else f"L4T {board.l4t}"
        yield f"{name} is too old for jetsight; flash JetPack 6.1 or newer"


def _tensorrt(report: Report, board: Jetson) -> Iterator[str]:
    found = report.tensorrt
    if found.binding is None:
        yield from _hidden(report)
        return
    known = found.system or board.jetpack_tensorrt
    # An importable TensorRT may have no recorded version ("unknown").
    if known and re.match(r"\d", found.binding) and not same_release(found.binding, known):
        where = f" in {found.binding_path}" if found.binding_path else ""
        yield (
            f"the tensorrt that Python imports is {found.binding}{where}, but the board's is "
            f"{known}; only the board's matches its driver, so run: "
            f"pip uninstall tensorrt tensorrt-cu12 tensorrt-cu13; {_VENV}"
        )


def _hidden(report: Report) -> Iterator[str]:
    # JetPack's module is compiled for one Python, and a virtual environment hides it.
    folders = report.tensorrt.system_bindings
    names = [match[1] for path in folders if (match := re.search(r"/(python3\.\d+)/", path))]
    running = "python" + ".".join(report.system.python.split(".")[:2])
    if folders and names and running not in names:
        python = names[-1]
        yield (
            f"JetPack's TensorRT is for {python}, this is {running}; create the environment with: "
            f"/usr/bin/{python} -m venv --system-site-packages .venv"
        )
    elif folders:
        yield f"JetPack's TensorRT is hidden here; create the environment with: {_VENV}"
    elif report.tensorrt.system:
        yield (
            f"TensorRT {report.tensorrt.system} is installed without its Python module; run: "
            "sudo apt install python3-libnvinfer"
        )


def _power(board: Jetson) -> Iterator[str]:
    best = board.fastest_mode
    if best is not None and board.power_mode is not None and board.power_mode != best.number:
        name = f" ({board.power_mode_name})" if board.power_mode_name else ""
        yield (
            f"power mode {board.power_mode}{name} is below this board's fastest; before measuring "
            f"run: sudo nvpmodel -m {best.number} ({best.name})"
        )


def _speed(report: Report) -> Iterator[str]:
    free = [rate.name for rate in report.clocks.all() if rate.locked is False]
    if free:
        yield (
            f"clocks are not locked ({', '.join(free)}), so benchmarks are not comparable; before "
            "measuring run: sudo jetson_clocks"
        )
    counted = [f"{sign.events} x {sign.reason}" for sign in report.throttles if sign.events]
    if counted:
        yield (
            f"slowed down since boot by {', '.join(counted)}; check the power supply and its "
            "cable, or choose a lower power mode"
        )
    hot = [
        f"{zone.zone} {zone.millidegrees / 1000:.0f} of {zone.throttle_millidegrees / 1000:.0f} C"
        for zone in report.temperatures
        if zone.millidegrees is not None
        and zone.throttle_millidegrees is not None
        and zone.millidegrees > zone.throttle_millidegrees - _NEAR_MILLIDEGREES
    ]
    hot += [f"{sign.reason} is on" for sign in report.throttles if sign.active]
    if hot:
        yield f"too hot to keep its clocks ({', '.join(hot)}); let it cool, or check the fan"


def _memory(report: Report) -> Iterator[str]:
    # The GPU of a board shares its memory, and cannot use what is swapped out.
    available = report.system.memory_available_bytes
    if available is not None and available < BUILD_MEMORY_BYTES:
        yield (
            f"{available / 1e9:.1f} GB of memory is free, building an engine may need "
            f"{BUILD_MEMORY_BYTES / 1e9:.1f}; stop what is not needed, the desktop first: "
            "sudo systemctl isolate multi-user.target"
        )
    used = [area for area in report.system.swaps if area.used_bytes > _SWAPPED_BYTES]
    if used:
        gigabytes = sum(area.used_bytes for area in used) / 1e9
        fix = "sudo systemctl disable nvzramconfig, add a swap file on NVMe, and reboot"
        yield f"{gigabytes:.1f} GB is swapped out" + (
            f" to zram, which is memory itself; before a build run: {fix}"
            if any(area.zram for area in used)
            else ", and reading it back pauses a measurement; stop what is not needed"
        )


def _pycuda(report: Report, nvcc: bool) -> Iterator[str]:
    library = report.version("tensorrt") or report.version("tensorrt_rtx")
    wanted = report.jetson is not None or (report.cuda.devices and library)
    if not wanted or report.version("pycuda"):
        return
    # PyCUDA has no wheels: pip compiles it, with nvcc from the CUDA toolkit.
    toolkit = "" if nvcc or report.jetson is None else "sudo apt install nvidia-jetpack, then "
    yield (
        f"pycuda is missing, so no TensorRT family can run; it is compiled here: {toolkit}"
        "PATH=/usr/local/cuda/bin:$PATH pip install 'jetsight[jetson]'"
    )
