"""Examination of this machine: its abilities, and the packages that are missing for others.

Packages are looked up, never imported: importing torch takes a second and a gigabyte.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jetsight.backends import registry
from jetsight.backends.registry import BackendInfo
from jetsight.doctor.advice import advise
from jetsight.doctor.report import Ability, Engines, Package, Report, TensorRt
from jetsight.errors import EXTRA_OF, EngineError
from jetsight.machine import nvidia_packages
from jetsight.machine import system as machine
from jetsight.machine.clocks import clocks
from jetsight.machine.jetson import Jetson, jetson
from jetsight.machine.nvidia_packages import same_release
from jetsight.machine.system import Cuda
from jetsight.machine.thermal import temperatures, throttles
from jetsight.tensorrt.bindings import RTX, TENSORRT, TensorRtModule, parse_version
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import HostSpec, host_spec
from jetsight.version import __version__

Lookup = Callable[[str], "str | None"]

_MODULES = (*sorted({*EXTRA_OF, "tensorrt"} - {"jinja2", "tomli"}),)
_PC_ONLY = ("tensorrt_rtx", "torch_tensorrt")


def installed_version(module: str) -> str | None:
    """Return the version of an importable package, "unknown" if not recorded, None if absent."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ValueError, ImportError):  # ValueError: blocked by sys.modules[name] = None
        return None
    # Distributions named after a CUDA version also contain the module `tensorrt`.
    for name in (module.replace("_", "-"), f"{module}_cu13", f"{module}_cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def installed_path(module: str) -> str | None:
    """Return the folder of an importable package; None if it has none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ValueError, ImportError):
        return None
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else None


def examine(
    root: str | Path = "/",
    *,
    version_of: Lookup = installed_version,
    path_of: Lookup = installed_path,
    cuda: Callable[[Path], Cuda] = machine.cuda,
    infos: Sequence[BackendInfo] | None = None,
    loads: Callable[[str], bool] = machine.library_loads,
    store: EngineStore | None = None,
) -> Report:
    """Examine this machine.

    Args:
        root: parent of `/etc`, `/proc`, `/sys` and `/dev`.
        version_of: returns the version of a package.
        path_of: returns the folder of a package.
        cuda: driver probe.
        infos: known backends; `jetsight.backends.registry.available()` if None.
        loads: returns whether a system library of that file name can be loaded.
        store: the engines; this user's if None.
    """
    top = Path(root)
    board, driver = jetson(top), cuda(top)
    known = registry.available() if infos is None else infos
    versions = {module: version_of(module) for module in _MODULES}
    report = Report(
        jetsight=__version__,
        system=machine.system(top),
        jetson=board,
        cuda=driver,
        tensorrt=TensorRt(
            system=nvidia_packages.tensorrt(top),
            system_bindings=nvidia_packages.bindings(top),
            binding=versions["tensorrt"],
            binding_path=path_of("tensorrt") if versions["tensorrt"] else None,
        ),
        clocks=clocks(top),
        temperatures=temperatures(top),
        throttles=throttles(top),
        cameras=machine.video_devices(top),
        packages=tuple(Package(name, versions[name], _bringer(name, board)) for name in versions),
        abilities=_abilities(known, versions, driver, board),
        engines=_engines(top, versions, store or EngineStore()),
        advice=(),
    )
    # In a second step, because the advice is derived from the other findings.
    return replace(report, advice=advise(report, loads, nvidia_packages.has_compiler(top)))


def _engines(root: Path, versions: dict[str, str | None], store: EngineStore) -> Engines:
    # Only the records are read; the engines' bytes are checked when one is loaded.
    folder, library = str(store.root), _library(root, versions)
    try:
        records = store.records()
    except (EngineError, OSError) as error:
        return Engines(folder, 0, 0, str(error))
    usable = 0
    if library is not None:
        host = host_spec(library, root)
        usable = sum(record.proven and _fits(record.fingerprint.host, host) for record in records)
    return Engines(folder, len(records), usable, None)


def _fits(built: HostSpec, here: HostSpec) -> bool:
    # Package files may hold fewer digits of a version than the library reports.
    known = replace(here, version=built.version)
    return same_release(built.version, here.version) and not built.differences(known)


def _library(root: Path, versions: dict[str, str | None]) -> TensorRtModule | None:
    """Describe, without importing it, the TensorRT that would run engines."""
    for name in (TENSORRT, RTX):
        installed = versions[name]
        if installed is None:
            continue
        # The package record of the system has the build number, the Python module may not.
        system = nvidia_packages.tensorrt(root) if name == TENSORRT else None
        exact = system if system and same_release(system, installed) else installed
        return TensorRtModule(None, name, parse_version(exact))
    return None


def _bringer(module: str, board: Jetson | None) -> str:
    if module == "tensorrt":
        if board is None:
            return "only on Jetson; here use jetsight[rtx]"
        package = "python3-libnvinfer" if board.tensorrt else "nvidia-jetpack"
        return f"sudo apt install {package}"
    if board is not None and module in _PC_ONLY:
        return "only on a PC: pip would install a TensorRT that is not the board's"
    return f"pip install 'jetsight[{EXTRA_OF[module]}]'"


def _abilities(
    infos: Sequence[BackendInfo],
    versions: dict[str, str | None],
    driver: Cuda,
    board: Jetson | None,
) -> tuple[Ability, ...]:
    """List all abilities; a row that names packages needs all of them."""
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
        needs("build TensorRT engines", "tensorrt", "pycuda", more=gpu),
        needs("build TensorRT-RTX engines", "tensorrt_rtx"),
        needs("compare with Torch-TensorRT", "torch_tensorrt", more=gpu),
    )


def _runs(prefix: str, infos: Sequence[BackendInfo], also: tuple[str, ...] = ()) -> Ability:
    """Describe whether a backend for these graph families can be used, and which one."""
    known = [info for info in infos if info.runs(prefix)]
    ready = [f"{info.name} {info.version}" for info in known if info.reason is None]
    reasons = [] if ready else [info.reason or "" for info in known]
    missing = tuple(dict.fromkeys([*reasons, *also]))  # both may report that there is no GPU
    if not known:
        missing = (f"jetsight {__version__} has no backend for them",)
    suffix = f" with {' or '.join(ready)}" if ready else ""
    return Ability(f"run {prefix}* bundles{suffix}", not missing, missing)
