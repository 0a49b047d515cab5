"""Making a Gymnasium environment from its id: imports, registration, options, failures as lines."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jetsight.errors import JetsightError, MissingDependency, UsageError, first_line
from jetsight.simulators.pictures import LEAST_PX

PUSHT = "gym_pusht/PushT-v0"
# Our own environments are registered when their id is used: id -> module with `register()`.
OWN = {"jetsight/DiffDrive-v0": "jetsight.simulators.differential_drive"}
_PURPOSE = "a simulated robot"


def make(env_id: str, size_hw: tuple[int, int], steps: int | None) -> Any:
    """Make the Gymnasium environment `env_id`, drawing at `size_hw` if it can.

    Args:
        env_id: see `EnvironmentSpec`.
        size_hw: of the camera.
        steps: ticks before which its time limit must not end an episode; None to remove the limit.

    Raises:
        MissingDependency: gymnasium or the package of the environment is not installed.
        UsageError: it is unknown or cannot be made.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # simulators warn about their own dependencies
        gymnasium = _import("gymnasium")
        with _reported(env_id):
            name = _register(env_id)
            # One tick more than is used, so that the time limit never ends an episode.
            limit = -1 if steps is None else steps + 1
            options = {"disable_env_checker": True, "max_episode_steps": limit}
            options |= _drawing(gymnasium, name, size_hw)
            return _make_to_draw(gymnasium, name, options)


def _make_to_draw(gymnasium: Any, name: str, options: dict[str, Any]) -> Any:
    """Make the environment with pictures as arrays; without, if it knows no such mode."""
    try:
        return gymnasium.make(name, render_mode="rgb_array", **options)
    except Exception:
        # One that refuses this mode may still observe pixels. If it fails without it too, the
        # first failure is the one to report.
        with contextlib.suppress(Exception):
            return gymnasium.make(name, **options)
        raise


@contextlib.contextmanager
def _reported(env_id: str) -> Iterator[None]:
    try:
        yield
    except JetsightError:
        raise
    except Exception as problem:  # an environment is foreign code and may raise anything
        raise UsageError(
            f"cannot make environment {env_id!r} ({type(problem).__name__}: {first_line(problem)});"
            " expected the id of an installed Gymnasium environment, or MODULE:ID to import the "
            "module that registers it"
        ) from problem


def _register(env_id: str) -> str:
    """Import what registers `env_id`; returns the id without a module in front."""
    module, _, name = env_id.rpartition(":")
    if module:
        load_module(module, f"environment {env_id!r}")
    elif name in OWN:
        importlib.import_module(OWN[name]).register()
    # Imported by name, so that a missing package is reported with the extra to install.
    elif name.startswith("gym_pusht/"):
        _import("gym_pusht")
    elif "/" in name:  # by convention a package registers the namespace of its own name
        _import_namespace(name.split("/")[0])
    return name


def _import_namespace(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as problem:
        if problem.name != package:  # it is there, but something that it needs is not
            raise


def _drawing(gymnasium: Any, name: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Choose pixels of the camera's size if the environment has PushT's options for them."""
    spec = gymnasium.spec(name)
    entry = spec.entry_point
    maker = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    # Twice the size or more where the camera's own would be taken for codes; resized later.
    times = math.ceil(LEAST_PX / min(size_hw))
    height, width = (side * times for side in size_hw)
    options: dict[str, Any] = {"observation_height": height, "observation_width": width}
    # "pixels_agent_pos" and the like are pixels too.
    if not str(spec.kwargs.get("obs_type", "")).startswith("pixels"):
        options["obs_type"] = "pixels"
    return options if options.keys() <= inspect.signature(maker).parameters.keys() else {}


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise MissingDependency(module, "sim", _PURPOSE) from problem
    except ImportError as problem:
        # No module but a system library is missing: OpenCV needs libGL.
        if problem.name == module:
            raise MissingDependency(module, "sim", _PURPOSE) from problem
        raise JetsightError(
            f"Python package {module!r} is installed but does not load ({first_line(problem)}); "
            "install that library, on Debian and Ubuntu: sudo apt install libgl1 libglib2.0-0"
        ) from problem


def load_module(text: str, purpose: str) -> ModuleType:
    """Import a module by its dotted name, or from a path that ends in `.py`.

    Args:
        text: name or path.
        purpose: what it is needed for, first words of the message.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        return _from_file(Path(text)) if text.endswith(".py") else importlib.import_module(text)
    except Exception as problem:  # its top level is foreign code and may raise anything
        file = Path(f"{text.replace('.', '/')}.py")
        missing = isinstance(problem, ModuleNotFoundError) and file.is_file()
        raise UsageError(
            f"{purpose} cannot be imported from {text!r} ({type(problem).__name__}: "
            f"{first_line(problem)}); "
            + (
                f"it is a file here, so write ./{file} instead of {text}"
                if missing
                else "correct it, or give the path of a .py file or the name of an installed module"
            )
        ) from problem


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = path.stem
    known = sys.modules.get(name)
    # Once, as an import would: registering an environment twice warns.
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None  # a file that ends in .py has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where an entry point such as `my_robot:Robot` looks for it; never in place of another module.
    if known is None:
        sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if known is None:
            del sys.modules[name]
        raise
    return module
