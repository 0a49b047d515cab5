"""The repository's own source, as the architecture tests read it: files, trees, imports, words."""

from __future__ import annotations

import ast
import functools
import io
import subprocess
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.paths import ROOT

PACKAGES = {
    "jetsight": ROOT / "runtime" / "jetsight",
    "jetsight_train": ROOT / "train" / "jetsight_train",
    "jetsight_compile": ROOT / "compile" / "jetsight_compile",
}
Sources = Mapping[str, str]  # dotted name of a module -> its text


def python_files(top: Path) -> list[Path]:
    """Every module under `top`."""
    return sorted(path for path in top.rglob("*.py") if "__pycache__" not in path.parts)


def tracked(suffix: str = "") -> list[Path]:
    """Files git knows, or would add; nothing that is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name.endswith(suffix) and name]
    return [path for path in paths if path.is_file()]


@functools.cache
def sources(package: str) -> Sources:
    """The modules of one of the three packages."""
    top = PACKAGES[package]
    return {_module(package, path.relative_to(top)): path.read_text() for path in python_files(top)}


def _module(package: str, path: Path) -> str:
    parts = [package, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Survey:
    """The parts of a module that rules look at; its tree is too large to keep."""

    functions: tuple[tuple[str, int, int], ...]  # name, line, length
    classes: tuple[tuple[str, int], ...]  # name, line
    calls: tuple[tuple[int, int], ...]  # positional arguments, line
    imports: tuple[tuple[str, int], ...]  # dotted name, line; `from a import b` is `a.b`
    strings: tuple[tuple[str, int], ...]  # value, line; no docstrings
    docstrings: tuple[str, ...]


@functools.lru_cache(maxsize=1024)
def survey(text: str) -> Survey:
    """Read a module's text, once."""
    nodes = list(ast.walk(ast.parse(text)))
    docs = {id(each): each.value for node in nodes for each in _docstring(node)}
    return Survey(
        tuple(
            (node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ),
        tuple((node.name, node.lineno) for node in nodes if isinstance(node, ast.ClassDef)),
        tuple((len(node.args), node.lineno) for node in nodes if isinstance(node, ast.Call)),
        tuple((name, node.lineno) for node in nodes for name in _imports(node)),
        tuple(
            (node.value, node.lineno)
            for node in nodes
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        ),
        tuple(map(str, docs.values())),
    )


def _docstring(node: ast.AST) -> Iterator[ast.Constant]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        first = node.body[0] if node.body else None
        value = first.value if isinstance(first, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def comments(text: str) -> Iterator[str]:
    """Comments of a module's text, with their `#`."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def imported(module: str, known: Sources) -> Iterator[tuple[str, int]]:
    """Modules of the same package that `module` imports, each with the line number.

    Imports inside functions and for type checkers count; so does a string that is the name of a
    module, with or without `:attribute`, because `import_module` is given those.
    """
    found, package = survey(known[module]), module.partition(".")[0]
    for name, line in found.imports:
        if name.partition(".")[0] == package:
            yield _nearest(name, known), line
    for value, line in found.strings:
        name = value.partition(":")[0]
        if "." in name and name in known:
            yield name, line


def _nearest(name: str, known: Sources) -> str:
    """The module a dotted name belongs to: itself, or the one that has it as an attribute."""
    while name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name
