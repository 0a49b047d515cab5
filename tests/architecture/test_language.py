"""Language: plain technical English in docstrings, comments and pages; no private register."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.source import comments, survey, tracked

# Say instead: no one, any caller, given, requested, must, ignores its input, request, step or tick.
BANNED = (
    "nobody",
    "whoever",
    "somebody",
    "told",
    "asked for",
    "shall",
    "deaf",
    "as it must",
    "heard",
    "wish",
    "wishes",
    "moment",
    "lies",
)
WORDS = "|".join(BANNED).replace(" ", r"\s+")  # a phrase may be broken over lines
REGISTER = re.compile(rf"\b({WORDS})\b", re.IGNORECASE)
OPENING = re.compile(r"(what|whether|where|which|how|when)\b", re.IGNORECASE)
TOPS = ("runtime", "compile", "train", "tests", "benchmarks", "docs", ".")


def folder(path: Path) -> str:
    top = path.relative_to(ROOT).parts[0]
    return top if top in TOPS else "."


def prose(path: Path, text: str) -> Iterable[str]:
    """The words of a file: a page as a whole; of a module its docstrings and comments."""
    if path.suffix == ".md" or not REGISTER.search(text):
        return [text]  # of a module without any such word, nothing has to be parsed
    return [*survey(text).docstrings, *comments(text)]


def banned(path: Path, text: str) -> list[str]:
    return [match[0] for each in prose(path, text) for match in REGISTER.finditer(each)]


def questions(text: str) -> list[str]:
    """First lines of docstrings that ask instead of saying what the thing is or does."""
    lines = [doc.strip().split("\n")[0] for doc in survey(text).docstrings]
    return [line for line in lines if OPENING.match(line)]


def pages(top: str, *suffixes: str) -> list[Path]:
    files = [path for suffix in suffixes for path in tracked(suffix)]
    return [path for path in files if folder(path) == top]


@pytest.mark.parametrize("top", TOPS)
def test_words_are_plain(top: str) -> None:
    found = {path: banned(path, path.read_text()) for path in pages(top, ".py", ".md")}
    listed = [f"{path.relative_to(ROOT)}: {words}" for path, words in found.items() if words]
    assert not listed, "\n".join(listed)


@pytest.mark.parametrize("top", ["runtime", "compile", "train"])
def test_docstrings_say_what_a_thing_is_or_does(top: str) -> None:
    found = {path: questions(path.read_text()) for path in pages(top, ".py")}
    listed = [f"{path.relative_to(ROOT)}: {lines}" for path, lines in found.items() if lines]
    assert not listed, "\n".join(listed)


def test_a_banned_word_would_be_seen() -> None:
    planted = (
        '"""Whoever asked\n    for it."""\nx = "nobody"  # a Moment later\n\n\nclass Wish: ...\n'
    )
    assert banned(Path("m.py"), planted) == ["Whoever", "asked\n    for", "Moment"]
    assert banned(Path("m.md"), "It was told; marshalled, wished.") == ["told"]


def test_a_question_would_be_seen() -> None:
    planted = '"""How it works."""\ndef f():\n    """Whether it fits.\n\n    Long."""\n'
    assert questions(planted) == ["How it works.", "Whether it fits."]
    assert questions('"""Whenever: a clock. What else."""') == []
