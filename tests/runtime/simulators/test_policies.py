"""Policies of the user: found by name, called per tick, and checked at every call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.simulators.base import H, W
from helpers.simulators.environments import odd

from jetsight.errors import DataError, UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.policies import UserPolicy, bounded
from jetsight.simulators.spec import EnvironmentSpec

HERE = "helpers.simulators.drivers"


@pytest.fixture
def environment() -> Iterator[Environment]:
    opened = Environment.open(EnvironmentSpec(odd("Odd"), (H, W)))
    opened.reset(0)
    yield opened
    opened.close()


def played(text: str, environment: Environment, ticks: int = 6, seed: int = 0) -> np.ndarray:
    policy = UserPolicy(text, environment, np.random.default_rng(seed))
    environment.reset(0)
    actions = []
    for _ in range(ticks):
        actions.append(policy())
        environment.step(actions[-1])
    return np.stack(actions)


def test_a_function_is_called_once_per_tick(environment: Environment) -> None:
    actions = played(f"{HERE}:forward", environment)
    assert (actions.dtype, actions.shape) == (np.float32, (6, 2))
    assert (actions[:, 0] == 0.5).all()
    assert len(set(actions[:, 1])) == 6
    assert np.array_equal(actions, played(f"{HERE}:forward", environment))
    assert not np.array_equal(actions, played(f"{HERE}:forward", environment, seed=1))


def test_an_instance_of_a_class_remembers_within_its_episode(environment: Environment) -> None:
    for _ in range(2):
        actions = played(f"{HERE}:Remembers", environment)
        assert np.allclose(actions[:, 1], np.arange(1, 7) / 100)


def test_a_file_needs_no_package(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "def act(observation, rng):\n    return 0.25 + 0 * rng.random(2)\n"
    )
    assert (played(f"{tmp_path}/slow.py:act", environment) == 0.25).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forward", "expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        (f"{HERE}:", "expected MODULE:FUNCTION"),
        (f"{HERE}:backward", "has no 'backward'"),
        (f"{HERE}:A_NUMBER", "is 3, expected a function"),
        ("no_such_module:act", "cannot be imported from 'no_such_module'"),
        ("nowhere/policy.py:act", "there is no file nowhere/policy.py"),
        ("broken.py:act", "SyntaxError"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(
    environment: Environment,
    text: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def act(:\n")
    with pytest.raises(UsageError) as caught:
        UserPolicy(text, environment, np.random.default_rng(0))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_a_file_here_is_pointed_out(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_driver.py").touch()
    with pytest.raises(UsageError, match=r"write \./my_driver\.py instead of my_driver"):
        UserPolicy("my_driver:act", environment, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too_many", "expected 2 numbers: action_0, action_1"),
        ("too_far", "action 'action_1' is 1.5, expected -1 to 1"),
        ("not_a_number", "action 'action_0' is nan"),
        ("wrong_signature", "it is called as function(observation, rng)"),
    ],
)
def test_an_unusable_action_is_refused_when_it_is_chosen(
    environment: Environment, name: str, words: str
) -> None:
    policy = UserPolicy(f"{HERE}:{name}", environment, np.random.default_rng(0))
    with pytest.raises(DataError) as caught:
        policy()
    assert words in str(caught.value)
    assert f"{HERE}:{name}" in str(caught.value)


INF, MOST = np.inf, np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("low", "high", "drawn_from"),
    [
        (0.0, 5.0, (0.0, 5.0)),
        (-INF, INF, (-1.0, 1.0)),
        (-MOST, MOST, (-1.0, 1.0)),
        (-INF, -5.0, (-6.0, -5.0)),
        (7.0, INF, (7.0, 8.0)),
        (-INF, 0.5, (-1.0, 0.5)),
    ],
)
def test_a_draw_has_finite_bounds_inside_the_given_ones(
    low: float, high: float, drawn_from: tuple[float, float]
) -> None:
    found = bounded(np.array([low], np.float32), np.array([high], np.float32))
    assert (float(found[0][0]), float(found[1][0])) == drawn_from
