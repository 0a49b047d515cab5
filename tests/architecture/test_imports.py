"""Imports: one way between the packages, light at the top of a module, and none for nothing."""

from __future__ import annotations

import ast
import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers.source import PACKAGES, Sources, sources, survey

import jetsight
from jetsight.errors import EXTRA_OF

# What a package may never import, at any depth. The command line names the other two packages as
# text and loads them when one of their commands is called.
FORBIDDEN = {
    "jetsight": {
        "jetsight_train",
        "jetsight_compile",
        "torch",
        "onnx",
        "onnxscript",
        "safetensors",
    },
    "jetsight_train": {"jetsight_compile"},
    "jetsight_compile": set(),
}
# What a package may import where it stands; anything else belongs in the function that needs it.
EAGER = {
    "jetsight": {"numpy", "click"},
    "jetsight_train": {"numpy", "click", "torch", "safetensors", "tomli"},
    "jetsight_compile": {"numpy", "click", "torch", "onnx", "safetensors"},
}
# A module of another package as text, outside the command line: TensorRT engines of families that
# need torch to build are made by the compiler, where it is installed.
BY_NAME = {"jetsight.tensorrt.builder.build"}
IMPORT_BUDGET_S = 0.15


def _imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Top-level name of every imported module, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], node
        elif isinstance(node, ast.Call) and _is_import_call(node) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value.split(".")[0], node


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__")


def _eager_imports(tree: ast.Module) -> set[str]:
    """Modules imported when the file is: not inside a function, not only for type checkers."""
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    return {name for name, node in _imports(tree) if id(node) not in lazy}


@functools.cache
def _found(package: str) -> dict[str, tuple[set[str], set[str]]]:
    """For every module the top-level names it imports at any depth, and those it does eagerly."""
    trees = {module: ast.parse(text) for module, text in sources(package).items()}
    return {m: ({name for name, _ in _imports(t)}, _eager_imports(t)) for m, t in trees.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for module, (found, _) in _found(package).items():
        assert not found & FORBIDDEN[package], module


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_imports_are_inside_functions(package: str) -> None:
    own = {*sys.stdlib_module_names, *PACKAGES, "tomllib"}
    for module, (_, eager) in _found(package).items():
        found = eager - own
        assert found <= EAGER[package], f"{module}: {found - EAGER[package]}"


def _spelled(modules: Sources, package: str) -> set[str]:
    """Modules that name a module of a forbidden package in a string, outside the command line."""
    start = tuple(f"{name}." for name in FORBIDDEN[package] & PACKAGES.keys())
    return {
        module
        for module, text in modules.items()
        if not module.startswith(f"{package}.cli.")
        for value, _ in survey(text).strings
        if value.startswith(start)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_other_packages_are_named_by_the_command_line_alone(package: str) -> None:
    assert _spelled(sources(package), package) <= BY_NAME


def test_another_packages_name_would_be_seen() -> None:
    planted = "ROUTE = 'jetsight_train.model:f'"
    modules = {
        "jetsight.cli.group": planted,
        "jetsight.a": planted,
        "jetsight.b": "x = 'jetsight_'",
    }
    assert _spelled(modules, "jetsight") == {"jetsight.a"}
    assert _spelled(modules, "jetsight_compile") == set()


def test_the_import_rules_notice_what_they_forbid() -> None:
    hidden = ast.parse(
        "def f():\n    import torch.nn\n    importlib.import_module('onnx.helper')\n"
    )
    assert {name for name, _ in _imports(hidden)} == {"torch", "onnx"}
    assert _eager_imports(hidden) == set()
    assert _eager_imports(ast.parse("try:\n    import torch\nexcept ImportError: pass")) == {
        "torch"
    }


def _run(code: str, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import jetsight
names = [info.name for info in pkgutil.walk_packages(jetsight.__path__, "jetsight.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in jetsight.__all__:
    getattr(jetsight, name)
print(len(names))
"""


def test_every_runtime_module_imports_without_torch_onnx_and_every_extra() -> None:
    blocked = [*EXTRA_OF, "jetsight_train", "jetsight_compile"]
    assert int(_run(IMPORT_ALL, *blocked)) > 20


def test_public_names_are_pinned() -> None:
    assert sorted(jetsight.__all__) == [
        "Action",
        "ActionSource",
        "ArtefactError",
        "Bundle",
        "BundleError",
        "Camera",
        "CameraError",
        "CheckpointError",
        "CollapseError",
        "ControlOptions",
        "DataError",
        "EngineError",
        "Forecast",
        "Frame",
        "GateError",
        "Goal",
        "JetsightError",
        "LeRobotDataset",
        "Limits",
        "MissingDependency",
        "Plan",
        "PlanReason",
        "Session",
        "StorageError",
        "UsageError",
        "__version__",
    ]
    for name in jetsight.__all__:
        assert getattr(jetsight, name) is not None
        assert name in dir(jetsight)
    with pytest.raises(AttributeError, match="no_such_name"):
        jetsight.no_such_name  # noqa: B018


def test_import_is_fast_and_loads_nothing_heavy() -> None:
    """Measured 0.014 s of processor time; NumPy comes with the first name that needs it."""
    clock = "import time; t = time.process_time(); import jetsight; print(time.process_time() - t)"
    assert statistics.median(float(_run(clock)) for _ in range(5)) <= IMPORT_BUDGET_S
    code = (
        "import sys, jetsight; print(sorted({'numpy', 'click', 'av', 'torch'} & set(sys.modules)))"
    )
    assert _run(code) == "[]\n"
