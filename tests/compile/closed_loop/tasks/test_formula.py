"""Formulas of success: what they compute, and everything that they refuse."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from jetsight.errors import UsageError
from jetsight_compile.closed_loop.tasks.formula import Formula

KNOWN = ("x", "y", "heading", "arm.joint_0", "speed of wheel", "goal_x_old")
NOW = {"x": 1.0, "y": 2.0, "heading": 3.1, "arm.joint_0": 0.5, "speed of wheel": 4.0}
GOAL = {"x": 1.03, "y": 2.04, "heading": -3.1, "arm.joint_0": 0.4, "speed of wheel": 4.0}


def value(
    text: str,
    now: Mapping[str, float] = NOW,
    goal: Mapping[str, float] = GOAL,
    info: Mapping[str, object] | None = None,
) -> bool | None:
    return Formula.parse(text).bind(KNOWN, "environment 'toy'")(now, goal, info or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hypot(x - goal_x, y - goal_y) < 0.0501", True),
        ("hypot(x - goal_x, y - goal_y) < 0.0499", False),
        ("abs(heading - goal_heading) < 0.1", False),  # 6.2 rad the long way round
        ("abs(angle(heading - goal_heading)) < 0.1", True),
        ("abs(angle(heading - goal_heading)) < radians(4)", False),
        ("arm.joint_0 - goal_arm.joint_0 > 0.05", True),
        ('state("speed of wheel") == goal("speed of wheel")', True),
        ("x < 0 or y > 1 and not x > 3", True),
        ("(x < 0 or y > 1) and x > 3", False),
        ("0 < x < 2 < y + 0.1", True),
        ("0 < x < 2 < y", False),
        ("-x ** 2 == -1", True),
        ("7 % (x + y) == 1", True),
        ("max(x, y, 3) == 3 and min(x, y) == 1", True),
        ("sqrt(x + 3) == y and exp(x - 1) == 1 and log(x) == 0", True),
        ("abs(sin(pi / 2) - x) < 1e-9 and abs(cos(tau) - x) < 1e-9 and tan(0) < x", True),
        ("abs(atan2(x, x) - pi / 4) < 1e-9 and degrees(pi) + x == 181", True),
    ],
)
def test_a_formula_computes_what_it_says(text: str, expected: bool) -> None:
    assert value(text) is expected


def test_entries_of_info_are_truth_values_or_numbers() -> None:
    assert value("info.hit or x > 9", info={"info.hit": True}) is True
    assert value("not info.hit", info={"info.hit": np.bool_(True)}) is False
    assert value("info.task.score >= 0.5", info={"info.task.score": np.float32(0.5)}) is True
    assert Formula.parse("info.a.b < 1 and not info.c").info_names == ("info.a.b", "info.c")


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize(
    "text",
    [
        "x < 5",
        "not x < 5",
        "x != 5",
        "x == x",
        "y > 0 or x < 5",  # without short cuts
        "not (y > 0 and x < 5)",
        "max(x, y) > 1",
        "min(y, x) < 5 or True",
        "abs(angle(x - goal_x)) < 9",
    ],
)
def test_what_is_not_finite_is_no_success_wherever_it_stands(text: str, bad: float) -> None:
    assert value(text, now={**NOW, "x": bad}) is None
    assert value(text) is not None


@pytest.mark.parametrize("bad", NOT_FINITE)
def test_a_goal_that_is_not_finite_is_no_success(bad: float) -> None:
    assert value("x - goal_x < 9 or y > 0", goal={**GOAL, "x": bad}) is None
    assert value("x - goal_x < 9 or y > 0") is True


@pytest.mark.parametrize(
    "text",
    [
        "1 / (x - 1) > 0",
        "x % 0 < 1",
        "sqrt(x - 2) < 9 or y > 0",
        "log(x - 1) < 0",
        "(x - 2) ** 0.5 < 9",  # a complex number in Python
        "exp(1000 * x) > 0",
        "10.0 ** 400 * x > 0",
        "9 ** 9 ** 9 ** 9 > x",  # whole numbers in Python, longer than memory
        "info.missing or x > 0",
    ],
)
def test_what_cannot_be_computed_is_no_success(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').system('true') < x", "calls \"__import__('os').system\""),
        ("x.__class__ < 1", "has no quantity 'x.__class__'"),
        ("().__class__ < x", "expected a name such as info.hit"),
        ("(lambda: x)() < 1", "calls 'lambda: x'"),
        ("[x for x in (1,)] < x", "which no formula may"),
        ("(x := 1) < 2", "which no formula may"),
        ("x if y else y", "which no formula may"),
        ("x[0] < 1", "which no formula may"),
        ("{x: 1} < y", "which no formula may"),
        ("f'{x}' < y", "which no formula may"),
        ("(yield x) < 1", "which no formula may"),
        ("(await x) < 1", "which no formula may"),
        ("'a' < x", "expected a finite number"),
        ("b'a' < x", "expected a finite number"),
        ("1j < x", "expected a finite number"),
        ("None == x", "expected a finite number"),
        ("... == x", "expected a finite number"),
        ("1e999 > x", "expected a finite number"),
        ("x is 1", "uses the operator Is"),
        ("x in y", "uses the operator In"),
        ("x // 1 < 2", "uses the operator FloorDiv"),
        ("x << 9 < 2", "uses the operator LShift"),
        ("~x < 2", "uses the operator Invert"),
        ("x @ y < 2", "uses the operator MatMult"),
        ("open(x) < 1", "calls 'open'"),
        ("eval(x) < 1", "calls 'eval'"),
        ("hypt(x, y) < 1", "did you mean 'hypot'?"),
        ("min(*x) < 1", "more than plain arguments"),
        ("log(x, base=2) < 1", "more than plain arguments"),
        ("atan2(x) < 1", "gives atan2 1 arguments, expected 2"),
        ("min(x) < 1", "gives min 1 arguments, expected 2 or more"),
        ("state(x) < 1", 'expected for example state("x")'),
        ("goal() < 1", 'expected for example goal("x")'),
        ("x", "is a number, not a condition"),
        ("hypot(x, y)", "is a number, not a condition"),
        ("x and y < 1", "uses the number 'x' as a condition"),
        ("not x", "uses the number 'x' as a condition"),
        ("abs(x < 1) < 2", "uses 'x < 1' as a number"),
        ("(x < 1) + 1 < 2", "uses 'x < 1' as a number"),
        ("True", "reads no quantity"),
        ("1 < 2", "reads no quantity"),
        ("", "cannot be read"),
        ("x <", "cannot be read"),
        ("hypot(x", "'(' was never closed"),
        ("x < 1; y", "cannot be read"),
        ("x = 1", "cannot be read"),
        ("import os", "cannot be read"),
        ("x < 1\0", "cannot be read"),
        ("x < 1 \ud800", "cannot be read"),
        ("(" * 300 + "x" + ")" * 300 + " < 1", "cannot be read"),
        ("-" * 500 + "x < 1", "nested too deeply"),
        ("[" + "-" * 1500 + "x] < 1", "which no formula may"),
        ("x < 1 or " * 400 + "x < 1", "expected 2000 at most"),
    ],
)
def test_everything_else_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        value(text)
    message = str(caught.value)
    assert says in message
    assert message.startswith("--success")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("z < 1", "environment 'toy' has no quantity 'z'; it has: x, y"),
        ("headin < 1", "did you mean 'heading'?"),
        ("goal_headin < 1", "did you mean 'goal_heading'?"),
        ("arm.joint_1 < 1", "did you mean 'arm.joint_0'?"),
        ('goal("z") < x', "has no quantity 'z'"),
        ('state("goal_x") < x', "has no quantity 'goal_x'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_known_one(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="--success") as caught:
        value(text)
    assert says in str(caught.value)


def test_a_column_that_is_called_like_a_goal_is_told_apart() -> None:
    names = ("x", "goal_x")
    with pytest.raises(UsageError, match=r'state\("goal_x"\) or goal\("x"\)'):
        Formula.parse("x < goal_x").bind(names, "it")
    now, goal = {"x": 1.0, "goal_x": 5.0}, {"x": 0.0, "goal_x": 0.0}
    assert Formula.parse('x < state("goal_x")').bind(names, "it")(now, goal, {}) is True
    assert Formula.parse('x < goal("x")').bind(names, "it")(now, goal, {}) is False
    assert value("goal_x_old > 0", now={**NOW, "goal_x_old": 1.0}) is True


def test_the_compared_names_are_known_and_angles_among_them() -> None:
    bound = Formula.parse(
        "hypot(x - goal_x, y - 1) < 1 and abs(angle(heading - goal_heading)) < 1 and goal_y < 3"
    ).bind(KNOWN, "it")
    assert bound.compared == (("x", False), ("y", False), ("heading", True))
    assert bound.names == ("x", "y", "heading")
