"""Layout: size of functions, files and folders, width of calls, one meaning per class name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.source import PACKAGES, Sources, sources, survey, tracked

FUNCTION_CAP, FILE_CAP, FOLDER_CAP, POSITIONAL_CAP = 60, 400, 12, 6
# To be emptied: what was there when the rule came. A number may only go down.
KNOWN_FULL_FOLDERS: dict[str, int] = {}
KNOWN_SHARED_CLASSES = {"ActionSpec", "FrameSpec", "TimingSpec", "Log", "Reader"}
KNOWN_WIDE_CALLS = {"jetsight": 4, "jetsight_train": 11, "jetsight_compile": 32}


def test_the_three_folders_are_no_packages() -> None:
    for folder in ("train", "compile", "runtime"):
        assert not (ROOT / folder / "__init__.py").exists()
        assert (ROOT / folder).is_dir()
    for package in PACKAGES.values():
        assert (package / "__init__.py").is_file()
        assert (package / "py.typed").is_file()


def too_long(text: str) -> list[str]:
    lines = text.count("\n")
    found = [f"{lines} lines, at most {FILE_CAP}"] if lines > FILE_CAP else []
    return found + [
        f"{name} has {size} lines, at most {FUNCTION_CAP}"
        for name, _, size in survey(text).functions
        if size > FUNCTION_CAP
    ]


def test_functions_and_files_stay_readable() -> None:
    found = {path.relative_to(ROOT): too_long(path.read_text()) for path in tracked(".py")}
    long = [f"{where}: {why}" for where, why in found.items() if why]
    assert not long, "\n".join(long)


def test_a_long_function_or_file_would_be_seen() -> None:
    lines = "    x = 1\n" * (FUNCTION_CAP - 1)
    assert not too_long(f"def f():\n{lines}")
    assert too_long(f"def f():\n    x = 1\n{lines}") == ["f has 61 lines, at most 60"]
    assert not too_long("x = 1\n" * FILE_CAP)
    assert too_long("x = 1\n" * (FILE_CAP + 1)) == ["401 lines, at most 400"]


def full_folders(paths: Iterable[Path]) -> dict[str, int]:
    """Folders with more modules than a reader takes in at a glance, packages' own not counted."""
    modules = Counter(path.parent.as_posix() for path in paths if path.name != "__init__.py")
    return {folder: count for folder, count in modules.items() if count > FOLDER_CAP}


def test_a_folder_is_taken_in_at_a_glance() -> None:
    found = full_folders(path.relative_to(ROOT) for path in tracked(".py"))
    new = {f: n for f, n in found.items() if n > KNOWN_FULL_FOLDERS.get(f, FOLDER_CAP)}
    assert not new, f"more than {FOLDER_CAP} modules: {new}"


def test_a_full_folder_would_be_seen() -> None:
    paths = [Path("a/__init__.py"), *(Path(f"a/m{i}.py") for i in range(FOLDER_CAP))]
    assert full_folders([*paths, Path("a/b/m.py")]) == {}
    assert full_folders([*paths, Path("a/m.py")]) == {"a": FOLDER_CAP + 1}


def shared_classes(packages: Iterable[Sources]) -> Mapping[str, list[str]]:
    """Class names that mean two things, with the modules they are in; private ones included."""
    found: dict[str, list[str]] = defaultdict(list)
    for modules in packages:
        for module, text in modules.items():
            for name, line in survey(text).classes:
                found[name].append(f"{module}:{line}")
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_class_name_means_one_thing() -> None:
    found = shared_classes(sources(package) for package in PACKAGES)
    new = {name: places for name, places in found.items() if name not in KNOWN_SHARED_CLASSES}
    assert not new, f"class names that are used twice: {new}"


def test_a_shared_class_name_would_be_seen() -> None:
    planted = [{"a.b": "class _Row: ..."}, {"c": "class Row: ...\ndef f():\n    class _Row: ..."}]
    assert shared_classes(planted) == {"_Row": ["a.b:1", "c:3"]}


def wide_calls(modules: Sources) -> list[str]:
    """Calls that hand over more by position than a reader can match; `*args` counts as one."""
    return [
        f"{module}:{line}"
        for module, text in modules.items()
        for count, line in survey(text).calls
        if count > POSITIONAL_CAP
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_long_calls_name_their_arguments(package: str) -> None:
    found = wide_calls(sources(package))
    why = f"more than {POSITIONAL_CAP} positional arguments; use keywords: {found}"
    assert len(found) <= KNOWN_WIDE_CALLS[package], why


def test_a_wide_call_would_be_seen() -> None:
    planted = "f(1, 2, 3, 4, 5, *rest)\nf(1, 2, 3, 4, 5, 6, x=7)\n\ng(1, 2, 3, 4, 5, 6, *rest)"
    assert wide_calls({"m": planted}) == ["m:4"]
