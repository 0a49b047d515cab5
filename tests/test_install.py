"""What a Jetson installs: pinned for its Pythons, there as aarch64 wheels, never TensorRT from pip.

pip judges markers by the Python that runs it, not by the requested one, so they are judged here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jetsight.cli.group import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Python of JetPack 6 and 7 -> minor version of the newest C library its wheels may ask for.
JETPACK_PYTHONS = {"3.10": 35, "3.12": 39}
JETSON_EXTRAS = ("cpu", "camera", "jetson")
# Extras that are for another machine; on a Jetson the docs say so where they are named.
OTHER_MACHINES = ("rtx", "torch-tensorrt")
SOURCE_ONLY = {"pycuda"}
PYCUDA_NEEDS = ("pytools", "platformdirs", "mako")

Environment = dict[str, str]


def environment(python: str) -> Environment:
    """The marker variables of a Jetson."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.12",
        "os_name": "posix",
        "platform_machine": "aarch64",
        "platform_python_implementation": "CPython",
        "platform_release": "5.15.148-tegra",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.12",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def wanted(
    project: Mapping[str, Any], extras: Iterable[str], env: Environment
) -> Iterator[Requirement]:
    """Requirements of the distribution with these extras, those that extras name included."""
    table = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in table[extra])]
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate(env):
            continue
        if canonicalize_name(requirement.name) == project["name"]:
            yield from wanted({**project, "dependencies": []}, requirement.extras, env)
        else:
            yield requirement


def pins(constraints: str, env: Environment) -> dict[str, list[str]]:
    """Versions that constraints allow, by package; more than one is a mistake."""
    found: dict[str, list[str]] = {}
    for line in constraints.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(env):
            (specifier,) = pin.specifier
            found.setdefault(canonicalize_name(pin.name), []).append(specifier.version)
    return found


def unpinned(requirements: Iterable[Requirement], known: Mapping[str, list[str]]) -> list[str]:
    """What is wrong with the pins of these requirements; empty if nothing is."""
    wrong = []
    for requirement in requirements:
        versions = known.get(canonicalize_name(requirement.name), [])
        if len(versions) != 1:
            wrong.append(f"{requirement.name} has {len(versions)} pins")
        elif not requirement.specifier.contains(versions[0]):
            wrong.append(f"{requirement} is not met by {versions[0]}")
    return wrong


def tensorrts(requirements: Iterable[Requirement]) -> set[str]:
    """Distributions that bring a TensorRT of their own."""
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    return {name for name in names if re.match(r"(torch-|nvidia-)?tensorrt", name)}


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def _constraints() -> str:
    return (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("python", JETPACK_PYTHONS)
def test_everything_a_jetson_installs_is_pinned_for_its_python(python: str) -> None:
    env = environment(python)
    known = pins(_constraints(), env)
    assert unpinned(wanted(_project(), JETSON_EXTRAS, env), known) == []
    assert unpinned(map(Requirement, PYCUDA_NEEDS), known) == []


@pytest.mark.parametrize("python", JETPACK_PYTHONS)
def test_pins_that_are_missing_double_or_too_old_are_noticed(python: str) -> None:
    env = environment(python)
    project = {**_project(), "dependencies": ["numpy>=1.26", "click>=8.1", "absent"]}
    bad = "numpy==1.21.5\nclick==8.1\nclick==8.2; python_version < '4'\n"
    assert unpinned(wanted(project, (), env), pins(bad, env)) == [
        "numpy>=1.26 is not met by 1.21.5",
        "click has 2 pins",
        "absent has 0 pins",
    ]


@pytest.mark.parametrize("python", JETPACK_PYTHONS)
def test_no_extra_for_a_jetson_brings_tensorrt(python: str) -> None:
    project, env = _project(), environment(python)
    for extra in project["optional-dependencies"]:
        found = tensorrts(wanted(project, (extra,), env))
        assert bool(found) == (extra in OTHER_MACHINES), f"jetsight[{extra}] brings {found}"


@pytest.mark.parametrize(
    "line", ["tensorrt>=10", "tensorrt-cu12", "jetsight[rtx]", "Torch_TensorRT"]
)
def test_an_extra_that_brings_tensorrt_is_caught(line: str) -> None:
    project, env = _project(), environment("3.10")
    extras = {**project["optional-dependencies"], "jetson": ["pycuda", line]}
    assert tensorrts(wanted({**project, "optional-dependencies": extras}, ("jetson",), env))
    elsewhere = f"{line}; platform_machine == 'x86_64'"
    extras["jetson"] = ["pycuda", elsewhere]
    assert not tensorrts(wanted({**project, "optional-dependencies": extras}, ("jetson",), env))


def _page() -> str:
    return (ROOT / "docs" / "install.md").read_text()


def _commands(page: str) -> list[str]:
    """Lines of the code blocks."""
    return [
        line for block in page.split("```")[1::2] for line in block.splitlines() if line.strip()
    ]


def _mistakes(page: str) -> list[str]:
    """Extras and commands that do not exist, and a TensorRT from pip."""
    extras = {
        name for found in re.findall(r"jetsight\[([\w,-]+)\]", page) for name in found.split(",")
    }
    wrong = [f"extra {name}" for name in extras - set(_project()["optional-dependencies"])]
    lines = _commands(page)
    called = {found for line in lines for found in re.findall(r"bin/jetsight (\w+)", line)}
    wrong += [f"command {name}" for name in called - set(COMMANDS)]
    return wrong + [
        line for line in lines if re.search(r"pip install.*\b(torch-)?tensorrt\b", line)
    ]


def test_the_page_names_what_exists() -> None:
    assert _mistakes(_page()) == []
    assert len(_commands(_page())) > 12


@pytest.mark.parametrize(
    "line", ["pip install 'jetsight[gpu]'", "bin/jetsight fly", "robot/bin/pip install tensorrt"]
)
def test_the_page_with_a_mistake_is_noticed(line: str) -> None:
    assert len(_mistakes(f"{_page()}\n```\n{line}\n```\n")) == 1


def test_messages_on_the_page_are_those_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "runtime").rglob("*.py"))
    ours = _page().split("Messages of jetsight:")[1].split("Messages of others:")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", ours, flags=re.MULTILINE)
    assert len(messages) >= 9
    for message in messages:
        assert message.replace("\\|", "|") in source, message


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="session")
def index() -> None:
    """Skip unless a package index answers pip as it is configured here."""
    asked = _pip("index", "versions", "click")
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        pytest.skip(f"no package index answers pip here: {last}")


def _resolve(
    folder: Path, env: Environment, requirements: Iterable[str], known: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """What pip would install on that board, from wheels alone; AssertionError if it cannot."""
    python = env["python_version"]
    tags = [f"manylinux_2_{minor}" for minor in range(17, JETPACK_PYTHONS[python] + 1)]
    platforms = [f"--platform={tag}_aarch64" for tag in (*tags, "manylinux2014")]
    report, allowed = folder / "report.json", folder / "constraints.txt"
    allowed.write_text("".join(f"{name}=={v}\n" for name, (v,) in known.items()))
    done = _pip(
        "install",
        "--dry-run",
        "--ignore-installed",
        "--only-binary=:all:",
        *platforms,
        f"--python-version={python}",
        "--implementation=cp",
        f"--target={folder / 'target'}",
        f"--report={report}",
        f"--constraint={allowed}",
        *requirements,
    )
    assert done.returncode == 0, done.stderr
    installed: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return installed


def _overlooked(installed: list[dict[str, Any]], env: Environment) -> set[str]:
    """Requirements of the wheels that hold on the board and that pip, judging by itself, left."""
    names = {canonicalize_name(item["metadata"]["name"]) for item in installed}
    lines = [line for item in installed for line in item["metadata"].get("requires_dist", [])]
    return {
        f"{requirement.name}{requirement.specifier}"
        for requirement in map(Requirement, lines)
        if (requirement.marker is None or requirement.marker.evaluate(env))
        and canonicalize_name(requirement.name) not in names
    }


@pytest.mark.slow
@pytest.mark.parametrize("python", JETPACK_PYTHONS)
def test_a_jetson_finds_wheels_for_all_of_it(tmp_path: Path, index: None, python: str) -> None:
    env = environment(python)
    known = pins(_constraints(), env)
    asked = {
        f"{requirement.name}{requirement.specifier}"
        for requirement in wanted(_project(), JETSON_EXTRAS, env)
        if requirement.name not in SOURCE_ONLY
    } | set(PYCUDA_NEEDS)
    for _ in range(4):
        installed = _resolve(tmp_path, env, sorted(asked), known)
        more = _overlooked(installed, env)
        if not more:
            break
        asked |= more
    assert not more
    for item in installed:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        assert known.get(canonicalize_name(name)) == [version], f"{name} is not pinned"
        assert re.search(r"(aarch64|any)\.whl$", item["download_info"]["url"])
    assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_what_has_no_wheel_is_noticed_and_pycuda_is_there_as_source(
    tmp_path: Path, index: None
) -> None:
    """The control of the test above: PyCUDA has no wheel, so resolving it must fail."""
    env = environment("3.10")
    known = pins(_constraints(), env)
    with pytest.raises(AssertionError, match="pycuda"):
        _resolve(tmp_path, env, ["pycuda"], known)
    listed = _pip("index", "versions", "pycuda").stdout
    assert known["pycuda"][0] in re.findall(r"[\d.]+", listed)
