"""Rooms and floors: imports between the parts of a package only go down, and never in a circle.

A room is a folder of a package, or a module directly in it. Rooms of one floor may import each
other as long as no circle arises.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest
from helpers.source import PACKAGES, Sources, imported, sources

# From the ground up. The facade, `jetsight/__init__.py`, is above every floor.
FLOORS = {
    "jetsight": (
        "errors clock signals histogram terminal progress version",
        "storage engine",
        "bundle machine datasets",
        "tensorrt stream simulators",
        "backends planning cameras control",
        "session doctor",
        "plan_report testing",
        "cli",
        "__main__",
    ),
    "jetsight_compile": (
        "export",
        "planner_graph config",
        "calibration",
        "validate",
        "quantize",
        "pipeline",
        "demo bench closed_loop",
        "cli",
    ),
    "jetsight_train": (
        "model objectives record",
        "data planning collapse conversion curation",
        "recipe",
        "heads",
        "checkpoint",
        "training evaluation",
        "authoring",
        "cli",
    ),
}
FACADE = "__init__"
Arrows = Mapping[tuple[str, str], list[str]]


def room(module: str) -> str:
    return [*module.split("."), FACADE][1]


def arrows(known: Sources) -> Arrows:
    """`(importing room, imported room)` -> the places, as `module:line`."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in known:
        for name, line in imported(module, known):
            if room(module) != room(name):
                found[room(module), room(name)].append(f"{module}:{line}")
    return found


def floor_of(package: str) -> dict[str, int]:
    floors = {name: i for i, names in enumerate(FLOORS[package], 1) for name in names.split()}
    return {**floors, FACADE: len(FLOORS[package]) + 1}


def upward(package: str, found: Arrows) -> dict[str, list[str]]:
    """Arrows from a lower floor to a higher one; rooms without a floor are another rule's."""
    floor = floor_of(package)
    return {
        f"{a} -> {b}": places
        for (a, b), places in found.items()
        if a in floor and b in floor and floor[a] < floor[b]
    }


def circles(edges: Iterable[tuple[str, str]]) -> set[str]:
    """Rooms that import themselves by way of others: what is left without leaves and roots."""
    rest = set(edges)
    while True:
        importing, imports = {a for a, _ in rest}, {b for _, b in rest}
        inner = {(a, b) for a, b in rest if a in imports and b in importing}
        if inner == rest:
            return importing
        rest = inner


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_rooms_only_go_down(package: str) -> None:
    found = upward(package, arrows(sources(package)))
    assert not found, f"{package} imports upwards: {found}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room(module) for module in sources(package)}
    lost = rooms - floor_of(package).keys()
    assert not lost, f"{package}: give {lost} a floor, or fold it into a room that has one"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_imports_itself_by_way_of_others(package: str) -> None:
    edges = arrows(sources(package))
    assert not circles(edges), f"{package}: a circle among {circles(edges)}"


PLANTED = {
    "jetsight": "from jetsight.session import Session",
    "jetsight.errors": "",
    "jetsight.session": "import jetsight.errors",
    "jetsight.bundle.manifest": "import jetsight.errors",
    "jetsight.storage.atomic": "",
    "jetsight.stream.loop": "",
    "jetsight.tensorrt.backend": "",
}


@pytest.mark.parametrize(
    ("module", "line", "arrow"),
    [
        ("bundle.manifest", "from jetsight.stream.loop import Loop", "bundle -> stream"),
        ("bundle.manifest", "from jetsight import session", "bundle -> session"),
        ("bundle.manifest", "from jetsight import Session", "bundle -> __init__"),
        ("errors", "def f():\n    import jetsight.storage.atomic", "errors -> storage"),
        ("errors", "if TYPE_CHECKING:\n    import jetsight.session", "errors -> session"),
        ("errors", "import_module('jetsight.session')", "errors -> session"),
        ("storage.atomic", "LAZY = 'jetsight.session:Session'", "storage -> session"),
    ],
)
def test_an_import_upwards_would_be_seen(module: str, line: str, arrow: str) -> None:
    assert not upward("jetsight", arrows(PLANTED))
    broken = {**PLANTED, f"jetsight.{module}": line}
    assert list(upward("jetsight", arrows(broken))) == [arrow]


def test_a_circle_on_one_floor_would_be_seen() -> None:
    one = {**PLANTED, "jetsight.stream.loop": "import jetsight.tensorrt.backend"}
    assert not upward("jetsight", arrows(one))
    assert not circles(arrows(one))
    both = {**one, "jetsight.tensorrt.backend": "from jetsight.stream import loop"}
    assert not upward("jetsight", arrows(both))
    assert circles(arrows(both)) == {"stream", "tensorrt"}


def test_a_name_in_prose_is_no_import() -> None:
    prose = '"""jetsight.session"""\nx = "see jetsight.session for more"'
    assert not upward("jetsight", arrows({**PLANTED, "jetsight.errors": prose}))
