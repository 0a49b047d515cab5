"""Python bindings of TensorRT, or of TensorRT-RTX if TensorRT is not installed."""

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
_PRODUCTS = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
Version = tuple[int, int, int, int]
_OLDEST = (10, 3)  # JetPack 6.1's; older bindings have other names
# A build of a large graph logs about that many lines; a runtime that logs for weeks must not grow.
_MOST_LINES, _MOST_ERRORS = 200_000, 1000
# TensorRT keeps the first logger until the last of all its objects is freed, even if the logger's
# own objects were freed before: it would call a freed logger. So none is freed; unused ones are
# kept here, per `ILogger` of a library, for their next use.
_IDLE: dict[type, list[CollectingLogger]] = {}


@dataclass(frozen=True)
class TensorRtModule:
    """An importable TensorRT.

    Attributes:
        module: the Python module; only names in both TensorRT 10.3 and 11 may be used.
        name: `"tensorrt"` or `"tensorrt_rtx"`.
        version: major, minor, patch, build; a build of 0 means unknown.
    """

    module: Any
    name: str
    version: Version

    def __str__(self) -> str:
        return f"{product(self.name)} {version_text(self.version)}"


class CollectingLogger(Protocol):
    """Messages of TensorRT: the lines, and the errors among them."""

    lines: list[str]
    errors: list[str]

    def forget(self) -> None:
        """Discard the messages, and make the logger available to `make_logger`."""
        ...


def version_text(version: Version) -> str:
    """Format a version, without an unknown build."""
    return ".".join(map(str, version if version[3] else version[:3]))


def product(name: str) -> str:
    """Return the product's name of the library of that module name."""
    return _PRODUCTS.get(name, name)


def parse_version(text: str) -> Version:
    """Parse the first four numbers of a version; missing ones are 0."""
    major, minor, patch, build, *_ = (*map(int, re.findall(r"\d{1,9}", text)[:4]), 0, 0, 0, 0)
    return major, minor, patch, build


def open_library(names: Sequence[str] = (TENSORRT, RTX)) -> TensorRtModule:
    """Import the first installed module of `names`.

    Raises:
        MissingDependency: none is installed.
        EngineError: none is installed on a Jetson, where it is apt's; or it does not load, or is
            too old.
    """
    broken = ""
    for name in names:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            if getattr(error, "name", None) != name:  # installed, but a library it needs is missing
                broken = broken or f"{name} is installed but does not load ({first_line(error)})"
            continue
        library = TensorRtModule(module, name, _version(module, name))
        if name == TENSORRT and library.version[:2] < _OLDEST:  # TensorRT-RTX counts from 1
            broken = broken or f"{library} is too old, expected {_OLDEST[0]}.{_OLDEST[1]} or newer"
            continue
        return library
    raise _absent(broken)


def make_logger(library: TensorRtModule) -> CollectingLogger:
    """Make a logger for TensorRT that keeps its messages, up to a limit, and prints nothing.

    Call its `forget` once all objects made with it are freed.
    """
    base: Any = library.module.ILogger
    idle = _IDLE.setdefault(base, [])
    if not idle:
        return _new_logger(base, idle)
    logger = idle.pop()
    logger.lines.clear()  # objects freed after `forget` may have logged
    logger.errors.clear()
    return logger


def _new_logger(base: Any, idle: list[CollectingLogger]) -> CollectingLogger:
    # A class per library: its base exists only once TensorRT was imported.
    class Log(base):  # type: ignore[misc]
        """TensorRT calls `log` from its own threads; appending to a list is atomic."""

        def __init__(self) -> None:
            base.__init__(self)  # pybind11 refuses an object whose base was not initialised
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            error = severity in (base.ERROR, base.INTERNAL_ERROR)
            error = error and len(self.errors) < _MOST_ERRORS
            if error or len(self.lines) < _MOST_LINES:
                self.lines.append(f"{severity.name} {message}")
            if error:  # also beyond the limit of lines: errors are the use of a long log
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
            # pip's wheel for Arm servers does not match the Tegra driver of JetPack 6.
            f"TensorRT is not importable on this Jetson{f': {broken}' if broken else ''}; run: "
            "sudo apt install python3-libnvinfer, and create the virtual environment with "
            "--system-site-packages (never pip install tensorrt here)"
        )
    if broken:
        return EngineError(f"{broken}; reinstall it, or run: pip install 'jetsight[rtx]'")
    return MissingDependency(RTX, "rtx", "TensorRT")


def _version(module: Any, name: str) -> Version:
    version = parse_version(str(getattr(module, "__version__", "")))
    if version[3] or name != TENSORRT:
        return version
    # Jetson's bindings report three numbers; the library itself reports the fourth.
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(f"libnvinfer.so.{version[0]}")
        return (*version[:3], int(library.getInferLibBuildVersion()))
    return version
