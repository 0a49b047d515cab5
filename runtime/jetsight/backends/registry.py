"""Registry of the backends, and the choice of one for a family of graphs.

`openvino` is the default on x86 with AVX-512, and for INT8 with VNNI. `onnxruntime` is the default
everywhere else, and the reference for the others. `tensorrt` runs graphs for NVIDIA GPUs, on
engines of `jetsight build`. `--backend`, or the environment variable `JETSIGHT_BACKEND`, overrides.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from jetsight.engine import Backend
from jetsight.errors import EngineError, UsageError
from jetsight.machine import system
from jetsight.machine.cpu import cpu_flags, has_vnni
from jetsight.machine.jetson import jetson

VARIABLE = "JETSIGHT_BACKEND"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One backend of this version.

    Args:
        name: value of `--backend`.
        version: version of the installed library; None if it is not installed.
        families: prefixes of the graph families it runs, e.g. `("cpu-",)`.
        reason: why it cannot be used here; None if it can.
    """

    name: str
    version: str | None
    families: tuple[str, ...]
    reason: str | None

    def runs(self, family: str) -> bool:
        """Return whether this backend is for graphs of `family`, installed or not."""
        return family.startswith(self.families)


@dataclass(frozen=True, slots=True)
class _Kind:
    packages: tuple[str, ...]  # one of them must be installed
    families: tuple[str, ...]
    open: Callable[[int | None], Backend]
    # Missing package, and the command that installs it.
    install: Callable[[], tuple[str, str]] | None = None
    problem: Callable[[], str | None] = lambda: None  # why an installed one cannot be used


def _open_onnxruntime(threads: int | None) -> Backend:
    from jetsight.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(threads=threads)


def _open_openvino(threads: int | None) -> Backend:
    from jetsight.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(threads=threads)


def _open_tensorrt(threads: int | None) -> Backend:
    from jetsight.tensorrt.backend import TensorRtBackend

    return TensorRtBackend()


def _install_tensorrt() -> tuple[str, str]:
    if jetson(Path("/")) is not None:
        return "tensorrt", "sudo apt install python3-libnvinfer"
    return "tensorrt_rtx", "pip install 'jetsight[rtx]'"


def _tensorrt_problem() -> str | None:
    gpus = system.cuda(Path("/"))
    if not gpus.devices:
        return gpus.problem or "no CUDA device"
    if not _is_installed("pycuda"):
        return "Python package 'pycuda' is not installed; run: pip install 'jetsight[jetson]'"
    return None


_KINDS = {
    "openvino": _Kind(("openvino",), ("cpu-",), _open_openvino),
    "onnxruntime": _Kind(("onnxruntime",), ("cpu-",), _open_onnxruntime),
    "tensorrt": _Kind(
        packages=("tensorrt", "tensorrt_rtx"),
        families=("trt-",),
        open=_open_tensorrt,
        install=_install_tensorrt,
        problem=_tensorrt_problem,
    ),
}


def available() -> list[BackendInfo]:
    """List every backend, installed or not, the default for float graphs first.

    Example:
        >>> [info.name for info in available()]
        ['openvino', 'onnxruntime', 'tensorrt']
    """
    return [_info(name, _KINDS[name]) for name in _preferred("cpu-fp32")]


def _preferred(family: str) -> list[str]:
    """Order the names of all backends, the fastest for `family` on this CPU first."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # Without AVX-512 onnxruntime is up to twice as fast as OpenVINO, and without VNNI its INT8
    # kernels stay exact where OpenVINO's saturate.
    wide = has_vnni() if "int8" in family else "avx512f" in cpu_flags()
    first = "openvino" if x86 and wide else "onnxruntime"
    return sorted(_KINDS, key=lambda name: name != first)  # stable: the others keep their order


def _is_installed(package: str) -> bool:
    # Not imported: `doctor` and `--help` must not load 100 MB of libraries.
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: hidden through sys.modules[name] = None
        return False


def _info(name: str, kind: _Kind) -> BackendInfo:
    package = next(filter(_is_installed, kind.packages), None)
    if package is None:
        missing, command = name, "pip install 'jetsight[cpu]'"
        if kind.install is not None:
            missing, command = kind.install()
        reason = f"Python package {missing!r} is not installed; run: {command}"
        return BackendInfo(name, None, kind.families, reason)
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "unknown"  # e.g. a wheel whose name differs from the module's
    return BackendInfo(name, version, kind.families, kind.problem())


def choose(family: str) -> str | None:
    """Return the name of the preferred installed backend for `family`; None if there is none."""
    for name in _preferred(family):
        info = _info(name, _KINDS[name])
        if info.reason is None and info.runs(family):
            return name
    return None


def requested(name: str | None) -> str | None:
    """Look up the requested backend: `name`, else `JETSIGHT_BACKEND`, else None.

    Raises:
        UsageError: there is no such backend.
    """
    name = name or os.environ.get(VARIABLE) or None
    if name is not None and name not in _KINDS:
        raise UsageError(
            f"there is no backend {name!r}; choose one of {', '.join(map(repr, _KINDS))}"
        )
    return name


def open_backend(name: str | None, family: str, *, threads: int | None = None) -> Backend:
    """Open the backend called `name`, or the preferred one for `family`.

    Args:
        name: `"onnxruntime"`, `"openvino"` or `"tensorrt"`; None for `JETSIGHT_BACKEND`, else the
            preferred one.
        family: graph family it must run, e.g. `"cpu-int8"`.
        threads: CPU threads; None for one per physical core.

    Raises:
        UsageError: no such backend, or it cannot run `family`.
        MissingDependency: its library is not installed.
        EngineError: nothing installed runs `family`.
    """
    name = requested(name) or choose(family)
    if name is None:
        known = [info for info in available() if info.runs(family)]
        if not known:
            prefixes = ", ".join(sorted({repr(p) for k in _KINDS.values() for p in k.families}))
            raise EngineError(
                f"no backend of this version runs family {family!r}; known families start with "
                f"{prefixes}: choose one of them with --family"
            )
        name = known[0].name  # opening it raises an error that names the missing package
    kind = _KINDS[name]
    if not family.startswith(kind.families):
        raise UsageError(
            f"backend {name!r} does not run family {family!r}, only families that start with "
            f"{', '.join(map(repr, kind.families))}"
        )
    return kind.open(threads)
