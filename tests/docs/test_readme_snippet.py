"""README's first Python snippet and the example act as printed, in the real simulator.

Fast with a session over fakes, which sees the frames but knows nothing of them; slow with the
shipped model, which has to reach the goal.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.train.gym_factory import needs_pusht

from jetsight.bundle.planner_spec import HeadSpec
from jetsight.planning.imagine import Planning
from jetsight.session import Session
from jetsight.testing import FakeBackend, tiny_plan_spec, tiny_planner, tiny_spec

pytestmark = needs_pusht
NEAR_PX, FAR_PX = 40.0, 100.0


def snippet() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("robot_loop", ROOT / "examples/robot_loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blind_session(*_: Any) -> Session:
    """A model of the brightness of PushT's picture; its probe reads the agent from that."""
    size, neutral = {"height_px": 96, "width_px": 96}, np.full(2, 256, np.float32)
    spec = tiny_spec(**size, camera_hz=10.0, neutral=neutral)
    heads = HeadSpec(("agent_x", "agent_y"), ("px", "px"), (100.0, 100.0))
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)
    planning = tiny_plan_spec(spec, tiny_planner(), heads=heads, low=low, high=high)
    backend = FakeBackend(spec, planning=planning)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    return Session(spec, *engines, planning=Planning(planning, backend, str.encode))


def run_snippet(text: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), known)
    return known


def test_the_snippet_is_short() -> None:
    assert len(snippet().splitlines()) <= 15


def test_the_snippet_acts_as_printed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(Session, "open", blind_session)
    known = run_snippet(snippet())
    counts = known["session"].summary()["actions"]
    assert sum(counts.values()) == 40
    assert counts["planned"] == 40 - counts["warm-up"] > 0
    assert known["simulator"].action_space.contains(known["action"].values)
    assert capsys.readouterr().out.startswith("planned ok ")


def test_a_snippet_that_does_not_run_would_be_seen(monkeypatch) -> None:
    monkeypatch.setattr(Session, "open", blind_session)
    with pytest.raises(TypeError, match="unexpected keyword argument 'aim'"):
        run_snippet(snippet().replace("options=options", "aim=options"))


def test_the_example_acts(monkeypatch, capsys) -> None:
    monkeypatch.setattr(Session, "open", blind_session)
    module = example()
    distance = module.drive("any.jetsight", module.GOAL, ticks=20)
    assert np.isfinite(distance)
    assert len(capsys.readouterr().out.splitlines()) == 20


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, compiled once as by `make demo`."""
    from jetsight_compile.pipeline.shipped import compile_model, find_checkpoint, find_data

    target = tmp_path_factory.mktemp("shipped") / "pusht-nano.jetsight"
    return compile_model(find_checkpoint(None), find_data(None), target).path


@pytest.fixture
def on_shipped(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Callable[..., Session] = Session.open
    monkeypatch.setattr(Session, "open", lambda *_: opened(shipped, "onnxruntime"))


@pytest.mark.slow
def test_the_snippet_reaches_its_goal(on_shipped) -> None:
    known = run_snippet(snippet())
    goal = [known["goal"]["agent_x"], known["goal"]["agent_y"]]
    assert np.hypot(*(known["info"]["pos_agent"] - goal)) < NEAR_PX
    without = run_snippet(snippet().replace("frame, goal,", "frame, None,"))
    assert np.hypot(*(without["info"]["pos_agent"] - goal)) > FAR_PX, "the control: no goal"


@pytest.mark.slow
def test_the_example_reaches_its_goal(on_shipped) -> None:
    module = example()
    assert module.drive("any.jetsight", module.GOAL) < NEAR_PX
    assert module.drive("any.jetsight", None) > FAR_PX, "the control: no goal"
