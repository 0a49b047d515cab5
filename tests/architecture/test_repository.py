"""The repository: links that resolve, no machine's paths, one version, extras and exact pins."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from helpers.paths import ROOT
from helpers.source import tracked

import jetsight
from jetsight.errors import EXTRA_OF

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def _anchors(text: str) -> set[str]:
    """Heading anchors the way code hosts make them."""
    heads = re.findall(r"^#+\s+(.+?)\s*$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    return set(plain)


def test_every_markdown_link_resolves() -> None:
    broken = []
    for page in tracked(".md"):
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
    for path in tracked():
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
