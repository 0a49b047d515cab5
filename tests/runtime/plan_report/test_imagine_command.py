"""`jetsight imagine` end to end: what it says, in words and in JSON, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runtime.imagine_factory import make_image, make_imagine_bundle, make_recording
from helpers.runtime.live_bundle import ACTIONS, encode
from helpers.runtime.live_planner import PLANNER, make_planning_bundle
from helpers.runtime.plan_reports import report

from jetsight import cli
from jetsight.cli.imagine import describe
from jetsight.session import Session
from jetsight.stream.frames import Frame

COMMON = ("--backend", "onnxruntime", "--threads", "1")
Capture = pytest.CaptureFixture[str]
Imagine = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundles, images and a recording."""
    folder = tmp_path_factory.mktemp("room")
    make_imagine_bundle(folder / "tiny.jetsight")
    make_imagine_bundle(folder / "strict.jetsight", threshold=-1.0)
    make_recording(folder / "ds")
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        make_image(folder / name, seed)
    return folder


@pytest.fixture
def imagine(room: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Imagine:
    """Run the command in that folder; what it printed as JSON."""
    monkeypatch.chdir(room)

    def run(*arguments: str, bundle: str = "tiny.jetsight", code: int = 0) -> dict[str, Any]:
        assert cli.main(["imagine", bundle, *COMMON, *arguments, "--json"]) == code
        out, err = capsys.readouterr()
        assert err == ""
        found: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
        return found

    return run


def test_a_plan_as_json_holds_all_of_it(imagine: Imagine, room: Path) -> None:
    found = imagine("--frame", "a.png", "--goal", "b.png", "--iterations", "5")
    assert (found["valid"], found["reason"], found["iterations"]) == (True, "ok", 5)
    assert (found["planner"], found["backend"]) == (PLANNER.graph, "onnxruntime")
    assert (found["family"], found["precision"]) == ("cpu-fp32", "fp32")
    assert np.shape(found["actions"]) == (4, 2)
    assert (len(found["costs"]), len(found["candidate_costs"])) == (5, PLANNER.samples)
    assert found["costs"] == sorted(found["costs"], reverse=True)
    assert found["parts_ms"].keys() == {"load", "goal", "noise", "iterations", "result"}
    z_now, z_goal = (encode(make_image(room / n, s)) for s, n in enumerate(("a.png", "b.png")))
    assert found["distance_now"] == pytest.approx(((z_now - z_goal) ** 2).sum(), rel=1e-4)
    end = z_now + (np.reshape(found["actions"], (2, 4)) @ ACTIONS).sum(0)
    assert found["distances"][-1] == pytest.approx(((end - z_goal) ** 2).sum(), rel=1e-3)
    assert found["distances"][-1] == pytest.approx(found["cost"], rel=1e-3)


def test_a_plan_in_words(room: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(room)
    arguments = ["--frame", "a.png", "--goal", "b.png", "--iterations", "30", "--library", "ds"]
    assert cli.main(["imagine", "tiny.jetsight", *COMMON, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"tiny: {PLANNER.graph} on onnxruntime cpu-fp32 (fp32), 2 blocks of 2 actions, 0.4 s ahead"
    )
    assert lines[1].startswith("from a.png (a scene at rest: one image repeated; assumed: the neu")
    assert lines[2] == "to   b.png"
    assert lines[4].split() == [
        "block",
        "seconds",
        "x",
        "(px)",
        "y",
        "(px)",
        "to",
        "goal",
        "looks",
        "like",
    ]
    assert lines[5].startswith("1      0-0.2")
    rows = [line.split()[0] for line in lines if line.endswith("%")]
    assert (rows[0], rows[-1], len(rows)) == ("1", "30", 10)  # thinned out, both ends kept
    heads = [line.split("  ")[0] for line in lines[-5:]]
    assert heads == ["cost", "constraint", "candidates", "to goal", "time"]
    assert "480 tried, 0 invalid" in lines[-3]


def test_the_same_seed_gives_the_same_plan(imagine: Imagine) -> None:
    ask = ("--frame", "a.png", "--goal", "b.png", "--iterations", "3", "--seed")
    first, again, other = (imagine(*ask, seed)["actions"] for seed in ("4", "4", "5"))
    assert first == again
    assert first != other


def test_a_recorded_moment_plans_as_the_stream_would(imagine: Imagine, room: Path) -> None:
    """The control is the same frame as a scene at rest, which knows no actions."""
    from jetsight.bundle.bundle import Bundle
    from jetsight.datasets.lerobot import LeRobotDataset

    found = imagine("--frame", "ds#1:9", "--goal", "ds#2:3", "--iterations", "4")
    data = LeRobotDataset.open(room / "ds")
    frames, actions = list(data.frames(1)), data.rows(1).actions
    goal = list(data.frames(2))[3]
    bundle = Bundle.open(room / "tiny.jetsight")
    with Session.open(bundle, "onnxruntime", "cpu-fp32", threads=1) as session:
        session.load_planner()
        for tick in range(10):
            now_ns = session.clock.now_ns()
            session.step(Frame(frames[tick], tick, tick, now_ns, actions[max(0, tick - 1) : tick]))
        expected = session.imagine(goal, iterations=4, seed=0)
        np.testing.assert_allclose(found["actions"], expected.actions, rtol=1e-5)
        assert (found["tick"], expected.tick) == (9, 9)


def test_a_target_of_the_probe_is_a_goal(imagine: Imagine) -> None:
    ask = ("--frame", "a.png", "--iterations", "2", "--probe-goal")
    found = imagine(*ask, "block_x=300", "--probe-goal", "block_angle=0")
    assert found["targets"] == {"block_x": 300.0, "block_angle": 0.0}
    assert found["cost"] == pytest.approx(301.0)  # the factory's probe costs its target; cos 0 = 1
    assert found["distance_now"] is found["distances"] is None
    both = imagine(*ask, "block_x=300", "--goal", "b.png")
    assert both["cost"] == pytest.approx(300 + both["cost_parts"]["end"], rel=1e-3)
    assert both["cost_parts"]["probe and support"] == pytest.approx(300.0, rel=1e-2)
    assert both["goal"] == "b.png, block_x = 300"


def test_a_goal_can_be_due_early(imagine: Imagine) -> None:
    ask = ("--frame", "a.png", "--goal", "b.png", "--iterations", "3")
    late, early, end = (
        imagine(*ask, *more) for more in ((), ("--arrive", "1"), ("--arrive", "99"))
    )
    assert (late["arrive"], early["arrive"]) == (None, 1)
    assert end["actions"] == late["actions"] != early["actions"]
    for found in (late, early):
        assert found["cost"] == pytest.approx(sum(found["cost_parts"].values()), rel=0.02)


def test_no_plan_is_an_answer_with_its_own_code(imagine: Imagine) -> None:
    ask = ("--frame", "a.png", "--goal", "b.png")
    late = imagine(*ask, "--budget-ms", "0", code=cli.NO_PLAN)
    assert (late["reason"], late["iterations"], late["actions"]) == ("deadline", 0, None)
    broken = imagine(*ask, "--iterations", "2", bundle="strict.jetsight", code=cli.NO_PLAN)
    assert (broken["reason"], broken["violation"]) == ("infeasible", 1.0)
    assert broken["candidate_violations"] == [1.0] * PLANNER.samples
    free = imagine(*ask, "--iterations", "2", "--no-constraint", bundle="strict.jetsight")
    assert (free["reason"], free["violation"], free["constrained"]) == ("ok", 0.0, False)


def test_words_say_whether_a_plan_comes_closer() -> None:
    for goal, words in ((2.0, "16 now, 4 at the imagined end, 25 % of it"), (0.4, "is farther")):
        page = list(describe(report(z_goal=np.full(4, goal))))
        assert any(line.startswith("to goal") and line.endswith(words) for line in page)


def test_no_plan_in_words(room: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(room)
    arguments = ["--frame", "a.png", "--goal", "b.png", "--budget-ms", "0"]
    assert cli.main(["imagine", "tiny.jetsight", *COMMON, *arguments]) == cli.NO_PLAN
    out, err = capsys.readouterr()
    assert err == ""
    assert "no plan  deadline: the budget is shorter than one iteration" in out
    assert "iteration  best cost" not in out
    assert "seconds" not in out


def test_bounds_are_kept(imagine: Imagine) -> None:
    ask = ("--frame", "a.png", "--goal", "b.png", "--iterations", "3")
    wide = np.array(imagine(*ask)["actions"])
    tight = np.array(imagine(*ask, "--low", "200,210", "--high", "220,230")["actions"])
    assert tight.min(axis=0).tolist() >= [200, 210]
    assert tight.max(axis=0).tolist() <= [220, 230]
    assert not ((wide >= [200, 210]) & (wide <= [220, 230])).all()


def test_a_library_shows_frames_of_other_episodes(imagine: Imagine) -> None:
    ask = ("--frame", "ds#1:9", "--goal", "ds#2:3", "--iterations", "2", "--library", "ds")
    near = imagine(*ask)["nearest"]
    assert len(near) == 2
    assert {n["episode"] for n in near} == {0}
    assert all(n["distance"] >= 0 for n in near)


def test_of_several_planners_the_budget_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    import dataclasses

    small = dataclasses.replace(PLANNER, graph="imagine_cem_8x2", samples=8)
    make_planning_bundle(tmp_path / "two.jetsight", PLANNER, small)
    make_image(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ask = ["imagine", "two.jetsight", *COMMON, "--frame", "a.png", "--goal", "a.png", "--json"]
    for more, planner in ((["--budget-ms", "10000"], PLANNER), (["--planner", small.graph], small)):
        assert cli.main([*ask, *more]) == 0
        assert json.loads(capsys.readouterr().out)["planner"] == planner.graph
