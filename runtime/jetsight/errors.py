"""Errors that jetsight raises on purpose, and the exit code of a command for each.

    JetsightError (1)
    +-- UsageError (2)            the call is wrong: an option, a recipe key, a requested shape
    +-- ArtefactError (3)         a file that must be trusted first was refused
    |   +-- BundleError           bundle or manifest: cut, tampered, unknown key, other version
    |   +-- CheckpointError       checkpoint: pickle, missing tensor, wrong shape, wrong digest
    +-- DataError (4)             recorded data: dataset, calibration set, episode, video content
    +-- MissingDependency (5)     an optional library is absent; the message names the extra
    +-- GateError (6)             a compiled graph does not do what the float model does
    +-- CameraError (7)           a frame source cannot be opened, or has unusable frames
    +-- StorageError (8)          disk full, not writable, or a target that must not be overwritten
    +-- CollapseError (9)         training stopped because the representation collapsed
    +-- DivergenceError (9)       training stopped because a number was no longer finite
    +-- EngineError (10)          a backend cannot load or run a graph
    +-- Interrupted (130, 143)    Ctrl-C or SIGTERM, with what is kept and how to go on

A message says what happened, to which file or device, what was expected, and what to do next.
The runtime must stay importable without click: the command line maps `exit_code` at its edge.
"""

from __future__ import annotations

from collections.abc import Iterable

# import name -> extra; the smallest extra that brings it. A test compares this with pyproject.toml.
EXTRA_OF = {
    "av": "camera",
    "gym_pusht": "sim",
    "gymnasium": "sim",
    "jinja2": "compile",
    "matplotlib": "train",
    "onnx": "compile",
    "onnxruntime": "cpu",
    "onnxscript": "compile",
    "openvino": "cpu",
    "pyarrow": "camera",
    "pycuda": "jetson",
    "safetensors": "train",
    "scipy": "sim",
    "tensorrt_rtx": "rtx",
    "tomli": "train",
    "torch": "train",
    "torch_tensorrt": "torch-tensorrt",
}


class JetsightError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the exit status of a command."""

    exit_code = 1


class UsageError(JetsightError):
    """The call is wrong: an option, a recipe key or a requested shape."""

    exit_code = 2


class ArtefactError(JetsightError):
    """A file that must be trusted before use was refused."""

    exit_code = 3


class BundleError(ArtefactError):
    """A bundle or its manifest is truncated, tampered with, or of an unknown version."""


class CheckpointError(ArtefactError):
    """A checkpoint is a pickle, incomplete, or does not match its description."""


class DataError(JetsightError):
    """Recorded data cannot be used: dataset, calibration set, episode or video content."""

    exit_code = 4


class MissingDependency(JetsightError):
    """An optional library is absent.

    Args:
        module: import name that failed, e.g. `"av"`.
        extra: extra of this distribution that installs it, e.g. `"camera"`.
        purpose: noun phrase for its use, e.g. `"reading a LeRobot dataset"`.
    """

    exit_code = 5

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the Python package {module!r}, which is not installed; "
            f"run: pip install 'jetsight[{extra}]'"
        )
        self.module = module
        self.extra = extra


class GateError(JetsightError):
    """A compiled graph deviates from the float model, so no bundle was written."""

    exit_code = 6


class CameraError(JetsightError):
    """A frame source cannot be opened, or delivers frames the model cannot use."""

    exit_code = 7


class StorageError(JetsightError):
    """The disk is full, the place is not writable, or the target must not be overwritten."""

    exit_code = 8


class CollapseError(JetsightError):
    """Training was stopped because the representation collapsed."""

    exit_code = 9


class DivergenceError(JetsightError):
    """Training or measuring was stopped because a number was no longer finite."""

    exit_code = 9


class EngineError(JetsightError):
    """A backend cannot load or run a graph."""

    exit_code = 10


class Interrupted(JetsightError):
    """Ctrl-C or SIGTERM ended the work; the message says what is kept and how to go on.

    Args:
        message: one line.
        exit_code: 130 for Ctrl-C, 143 for SIGTERM.
    """

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def first_line(error: BaseException, most: int = 4) -> str:
    """Shorten a library's message to one line without errno, path and source locations.

    Args:
        error: raised by a library.
        most: lines of its message to join.

    Returns:
        At most 300 characters; the name of the exception's class if it has no message.
    """
    # Callers name the file themselves, so the operating system's text is enough without its path.
    text = getattr(error, "strerror", None) or str(error)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # OpenVINO puts "Exception from file:line" and "Check 'x' failed at file:line" in front.
    kept = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(kept[:most])[:300] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str], listing: str = "known") -> str:
    """Suggest the nearest known name, or list them all.

    Args:
        name: name that does not exist.
        known: names that exist.
        listing: words in front of the list.
    """
    names = list(known)
    import difflib  # only a mistake needs it, and `import jetsight` should cost next to nothing

    # difflib's time grows with the square of the length, and the name may come from a hostile file.
    near = difflib.get_close_matches(name[:100], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{listing}: {', '.join(names) or 'none'}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Make the error for a name that does not exist, with the nearest one that does."""
    text = str(name)[:100]
    return UsageError(f"there is no {kind} {text!r}; {did_you_mean(text, known)}")


def missing(error: ImportError, purpose: str) -> MissingDependency | None:
    """Make the `MissingDependency` of a failed import; None if the module is not optional.

    Args:
        error: exception of the import.
        purpose: noun phrase for the use of the module.
    """
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(module)
    return None if extra is None else MissingDependency(module, extra, purpose)
