"""The rules of the house, kept true: layout, imports, public names, size of functions and files."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT

import jetsight
from jetsight.errors import EXTRA_OF

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = {
    "jetsight": ROOT / "runtime" / "jetsight",
    "jetsight_train": ROOT / "train" / "jetsight_train",
    "jetsight_compile": ROOT / "compile" / "jetsight_compile",
}
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
FUNCTION_CAP, FILE_CAP = 60, 400
IMPORT_BUDGET_S = 0.15


def _python_files(top: Path) -> list[Path]:
    return sorted(path for path in top.rglob("*.py") if "__pycache__" not in path.parts)


def _tracked(suffix: str = "") -> list[Path]:
    """Files git knows, or would add; nothing that is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name.endswith(suffix) and name]
    return [path for path in paths if path.is_file()]


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


def test_the_three_folders_are_no_packages() -> None:
    for folder in ("train", "compile", "runtime"):
        assert not (ROOT / folder / "__init__.py").exists()
        assert (ROOT / folder).is_dir()
    for package in PACKAGES.values():
        assert (package / "__init__.py").is_file()
        assert (package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in _python_files(PACKAGES[package]):
        found = {name for name, _ in _imports(ast.parse(path.read_text()))}
        assert not found & FORBIDDEN[package], path.relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_imports_are_inside_functions(package: str) -> None:
    own = {*sys.stdlib_module_names, *PACKAGES, "tomllib"}
    for path in _python_files(PACKAGES[package]):
        found = _eager_imports(ast.parse(path.read_text())) - own
        assert found <= EAGER[package], f"{path.relative_to(ROOT)}: {found - EAGER[package]}"


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
        "ArtefactError",
        "Bundle",
        "BundleError",
        "Camera",
        "CameraError",
        "CheckpointError",
        "CollapseError",
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


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_and_files_stay_readable() -> None:
    long = []
    for path in _tracked(".py"):
        text = path.read_text()
        lines = text.count("\n")
        where = path.relative_to(ROOT)
        if lines > FILE_CAP:
            long.append(f"{where}: {lines} lines, at most {FILE_CAP}")
        for name, size in _functions(ast.parse(text)):
            if size > FUNCTION_CAP:
                long.append(f"{where}: {name} has {size} lines, at most {FUNCTION_CAP}")
    assert not long, "\n".join(long)


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def _anchors(text: str) -> set[str]:
    """Heading anchors the way code hosts make them."""
    heads = re.findall(r"^#+\s+(.+?)\s*$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    return set(plain)


def test_every_markdown_link_resolves() -> None:
    broken = []
    for page in _tracked(".md"):
        for target in LINK.findall(page.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
            elif anchor and file.suffix == ".md" and anchor not in _anchors(file.read_text()):
                broken.append(f"{page.relative_to(ROOT)}: no heading for #{anchor} in {name}")
    assert not broken, "\n".join(broken)


# Paths of one machine and hosts of one registry do not belong in a repository.
FOREIGN = re.compile(
    rb"(/home/[a-z]|/root/|/work/|/Users/[A-Za-z]|/tmp/pytest-|pypi\.org|download\.pytorch\.org|"
    rb"pythonhosted\.org|extra-index-url|index-url\s*=|find-links)"
)


def test_no_machine_paths_or_registry_hosts_in_tracked_files() -> None:
    found = []
    for path in _tracked():
        if path == Path(__file__) or path.stat().st_size > 1 << 20:
            continue
        match = FOREIGN.search(path.read_bytes())
        if match:
            found.append(f"{path.relative_to(ROOT)}: {match[0].decode()}")
    assert not found, "\n".join(found)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_is_said_once_and_the_same() -> None:
    assert jetsight.__version__ == _project()["version"]


def test_extras_named_in_messages_are_those_of_the_distribution() -> None:
    extras = _project()["optional-dependencies"]
    for module, extra in EXTRA_OF.items():
        names = [re.split(r"[^\w.-]", item)[0].replace("-", "_").lower() for item in extras[extra]]
        assert module.lower() in names, f"jetsight[{extra}] does not bring {module}"


def test_constraints_pin_every_direct_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split(";")[0].strip() for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    project = _project()
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["cpu"], *extras["camera"]]
    wanted += [*extras["sim"], *extras["train"], *extras["compile"]]
    names = {re.split(r"[^\w.-]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names - {"jetsight"} <= pinned
    assert "torch==2.13.0" in pins
