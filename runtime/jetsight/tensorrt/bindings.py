"""TensorRT where it is installed, TensorRT-RTX where it is not; both behind one name."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from jetsight.errors import EngineError, MissingDependency, first_line
from jetsight.machine.jetson import jetson

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
_SPOKEN = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
Version = tuple[int, int, int, int]
_OLDEST = (10, 3)  # JetPack 6.1's; before, the bindings have other names
# A build of a large graph says about this much; a runtime that complains for weeks must not grow.
_MOST_LINES, _MOST_ERRORS = 200_000, 1000
# TensorRT holds on to the first logger it is given until the last of all objects is gone, also when
# that logger's own were gone long before: freed here, it would be called there. So none is freed;
# those no longer in use wait here, per `ILogger` of a library, for their next use.
_IDLE: dict[type, list[CollectingLogger]] = {}


@dataclass(frozen=True)
class TensorRtModule:
    """An importable TensorRT.

    Attributes:
        module: the Python module; only names that TensorRT 10.3 and 11 share may be used.
        name: `"tensorrt"` or `"tensorrt_rtx"`.
        version: major, minor, patch, build; a build of 0 means the bindings do not say.
    """

    module: Any
    name: str
    version: Version

    def __str__(self) -> str:
        return f"{_SPOKEN.get(self.name, self.name)} {spoken(self.version)}"


class CollectingLogger(Protocol):
    """Messages of TensorRT: the lines, and the errors among them."""

    lines: list[str]
    errors: list[str]

    def forget(self) -> None:
        """Drop what was said, and serve the next who asks for a logger."""
        ...


def spoken(version: Version) -> str:
    """Format a version as people write it; an unknown build is left out."""
    return ".".join(map(str, version if version[3] else version[:3]))


def called(name: str) -> str:
    """Look up the common name of the library of that module name."""
    return _SPOKEN.get(name, name)


def open_library(names: Sequence[str] = (TENSORRT, RTX)) -> TensorRtModule:
    """Import the first of `names` that is there.

    Raises:
        MissingDependency: none is installed.
        EngineError: on a Jetson, where apt brings it; or it is installed but does not load, or
            is too old.
    """
    broken = ""
    for name in names:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            if getattr(error, "name", None) != name:  # it is there, a library it needs is not
                broken = broken or f"{name} is installed but does not load ({first_line(error)})"
            continue
        library = TensorRtModule(module, name, _version(module, name))
        if name == TENSORRT and library.version[:2] < _OLDEST:
            broken = broken or f"{library} is too old, expected {_OLDEST[0]}.{_OLDEST[1]} or newer"
            continue
        return library
    raise _absent(broken)


def make_logger(library: TensorRtModule) -> CollectingLogger:
    """Make a logger for TensorRT that keeps what it says, up to a limit; nothing is printed.

    Call its `forget` when what was made with it is gone.
    """
    base: Any = library.module.ILogger
    idle = _IDLE.setdefault(base, [])
    if not idle:
        return _new_logger(base, idle)
    logger = idle.pop()
    logger.lines.clear()  # objects that went after `forget` had last words
    logger.errors.clear()
    return logger


def _new_logger(base: Any, idle: list[CollectingLogger]) -> CollectingLogger:
    class Log(base):  # type: ignore[misc]
        """TensorRT calls `log` from its own threads; appending to a list is atomic."""

        def __init__(self) -> None:
            base.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            error = severity in (base.ERROR, base.INTERNAL_ERROR)
            error = error and len(self.errors) < _MOST_ERRORS
            if error or len(self.lines) < _MOST_LINES:
                self.lines.append(f"{severity.name} {message}")
            if error:  # also behind the limit: it is what a long log is read for
                self.errors.append(message)

        def forget(self) -> None:
            self.lines.clear()
            self.errors.clear()
            if self not in idle:
                idle.append(self)

    return cast(CollectingLogger, Log())


def _absent(broken: str) -> EngineError | MissingDependency:
    board = jetson(Path("/"))
    if board is not None and "too old" in broken:
        return EngineError(f"{broken}; flash JetPack 6.1 or newer, see: jetsight doctor")
    if board is not None:
        return EngineError(
            f"TensorRT is not importable on this Jetson{f': {broken}' if broken else ''}; run: "
            "sudo apt install python3-libnvinfer, and make the virtual environment with "
            "--system-site-packages (never pip install tensorrt here)"
        )
    if broken:
        return EngineError(f"{broken}; reinstall it, or run: pip install 'jetsight[rtx]'")
    return MissingDependency(RTX, "rtx", "TensorRT")


def _version(module: Any, name: str) -> Version:
    """Four numbers; Jetson's bindings give three, the library itself knows the fourth."""
    numbers = [int(n) for n in re.findall(r"\d+", str(getattr(module, "__version__", "")))[:4]]
    padded = (*numbers, 0, 0, 0, 0)[:4]
    version = (padded[0], padded[1], padded[2], padded[3])
    if version[3] or name != TENSORRT:
        return version
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(f"libnvinfer.so.{version[0]}")
        return (*version[:3], int(library.getInferLibBuildVersion()))
    return version
