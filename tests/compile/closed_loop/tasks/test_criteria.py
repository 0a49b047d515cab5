"""Tasks that the user states: a formula over state, info and probe, or a function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jetsight.errors import DataError, UsageError
from jetsight.simulators.registry import PUSHT
from jetsight_compile.closed_loop.tasks.choose import (
    FunctionName,
    choose_task,
    needed_info,
    parse_success,
)
from jetsight_compile.closed_loop.tasks.criteria import FormulaTask, FunctionTask
from jetsight_compile.closed_loop.tasks.formula import Formula
from jetsight_compile.closed_loop.tasks.pusht import PushingTask
from jetsight_compile.closed_loop.tasks.region import Region, RegionFrame

NAMES, UNITS = ("x", "y", "heading"), ("m", "m", "rad")
AT_GOAL = "hypot(x - goal_x, y - goal_y) < 0.1 and abs(angle(heading - goal_heading)) < 0.3"


def seen(*state: float, **info: object) -> Any:
    """An observation: a state, a frame whose brightness is x, and entries of info."""
    frame = np.full((2, 2, 3), 100, np.uint8)
    kept = {f"info.{name}": value for name, value in info.items()}
    return SimpleNamespace(
        frame_hwc_u8=frame, state=np.array(state, np.float32), kept=kept, info=info
    )


def task_of(text: str, **options: Any) -> FormulaTask:
    return FormulaTask(Formula.parse(text), NAMES, "environment 'toy'", units=UNITS, **options)


def test_a_formula_judges_a_tick_and_measures_its_distance() -> None:
    task = task_of(AT_GOAL)
    near, far = seen(1.05, 2.0, 3.1), seen(1.0, 2.2, 3.1)
    goal = seen(1.0, 2.0, -3.1)
    assert [measure.key for measure in task.measures] == ["x_m", "y_m", "heading_rad"]
    found = task.judge(near, goal)
    assert (found.success, found.final, found.computable) == (True, True, True)
    assert found.off["x_m"] == pytest.approx(0.05, rel=1e-5)
    assert found.off["heading_rad"] == pytest.approx(2 * math.pi - 6.2, rel=1e-4)
    assert not task.judge(far, goal).success
    assert not task.judge(near, seen(9.0, 9.0, 0.0)).success, "another goal, judged anew"


def test_angles_of_degrees_are_measured_in_whole_turns_of_360() -> None:
    task = FormulaTask(
        Formula.parse("abs(angle(radians(a - goal_a))) < 1"), ("a",), "it", units=("deg",)
    )
    off = task.judge(seen(359.0), seen(2.0)).off
    assert off == {"a_deg": pytest.approx(3.0)}


def test_a_number_that_is_not_finite_is_no_success_and_is_counted() -> None:
    task = task_of(AT_GOAL)
    for now, goal in ((seen(math.nan, 2, 0), seen(1, 2, 0)), (seen(1, 2, 0), seen(1, math.inf, 0))):
        found = task.judge(now, goal)
        assert (found.success, found.computable) == (False, False)
    assert task.judge(seen(math.nan, 2, 0), seen(1, 2, 0)).off["x_m"] is None
    assert task.judge(seen(1, 2, 0), seen(1, 2, 0)).success  # the control


def test_info_of_the_tick_is_read() -> None:
    task = task_of("x > 0 and not info.hit")
    goal = seen(0, 0, 0)
    assert task.judge(seen(1, 0, 0, hit=False), goal).success
    assert not task.judge(seen(1, 0, 0, hit=True), goal).success
    assert not task.judge(seen(1, 0, 0), goal).computable, "an entry that is missing"


def test_a_probe_is_read_only_where_the_state_lacks_a_name() -> None:
    reads = []

    def read(observation: Any) -> Mapping[str, float]:
        reads.append(observation)
        return {"x": -5.0, "depth": float(observation.frame_hwc_u8.mean())}

    probe = {"probed": ("x", "depth"), "read": read}
    assert task_of("abs(x - goal_x) < 1", **probe).judge(seen(1, 0, 0), seen(1, 0, 0)).success
    assert not reads
    task, goal = task_of("abs(depth - goal_depth) < 1 and x > 0", **probe), seen(1, 0, 0)
    assert task.judge(seen(1, 0, 0), goal).success, "the state's x, not the probe's"
    assert task.judge(seen(1, 0, 0), goal).off == {"depth": 0.0}
    assert sum(each is goal for each in reads) == 1, "the goal is read once"
    with pytest.raises(UsageError, match="did you mean 'depth'"):
        task_of("dept < 1", **probe)


def near(state: Any, goal_state: Any, info: Any) -> bool:
    state[:] = 0.0  # a copy: nothing else changes
    return bool(np.abs(goal_state).max() < 1) and not info["hit"]


def numpys(state: Any, goal_state: Any, info: Any) -> np.bool_:
    return np.bool_(True)


def forgetful(state: Any, goal_state: Any, info: Any) -> None: ...


def failing(state: Any, goal_state: Any, info: Any) -> bool:
    raise RuntimeError("out of\nluck")


def test_a_function_of_the_user_judges() -> None:
    task, now = FunctionTask("m:near", near), seen(1, 1, 1, hit=False)
    assert task.judge(now, seen(0.5, 0, 0)).success
    assert now.state.tolist() == [1, 1, 1]
    assert not task.judge(now, seen(2, 0, 0)).success
    assert not task.judge(seen(1, 1, 1, hit=True), seen(0, 0, 0)).success
    assert FunctionTask("m:numpys", numpys).judge(now, now).success


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (forgetful, "returned 'None', expected True or False"),
        (lambda *a: 1.0, "returned '1.0', expected True or False"),
        (failing, "failed (RuntimeError: out of luck)"),
        (lambda state: True, "it is called as function(state, goal_state, info)"),
    ],
)
def test_a_function_that_fails_is_refused_in_one_line(function: Any, says: str) -> None:
    now = seen(1, 1, 1)
    with pytest.raises(DataError) as caught:
        FunctionTask("m:f", function).judge(now, now)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def toy(names: tuple[str, ...] = NAMES, env_id: str = "toy-v0", **metadata: Any) -> Any:
    unwrapped = SimpleNamespace(metadata=metadata)
    return SimpleNamespace(
        env_id=env_id,
        state_names=list(names),
        state_units=[],
        keep=tuple(metadata.get("keep", ())),
        unwrapped=unwrapped,
    )


NO_PROBE = SimpleNamespace(names=())


def chosen(success: str | None, environment: Any, columns: tuple[str, ...] = ()) -> Any:
    return choose_task(success, environment, NO_PROBE, columns)  # type: ignore[arg-type]


def test_the_task_is_the_users_else_the_environments() -> None:
    own = toy(success="x < 1")
    assert chosen(None, own).criterion == "x < 1"
    assert chosen("y < 2", own).criterion == "y < 2"
    pushing = toy(("agent_x", "agent_y", "block_x", "block_y", "block_angle"), PUSHT)
    assert isinstance(chosen(None, pushing), PushingTask)
    assert chosen("agent_x < 2", pushing).name == "formula"
    assert isinstance(chosen(f"{__name__}:near", own), FunctionTask)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (NAMES, "--success 'hypot(x - goal_x, y - goal_y) < 0.1'"),
        (("arm.j_0",), "--success 'hypot(arm.j_0 - goal_arm.j_0) < 0.1'"),
        (("wheel speed",), """hypot(state("wheel speed") - goal("wheel speed")) < 0.1"""),
        ((), "--success 'info.success'"),
    ],
)
def test_an_environment_without_success_says_what_to_type(names: Any, says: str) -> None:
    with pytest.raises(UsageError, match="'toy-v0' does not say what success is") as caught:
        chosen(None, toy(names))
    assert says in str(caught.value)
    typed = str(caught.value).split("--success '")[1].split("'")[0]
    Formula.parse(typed).bind(names, "it")  # what it says to type works


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere_at_all:f", "cannot be imported"),
        ("./nowhere.py:f", "cannot be imported"),
        ("math:hypott", "there is no 'hypott'; did you mean 'hypot'?"),
        ("math:pi", "expected a function"),
    ],
)
def test_a_function_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen(text, toy())


def test_info_that_an_environment_does_not_keep_is_refused() -> None:
    own = toy(success="x < 1 and not info.hit", keep=("info.hit",))
    assert chosen(None, own).criterion == "x < 1 and not info.hit"
    assert needed_info("x < 1 and not info.hit") == ("info.hit",)
    assert needed_info(None) == needed_info("m:f") == ()
    with pytest.raises(UsageError, match=r"does not keep 'info.hitt'.*did you mean 'info.hit'"):
        chosen("not info.hitt", own)


def test_a_function_is_called_once_before_any_work() -> None:
    with pytest.raises(DataError, match="returned 'None'"):
        FunctionTask("m:forgetful", forgetful).check(seen(1, 1, 1))
    task_of(AT_GOAL).check(seen(1, 1, 1))


def test_a_formula_is_not_taken_for_a_function() -> None:
    assert isinstance(parse_success("math:hypot"), FunctionName)
    assert isinstance(parse_success('state("a:b") < 1'), Formula)
    assert parse_success(None) is None
    with pytest.raises(UsageError, match="which no formula may"):
        parse_success("lambda s: True")


def test_a_region_is_measured_in_named_columns() -> None:
    task = chosen("x < 1", toy(), ("y", "heading"))
    states = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
    assert task.region.positions(states).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert task.region.clearance_of(Region(0, 0, 0.6)) == pytest.approx(0.2)
    for columns, says in (
        (("x",), "names 1 columns, expected two"),
        (("x", "x"), "names 1 columns, expected two"),
        (("x", "z"), "has no column 'z'"),
        (("x", "headin"), "did you mean 'heading'"),
    ):
        with pytest.raises(UsageError, match=says):
            RegionFrame.of(columns, NAMES, "environment 'toy'")
