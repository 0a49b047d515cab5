"""Making environments from ids: modules, files, our own, and ids that lead nowhere."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.simulators.base import H, W

from jetsight.errors import MissingDependency, UsageError
from jetsight.simulators import registry
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import EnvironmentSpec

ROBOT = """
import gymnasium
from helpers.simulators.base import Odd
class Robot(Odd): pass
gymnasium.register("{name}-v0", entry_point="{stem}:Robot")
"""


def open_id(env_id: str) -> Environment:
    return Environment.open(EnvironmentSpec(env_id, (H, W)))


def test_a_file_registers_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "robot_in_a_file.py"
    file.write_text(ROBOT.format(name="InAFile", stem=file.stem))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for _ in range(2):  # a second time in the same process
        environment = open_id(f"{file}:InAFile-v0")
        environment.probe()
        environment.close()


def test_our_own_environments_are_registered_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium
    from helpers.simulators.base import Odd

    def register() -> None:
        if "jetsight/Own-v0" not in gymnasium.registry:
            gymnasium.register("jetsight/Own-v0", entry_point=Odd)

    module = ModuleType("own_robot")
    module.__dict__["register"] = register
    monkeypatch.setitem(sys.modules, "own_robot", module)
    monkeypatch.setitem(registry.OWN, "jetsight/Own-v0", "own_robot")
    for _ in range(2):
        open_id("jetsight/Own-v0").close()


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("Nowhere-v0", "cannot make environment 'Nowhere-v0' (NameNotFound"),
        ("jetsight/Nowhere-v0", "cannot make environment 'jetsight/Nowhere-v0'"),
        ("no_such_module:X-v0", "cannot be imported from 'no_such_module'"),
        ("helpers.simulators.environments:X-v0", "cannot make environment"),
        ("nowhere.py:X-v0", "there is no file nowhere.py"),
    ],
)
def test_an_id_that_leads_nowhere_is_one_line(env_id: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_id(env_id)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_whose_own_import_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_robot.py").write_text("import a_simulator_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="a_simulator_that_is_not_there"):
        open_id("half_robot/Robot-v0")


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingDependency, match=r"pip install 'jetsight\[sim\]'"):
        open_id("CartPole-v1")
