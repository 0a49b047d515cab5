"""What computes: the installed backends, and how one is chosen for a family of graphs.

`openvino` is the default where it is fastest: on x86 with AVX-512, and for INT8 with VNNI. Without,
`onnxruntime` is up to twice as fast, and its INT8 kernels stay exact where OpenVINO's saturate. It
is the default everywhere else too, and the reference the others are compared with. `--backend`, or
the environment variable `JETSIGHT_BACKEND`, overrides.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from jetsight.backends import host
from jetsight.engine import Backend
from jetsight.errors import EngineError, MissingDependency, UsageError

VARIABLE = "JETSIGHT_BACKEND"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One backend this version knows.

    Args:
        name: what `--backend` calls it.
        version: version of the installed library; None when it is not installed.
        families: prefixes of the graph families it runs, e.g. `("cpu-",)`.
        reason: why it cannot be used here; None when it can.
    """

    name: str
    version: str | None
    families: tuple[str, ...]
    reason: str | None

    def runs(self, family: str) -> bool:
        """Whether this backend is for graphs of `family`, installed or not."""
        return family.startswith(self.families)


@dataclass(frozen=True, slots=True)
class _Kind:
    package: str
    families: tuple[str, ...]
    open: Callable[[int | None], Backend]


def _open_onnxruntime(threads: int | None) -> Backend:
    from jetsight.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(threads=threads)


def _open_openvino(threads: int | None) -> Backend:
    from jetsight.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(threads=threads)


_KINDS = {
    "openvino": _Kind("openvino", ("cpu-",), _open_openvino),
    "onnxruntime": _Kind("onnxruntime", ("cpu-",), _open_onnxruntime),
}


def available() -> list[BackendInfo]:
    """Every backend this version knows, installed or not, the one for float graphs here first.

    Example:
        >>> [info.name for info in available()]
        ['openvino', 'onnxruntime']
    """
    return [_info(name, _KINDS[name]) for name in _preferred("cpu-fp32")]


def _preferred(family: str) -> list[str]:
    """Names of all backends, the fastest for `family` on this CPU first."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    wide = host.has_vnni() if "int8" in family else "avx512f" in host.cpu_flags()
    names = list(_KINDS)
    return names if x86 and wide else names[::-1]


def _info(name: str, kind: _Kind) -> BackendInfo:
    # Finding does not import: `doctor` and `--help` must not load 100 MB of libraries.
    try:
        found = importlib.util.find_spec(kind.package) is not None
    except (ImportError, ValueError):  # ValueError: hidden through sys.modules[name] = None
        found = False
    if not found:
        return BackendInfo(
            name,
            None,
            kind.families,
            f"Python package {kind.package!r} is not installed; run: pip install 'jetsight[cpu]'",
        )
    try:
        version = metadata.version(kind.package)
    except metadata.PackageNotFoundError:
        version = "unknown"  # found as a module, e.g. from the vendor's own wheel name
    return BackendInfo(name, version, kind.families, None)


def choose(family: str) -> str | None:
    """Name of the preferred installed backend for `family`; None when there is none."""
    for name in _preferred(family):
        info = _info(name, _KINDS[name])
        if info.reason is None and info.runs(family):
            return name
    return None


def requested(name: str | None) -> str | None:
    """The backend that was asked for: `name`, else `JETSIGHT_BACKEND`, else None.

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
    """The backend called `name`, or the preferred one for `family`.

    Args:
        name: `"onnxruntime"` or `"openvino"`; None for `JETSIGHT_BACKEND`, else the preferred one.
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
        if known:
            raise MissingDependency(known[0].name, "cpu", f"running family {family!r}")
        raise EngineError(
            f"no backend of this version runs family {family!r}; known families start with "
            f"{_prefixes()}: choose one of them with --family"
        )
    kind = _KINDS[name]
    if not family.startswith(kind.families):
        raise UsageError(
            f"backend {name!r} does not run family {family!r}, only families that start with "
            f"{', '.join(map(repr, kind.families))}"
        )
    return kind.open(threads)


def _prefixes() -> str:
    return ", ".join(sorted({repr(p) for kind in _KINDS.values() for p in kind.families}))
