"""What this machine can run, what is missing, and which extra or package brings it.

Packages are looked up, never imported: asking about torch must not cost a second or a gigabyte.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jetsight
from jetsight import backends, machine
from jetsight.backends import BackendInfo
from jetsight.extras import EXTRA_OF
from jetsight.machine import Cuda, Jetson, System, VideoDevice

Lookup = Callable[[str], "str | None"]

_MODULES = (*sorted({*EXTRA_OF, "tensorrt"} - {"jinja2", "tomli", "tqdm"}),)
_VENV_HINT = "create the environment with: python3 -m venv --system-site-packages .venv"


@dataclass(frozen=True)
class Package:
    """An optional package; `brought_by` is what to run when `version` is None."""

    module: str
    version: str | None
    brought_by: str


@dataclass(frozen=True)
class Ability:
    """Something jetsight does, whether it can do it here, and if not, what is missing."""

    what: str
    possible: bool
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything `jetsight doctor` knows; `--json` prints exactly this."""

    jetsight: str
    system: System
    jetson: Jetson | None
    cuda: Cuda
    cameras: tuple[VideoDevice, ...]
    packages: tuple[Package, ...]
    abilities: tuple[Ability, ...]
    advice: tuple[str, ...]


def installed_version(module: str) -> str | None:
    """Version of an importable package, "unknown" if it does not say, None if absent."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ValueError, ImportError):  # ValueError: blocked by sys.modules[name] = None
        return None
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def examine(
    root: str | Path = "/",
    *,
    version_of: Lookup = installed_version,
    cuda: Callable[[Path], Cuda] = machine.cuda,
    infos: Sequence[BackendInfo] | None = None,
    loads: Callable[[str], bool] = machine.library_loads,
) -> Report:
    """Look at this machine.

    Args:
        root: where `/etc`, `/proc`, `/sys` and `/dev` are found.
        version_of: package lookup.
        cuda: driver probe.
        infos: backends this version knows; `jetsight.backends.available()` if None.
        loads: whether the system library of that file name is there.
    """
    top = Path(root)
    board, driver, cameras = machine.jetson(top), cuda(top), machine.video_devices(top)
    known = backends.available() if infos is None else infos
    versions = {module: version_of(module) for module in _MODULES}
    packages = tuple(
        Package(name, found, _bringer(name, board)) for name, found in versions.items()
    )
    return Report(
        jetsight=jetsight.__version__,
        system=machine.system(top),
        jetson=board,
        cuda=driver,
        cameras=cameras,
        packages=packages,
        abilities=_abilities(known, versions, driver, board),
        advice=(*_advice(top, versions, board, cameras), *_libraries(versions, loads)),
    )


def _bringer(module: str, board: Jetson | None) -> str:
    if module == "tensorrt":
        return (
            "sudo apt install nvidia-jetpack" if board else "only on Jetson; here use jetsight[rtx]"
        )
    return f"pip install 'jetsight[{EXTRA_OF[module]}]'"


def _abilities(
    infos: Sequence[BackendInfo],
    versions: dict[str, str | None],
    driver: Cuda,
    board: Jetson | None,
) -> tuple[Ability, ...]:
    """What is possible; a row that needs packages needs all of them."""
    gpu = () if driver.devices else (driver.problem or "no CUDA device",)

    def needs(what: str, *modules: str, more: tuple[str, ...] = ()) -> Ability:
        absent = [_bringer(name, board) for name in modules if not versions[name]]
        missing = tuple(dict.fromkeys([*absent, *more]))
        return Ability(what, not missing, missing)

    return (
        _runs("cpu-", infos),
        _runs("trt-", infos, gpu),
        needs("read video files, RTSP and V4L2 cameras", "av"),
        needs("read LeRobot datasets", "av", "pyarrow"),
        needs("run live Gymnasium environments", "gymnasium"),
        needs("record PushT", "gymnasium", "gym_pusht", "av", "pyarrow"),
        needs("train", "torch", "safetensors", "av", "pyarrow"),
        needs("compile", "torch", "onnx", "onnxscript", "onnxruntime"),
        needs("build TensorRT-RTX engines", "tensorrt_rtx"),
        needs("compare with Torch-TensorRT", "torch_tensorrt", more=gpu),
    )


def _runs(prefix: str, infos: Sequence[BackendInfo], also: tuple[str, ...] = ()) -> Ability:
    """Whether a backend for these graph families can be used, and which one would be."""
    known = [info for info in infos if info.runs(prefix)]
    ready = [f"{info.name} {info.version}" for info in known if info.reason is None]
    missing = also if ready else (*(info.reason or "" for info in known), *also)
    if not known:
        missing = (f"jetsight {jetsight.__version__} has no backend for them",)
    suffix = f" with {' or '.join(ready)}" if ready else ""
    return Ability(f"run {prefix}* bundles{suffix}", not missing, missing)


def _advice(
    root: Path,
    versions: dict[str, str | None],
    board: Jetson | None,
    cameras: tuple[VideoDevice, ...],
) -> tuple[str, ...]:
    """Traps that have cost people an afternoon."""
    found = []
    locked = [camera.path for camera in cameras if not camera.accessible]
    if locked:
        found.append(
            f"{', '.join(locked)} cannot be opened by this user; run: "
            "sudo usermod -aG video $USER, then log in again"
        )
    if board and not versions["tensorrt"]:
        apt = list(root.glob("usr/lib/python3*/dist-packages/tensorrt"))
        if apt:
            found.append(f"JetPack's TensorRT is installed but hidden here; {_VENV_HINT}")
    if board and (board.jetpack_tensorrt or "10").startswith("8"):
        found.append(f"JetPack {board.jetpack} is too old for jetsight; flash JetPack 6.1 or newer")
    return tuple(found)


def _libraries(versions: dict[str, str | None], loads: Callable[[str], bool]) -> tuple[str, ...]:
    """System libraries that pip cannot bring: OpenCV, which draws PushT, links against two."""
    absent = [name for name in ("libGL.so.1", "libgthread-2.0.so.0") if not loads(name)]
    if not versions["gym_pusht"] or not absent:
        return ()
    return (
        f"gym_pusht cannot draw without {' and '.join(absent)}; on Debian and Ubuntu run: "
        "sudo apt install libgl1 libglib2.0-0",
    )
