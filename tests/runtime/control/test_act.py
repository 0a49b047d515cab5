"""`session.act`: a robot of the fakes reaches its goal, and every tick has a safe action."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.runtime.scripted_world import (
    GRAPH,
    SPEC,
    START,
    WAITING,
    WARM_UP,
    BrightnessRobot,
    latent,
)

from jetsight import ActionSource, ControlOptions, Frame, UsageError
from jetsight.planning.goal import PlanRequest
from jetsight.planning.limits import Limits
from jetsight.planning.plan import Plan, PlanReason
from jetsight.testing import ScriptedCamera, lost, shots, tiny_planner

GOAL, NEAR = START + 40, 5.0
FAR = latent(GOAL)


def sources(actions: list[Any]) -> list[str]:
    return [str(action.source) for action in actions]


def spy(robot: BrightnessRobot, patch: pytest.MonkeyPatch) -> list[PlanRequest]:
    """The requests for plans that the loop makes."""
    asked: list[PlanRequest] = []
    plan = robot.session.plan

    def asking(request: PlanRequest) -> Plan:
        asked.append(request)
        return plan(request)

    patch.setattr(robot.session, "plan", asking)
    return asked


@pytest.mark.parametrize("options", [None, WAITING], ids=["realtime", "waiting"])
def test_it_reaches_its_goal_and_stays(options) -> None:
    robot = BrightnessRobot()
    actions = robot.run(FAR, WARM_UP + 40, options=options)
    assert robot.miss(GOAL) < NEAR
    assert sources(actions) == ["warm-up"] * WARM_UP + ["planned"] * 40
    assert all(action.reason == "ok" for action in actions[WARM_UP:])
    assert all(action.forecast.valid for action in actions[WARM_UP:])
    assert robot.session.summary()["reasons"] == {"ok": 40, "warming_up": WARM_UP}
    assert robot.session.summary()["actions"]["planned"] == 40


@pytest.mark.parametrize("goal", [None, latent(START)], ids=["no goal", "where it is"])
def test_without_that_goal_it_does_not_get_there(goal) -> None:
    """The negative control."""
    robot = BrightnessRobot()
    robot.run(goal, WARM_UP + 40)
    assert robot.miss(START) < NEAR


def test_random_actions_do_not_get_there() -> None:
    robot, rng = BrightnessRobot(), np.random.default_rng(0)
    policy = ControlOptions(warm_up=lambda frame: rng.uniform(-2, 2, 2), continue_ticks=0)
    blind = BrightnessRobot(script={"encode": {"nan_at": range(10_000)}})
    blind.run(FAR, 60, options=policy)
    assert blind.miss(GOAL) > 3 * NEAR
    robot.run(FAR, 60, options=policy)
    assert robot.miss(GOAL) < NEAR


def test_goals_of_every_kind() -> None:
    image = np.full((8, 8, 3), 140, np.uint8)
    robot = BrightnessRobot()
    robot.run(image, WARM_UP + 40)
    assert robot.miss(140) < NEAR
    with pytest.raises(UsageError, match="the goal is <class"):
        BrightnessRobot().run("there", 1)
    with pytest.raises(UsageError, match="there is no quantity 'z'"):
        BrightnessRobot().run({"z": 1.0}, 1)


def test_the_plan_is_shifted_by_one_from_tick_to_tick() -> None:
    robot = BrightnessRobot()
    options = ControlOptions(replan_every=10)
    actions = robot.run(FAR, WARM_UP + 11, options=options)[WARM_UP:]
    first = actions[0]
    assert first.plan is not None
    planned = first.plan.actions
    np.testing.assert_array_equal(np.stack([a.values for a in actions[:-1]]), planned)
    assert [len(a.remaining) for a in actions[:3]] == [9, 8, 7]
    np.testing.assert_array_equal(actions[2].remaining, planned[3:])
    assert [a.plan is None for a in actions] == [False] + [True] * 9 + [False]


def test_the_goal_is_due_ever_sooner_and_another_one_restarts_it(monkeypatch) -> None:
    robot = BrightnessRobot()
    asked = spy(robot, monkeypatch)
    robot.run(FAR, 3, arrive_ticks=5)
    other = FAR.copy()
    robot.run(other, 4, arrive_ticks=5)  # an equal goal is the same one
    robot.run(latent(GOAL + 1), 2, arrive_ticks=5)
    robot.run(latent(GOAL + 1), 2, arrive_ticks=9)
    robot.run(latent(GOAL + 1), 2)
    robot.run(latent(GOAL + 1), 1, arrive_ticks=0)
    assert [r.arrive_ticks for r in asked] == [5, 4, 3, 2, 1, 1, 1, 5, 4, 9, 8, 10, 9, None]
    with pytest.raises(UsageError, match="arrive_ticks is -1, expected an integer from 0"):
        robot.tick(FAR, arrive_ticks=-1)


def test_an_image_that_the_caller_reuses_is_another_goal(monkeypatch) -> None:
    robot, image = BrightnessRobot(), np.full((8, 8, 3), 140, np.uint8)
    asked = spy(robot, monkeypatch)
    robot.run(image, 2, arrive_ticks=7)
    image[:] = 90
    robot.run(image, 1, arrive_ticks=7)
    assert [r.arrive_ticks for r in asked] == [7, 6, 7]


def test_the_deadline_is_what_is_left_of_the_period(monkeypatch) -> None:
    robot = BrightnessRobot(script={"encode": {"clock": None}})
    asked = spy(robot, monkeypatch)
    robot.tick(FAR)
    slow = Frame(robot.image(), 1, 1, robot.clock.now_ns() - SPEC.period_ns // 2)
    robot.tick(FAR, frame=slow)
    period_ms = SPEC.period_ns / 1e6
    assert [r.deadline_ms for r in asked] == pytest.approx([0.95 * period_ms, 0.45 * period_ms])
    robot.tick(FAR, options=ControlOptions(deadline_ms=3.0))
    robot.tick(FAR, options=WAITING)
    assert [r.deadline_ms for r in asked[2:]] == [3.0, None]


def test_warm_up_policies() -> None:
    hold = BrightnessRobot()
    hold.tick(FAR, executed=np.array([2.0, 1.0]))
    np.testing.assert_array_equal(hold.sent[0], [2.0, 1.0])
    neutral = BrightnessRobot()
    neutral.tick(FAR, executed=np.array([2.0, 1.0]), options=ControlOptions(warm_up="neutral"))
    np.testing.assert_array_equal(neutral.sent[0], SPEC.neutral)
    own = BrightnessRobot()
    ticks: list[int] = []

    def policy(frame: Frame) -> np.ndarray:
        ticks.append(frame.tick)
        return np.array([0.5, 0.0])

    actions = own.run(FAR, WARM_UP + 1, options=ControlOptions(warm_up=policy))
    assert ticks == list(range(WARM_UP))
    np.testing.assert_array_equal(np.stack(own.sent[:WARM_UP]), [[0.5, 0.0]] * WARM_UP)
    assert actions[-1].source is ActionSource.PLANNED


def test_an_invalid_plan_is_bridged_by_the_one_before_then_by_rest() -> None:
    """Runs 0 and 1 warm the planner up; 12 iterations a plan; from the third plan on all fail."""
    robot = BrightnessRobot(script={GRAPH: {"nan_at": range(2 + 24, 10_000)}})
    options = ControlOptions(iterations=12, realtime=False)
    actions = robot.run(FAR, WARM_UP + 16, options=options)[WARM_UP:]
    assert sources(actions) == ["planned"] * 2 + ["continued"] * 9 + ["hold"] * 5
    assert {a.reason for a in actions[2:]} <= {"all_invalid", "plan_refused"}
    planned = actions[1].plan.actions
    np.testing.assert_array_equal(np.stack([a.values for a in actions[2:11]]), planned[1:])
    np.testing.assert_array_equal(actions[-1].values, planned[-1])


def test_continuing_may_be_limited_and_rest_may_be_neutral() -> None:
    robot = BrightnessRobot(script={GRAPH: {"nan_at": range(2 + 24, 10_000)}})
    options = ControlOptions(iterations=12, realtime=False, continue_ticks=3, rest="neutral")
    actions = robot.run(FAR, WARM_UP + 8, options=options)[WARM_UP:]
    assert sources(actions) == ["planned"] * 2 + ["continued"] * 3 + ["neutral"] * 3
    np.testing.assert_array_equal(actions[-1].values, SPEC.neutral)


def test_a_plan_towards_another_goal_is_not_continued() -> None:
    robot = BrightnessRobot(script={GRAPH: {"nan_at": range(2 + 12, 10_000)}})
    options = ControlOptions(iterations=12, realtime=False)
    robot.run(FAR, WARM_UP + 1, options=options)
    assert robot.tick(latent(0.0)).source is ActionSource.HOLD


def slowed(periods: float) -> BrightnessRobot:
    """A robot whose planner iterations take so long from now on."""
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 1)
    robot.backend.engines[GRAPH]._latency_ns = round(periods * SPEC.period_ns)
    return robot


def test_a_planner_without_time_hands_on_the_plan_before() -> None:
    robot = slowed(0.97)  # more than what is left of a period
    robot.run(FAR, 4)  # the planner has yet to learn how long an iteration takes
    after = robot.run(FAR, 3)
    assert sources(after) == ["continued"] * 3
    assert {a.reason for a in after} == {"handed_on"}
    assert all(a.total_ms < SPEC.period_ns / 1e6 for a in after)


def test_a_plan_that_is_late_begins_with_the_action_of_its_end() -> None:
    robot = slowed(2.2)
    action = robot.tick(FAR)
    assert (str(action.source), action.reason) == ("planned", "late")
    assert action.tick == WARM_UP + 1 + 2
    np.testing.assert_array_equal(action.values, action.plan.actions[2])
    # Frames are lost meanwhile, so there is no plan, and yet always an action.
    after = robot.run(FAR, 12)
    assert {"continued", "hold"} & set(sources(after))
    assert all(np.isfinite(a.values).all() for a in after)


def test_lost_and_black_frames_continue_the_plan_then_rest() -> None:
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 1)
    black = np.zeros((8, 8, 3), np.uint8)
    first, second = robot.tick(FAR, frame=None), robot.tick(FAR, frame=black)
    assert (str(first.source), first.reason) == ("continued", "no_frame")
    assert (str(second.source), second.reason) == ("continued", "frame_rejected")
    assert second.forecast is None or not second.forecast.valid
    lost = [robot.tick(FAR, frame=None) for _ in range(12)]
    assert str(lost[6].source) == "continued"
    assert str(lost[-1].source) == "neutral", "in FAULT holding is given up"
    back = robot.run(FAR, WARM_UP + 1)
    assert str(back[0].source) == "warm-up", "no history reaches across"
    assert str(back[-1].source) in ("planned", "continued")


def test_an_image_too_early_repeats_the_action() -> None:
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 2)
    action = robot.session.act(robot.image(), FAR)
    robot.clock.sleep_ns(SPEC.period_ns // 10)
    again = robot.session.act(robot.image(), FAR)
    assert (str(again.source), again.reason) == ("continued", "frame_not_newer")
    assert again.tick == action.tick
    np.testing.assert_array_equal(again.values, action.values)


def test_what_was_executed_counts_and_not_what_was_sent() -> None:
    """The robot executes half of every action and says so: no surprise, and the goal is reached."""
    for told in (True, False):
        robot, executed = BrightnessRobot(), np.zeros(2, np.float32)
        surprises = []
        for _ in range(WARM_UP + 60):
            call = {"executed": executed} if told else {}
            action = robot.session.act(robot.image(), FAR, **call)
            executed = np.float32(0.5) * np.round(action.values)
            robot.execute(float(executed[0]))
            surprises.append(action.forecast.surprise or 0.0)
        if told:
            assert robot.miss(GOAL) < NEAR
            expected = max(surprises)
    assert max(surprises) > 2 * expected, "the control: a robot that reports nothing"


def test_an_executed_action_that_is_not_finite_is_no_report() -> None:
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 1)
    action = robot.tick(FAR, executed=np.array([np.nan, 0.0]))
    assert (str(action.source), action.reason) == ("continued", "actions_unknown")
    assert np.isfinite(action.values).all()
    with pytest.raises(UsageError, match=r"an action has the shape \[3\], expected \[2\]"):
        robot.tick(FAR, executed=np.zeros(3))


def test_a_policy_that_is_not_finite_never_reaches_the_robot() -> None:
    robot = BrightnessRobot()
    options = ControlOptions(warm_up=lambda frame: np.array([np.inf, np.nan]))
    action = robot.tick(FAR, options=options, executed=np.array([1.0, 1.0]))
    assert (str(action.source), action.reason) == ("hold", "not_finite")
    np.testing.assert_array_equal(action.values, [1.0, 1.0])


def test_bounds_and_rate_limits_hold_for_every_source() -> None:
    rate = np.array([0.5, 0.25], np.float32)
    planner = tiny_planner(rate_limited=True)
    robot = BrightnessRobot(planner, rate_per_tick=rate)
    rng = np.random.default_rng(1)
    options = ControlOptions(warm_up=lambda frame: rng.uniform(-99, 99, 2))
    actions = robot.run(FAR, WARM_UP + 30, options=options)
    sent = np.stack(robot.sent)
    assert (np.abs(np.diff(sent, axis=0)) <= rate * 1.0001).all()
    assert (np.abs(sent) <= 8).all()
    assert any(action.limited for action in actions[:WARM_UP])
    jump = robot.tick(FAR, executed=np.array([5.0, 5.0]))
    assert (np.abs(jump.values - 5.0) <= rate * 1.0001).all(), "relative to what was executed"


def test_tighter_limits_hold_too_and_outside_the_robot_returns_at_once() -> None:
    robot = BrightnessRobot()
    tight = ControlOptions(limits=Limits(low=[-1, -1], high=[1, 1]))
    robot.run(FAR, WARM_UP + 10, options=tight)
    assert np.abs(np.stack(robot.sent)).max() <= 1
    action = robot.tick(FAR, executed=np.array([50.0, 0.0]))
    assert action.values[0] <= 1
    with pytest.raises(UsageError, match="limits leave no action"):
        robot.tick(FAR, options=ControlOptions(limits=Limits(low=[3, 3], high=[-3, -3])))


def test_options_may_change_on_the_way() -> None:
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 3)
    action = robot.tick(FAR, options=ControlOptions(replan_every=4))
    assert action.plan is None
    assert str(action.source) == "planned"


def test_another_stream_begins_without_the_last_one() -> None:
    robot = BrightnessRobot()
    robot.run(FAR, WARM_UP + 3)
    robot.session.restart()
    action = robot.tick(FAR)
    assert (str(action.source), action.tick) == ("warm-up", 0)
    np.testing.assert_array_equal(action.values, SPEC.neutral)


def test_a_session_without_planners_says_so() -> None:
    robot = BrightnessRobot()
    robot.session._pool._planning = replace(
        robot.session._pool._planning, spec=replace(robot.session._pool.spec, planners=())
    )
    with pytest.raises(UsageError, match="there is no planner to imagine with"):
        robot.session.act(robot.image(), FAR)


# Frames of a robot at rest, without its actions.
WEBCAM = shots(WARM_UP + 5, action=None, plan=None)


@pytest.mark.parametrize(("actions", "valid"), [(None, False), ("neutral", True)])
def test_a_planner_relies_on_assumed_actions_only_if_they_were_declared(actions, valid) -> None:
    robot = BrightnessRobot()
    camera = ScriptedCamera(SPEC, WEBCAM, robot.clock)
    stream = robot.session.stream(camera, actions=actions)
    seen = [(each.valid, each.assumed, robot.session.imagine(FAR)) for each in stream]
    forecast_valid, assumed, plan = seen[-1]
    assert (forecast_valid, assumed) == (True, "neutral")
    assert plan.valid is valid
    assert plan.reason == (PlanReason.OK if valid else PlanReason.ACTIONS_UNKNOWN)


def test_frames_of_a_camera_are_acted_on_one_by_one() -> None:
    robot = BrightnessRobot()
    script = [*WEBCAM, *lost(2), *WEBCAM]
    camera = ScriptedCamera(SPEC, script, robot.clock)
    actions = [robot.session.act(frame, FAR).copy() for frame in robot.session.frames(camera)]
    assert camera.closed
    assert len(actions) == len(script)
    assert sources(actions)[WARM_UP : WARM_UP + 5] == ["planned"] * 5
    assert [a.reason for a in actions[WARM_UP + 5 : WARM_UP + 7]] == ["no_frame"] * 2
    assert sources(actions)[-1] == "planned", "what it sent is what was executed"
