"""The deployed arm over fakes: a real session and planner, a scripted model, scripted faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.compile.eval_factory import (
    GRAPH,
    PUSHING,
    SIDE,
    SPEC,
    fake_session,
    pusht,
    short_rules,
)
from helpers.train.gym_factory import needs_pusht

from jetsight.bundle.planner_spec import HazardSpec, HeadSpec
from jetsight.planning.goal import PlanRequest
from jetsight.planning.plan import Plan
from jetsight.simulators.spec import Observation
from jetsight.stream.frames import Frame
from jetsight_compile.closed_loop.agents import AgentView, Deployed, TickClock
from jetsight_compile.closed_loop.config import PlanOptions
from jetsight_compile.closed_loop.episodes import EvalEpisode, draw_episode
from jetsight_compile.closed_loop.rollout import run_episode

USE = PlanOptions(planner=GRAPH, iterations=3, replan_every=2, seed=5)


def episode_of(number: int = 0) -> EvalEpisode:
    state = np.zeros(5, np.float32)
    goal = np.full((SIDE, SIDE, 3), 200, np.uint8)
    actions = np.full((20, 2), 100, np.float32)
    return EvalEpisode(number, 1, 14, actions, state, b"", Observation(goal, state))


def drive(agent: Deployed, ticks: int = 6, number: int = 0) -> np.ndarray:
    """Actions of the agent in front of a grey camera, after a warm-up of 14 ticks."""
    episode, executed, chosen = episode_of(number), None, []
    agent.begin(episode)
    for tick in range(14 + ticks):
        frame = np.full((SIDE, SIDE, 3), 100 + tick % 2, np.uint8)
        if tick < 14:
            agent.watch(AgentView(tick, frame, executed, episode.actions[tick:14]))
            executed = episode.actions[tick]
            continue
        executed = agent.act(AgentView(tick, frame, executed, None))
        chosen.append(executed)
    agent.end()
    return np.stack(chosen)


def test_it_plans_every_block_and_executes_what_was_planned() -> None:
    agent = Deployed(fake_session(), USE)
    actions = drive(agent)
    assert (agent.log.plans, agent.log.valid, agent.log.held) == (3, 3, 0)  # B is 2, 6 ticks
    assert [tick for tick, _ in agent.log.futures] == [14, 16, 18]
    assert agent.log.futures[0][1].shape == (SPEC.horizon, SPEC.latent_size)
    assert len(agent.log.plan_ms) == 3
    assert np.ptp(actions, axis=0).min() > 0
    assert not agent.log.reasons


def test_a_model_with_a_state_is_given_its_own_out_of_the_environments() -> None:
    names = ("block_x", "agent_x", "agent_y")
    session = fake_session(base=replace(SPEC, state_names=("agent_y", "block_x")))
    seen: list[np.ndarray] = []
    step, plan = session._loop.step, session.plan

    def watched(frame: Frame, **facts: Any) -> Any:
        assert frame.state is not None
        seen.append(frame.state.copy())
        return step(frame, **facts)

    goals: list[Any] = []
    session._loop.step = watched  # type: ignore[method-assign]
    session.plan = lambda request: goals.append(request.goal) or plan(request)  # type: ignore
    agent = Deployed(session, USE)
    goal = Observation(np.full((SIDE, SIDE, 3), 200, np.uint8), np.array([7, 8, 9], np.float32))
    actions = np.full((20, 2), 100, np.float32)
    agent.begin(EvalEpisode(0, 1, 14, actions, goal.state, b"", goal, state_names=names))
    executed = None
    for tick in range(16):
        frame = np.full((SIDE, SIDE, 3), 100 + tick % 2, np.uint8)
        state = {"block_x": 1.0, "agent_x": 2.0, "agent_y": float(tick)}
        upcoming = actions[tick:14] if tick < 14 else None
        view = AgentView(tick, frame, executed, upcoming, state)
        executed = actions[tick] if tick < 14 else agent.act(view)
        if tick < 14:
            agent.watch(view)
    agent.end()
    assert [each.tolist() for each in seen[:2]] == [[0.0, 1.0], [1.0, 1.0]]
    assert goals[0].state.tolist() == [9.0, 7.0]
    assert agent.log.valid == agent.log.plans > 0


@pytest.mark.parametrize(("every", "plans"), [(1, 6), (4, 2)])
def test_it_replans_every_n_ticks(every: int, plans: int) -> None:
    agent = Deployed(fake_session(), PlanOptions(GRAPH, 3, replan_every=every))
    drive(agent)
    assert agent.log.plans == plans


@pytest.mark.parametrize(("arrive", "due"), [(5, [5, 4, 3, 2, 1, 1]), (0, [None] * 6)])
def test_the_goal_is_due_ever_sooner(
    arrive: int, due: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, asked = fake_session(), []
    plan = session.plan

    def asking(request: PlanRequest) -> Plan:
        asked.append(request.arrive_ticks)
        return plan(request)

    monkeypatch.setattr(session, "plan", asking)
    drive(Deployed(session, PlanOptions(GRAPH, 3, replan_every=1, arrive=arrive)))
    assert asked == due


def test_equal_seeds_draw_equal_plans_and_others_do_not() -> None:
    agent = Deployed(fake_session(), USE)
    first, again, other = drive(agent), drive(agent), drive(agent, number=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(drive(Deployed(fake_session(), USE)), first)


def test_latents_that_are_not_finite_hold_the_last_action_and_are_counted() -> None:
    blind = {"encode": {"nan_at": range(1, 10_000)}}
    agent = Deployed(fake_session(blind), USE)
    actions = drive(agent)
    np.testing.assert_array_equal(actions, np.full((6, 2), 100, np.float32))
    assert (agent.log.valid, agent.log.held, agent.log.plans) == (0, 6, 6)
    assert sum(agent.log.reasons.values()) == 6


def test_costs_that_are_not_finite_end_as_no_plan() -> None:
    agent = Deployed(fake_session({GRAPH: {"nan_at": range(10_000)}}), USE)
    drive(agent)
    assert agent.log.valid == 0
    assert agent.log.held == 6
    assert set(agent.log.reasons) <= {"all_invalid", "plan_refused"}


def test_one_bad_plan_is_held_over_and_the_next_one_counts() -> None:
    """Runs 0 and 1 warm the engine up; a plan has three iterations."""
    agent = Deployed(fake_session({GRAPH: {"nan_at": range(2, 5)}}), USE)
    actions = drive(agent)
    assert (agent.log.plans, agent.log.valid, agent.log.held) == (4, 3, 1)
    np.testing.assert_array_equal(actions[0], [100.0, 100.0])
    assert not np.array_equal(actions[1], actions[0])


def test_the_constraint_is_heeded_unless_it_is_switched_off() -> None:
    """Every candidate leads to a latent above -1, which the hazard head calls harm."""
    everywhere = HeadSpec(hazards=(HazardSpec("harm", -1.0, 0.05),))
    for constrain, valid in ((True, 0), (False, 3)):
        agent = Deployed(fake_session(heads=everywhere), replace(USE, constrain=constrain))
        drive(agent)
        assert agent.log.valid == valid
        assert ("infeasible" in agent.log.reasons) is constrain


def test_the_session_sees_the_actions_that_were_executed() -> None:
    session = fake_session()
    drive(Deployed(session, USE))
    counts = session.summary()["reasons"]
    assert set(counts) == {"ok", "warming_up"}, "an action or a plan was not reported"


def test_simulated_time_does_not_advance_during_computation() -> None:
    clock = TickClock()
    clock.sleep_ns(5)
    clock.sleep_ns(-3)
    assert clock.now_ns() == clock.now_ns() == 5


@needs_pusht
def test_a_blind_planner_ends_an_episode_as_a_failure_and_not_as_a_crash() -> None:
    agent, rules = Deployed(fake_session({"encode": {"nan_at": range(9999)}}), USE), short_rules()
    with pusht() as environment:
        episode = draw_episode(environment, PUSHING, rules, 0)
        assert episode is not None
        row = run_episode(environment, PUSHING, "bundle", agent, episode, rules).trial
    assert (row.success, row.valid_plans, row.held_ticks) == (False, 0, rules.budget)
    assert sum(row.no_plan_reasons.values()) == row.plans == rules.budget


@needs_pusht
def test_two_arms_may_share_a_session() -> None:
    """As with and without the constraint: each episode of each arm is a stream of its own."""
    session, rules = fake_session(), short_rules()
    with pusht() as environment:
        episode = draw_episode(environment, PUSHING, rules, 0)
        assert episode is not None
        arms = [Deployed(session, USE), Deployed(session, USE)]
        rows = [
            run_episode(environment, PUSHING, "bundle", arm, episode, rules).trial for arm in arms
        ]
    assert rows[0].off == rows[1].off
    assert rows[0].valid_plans == rows[1].valid_plans > 0
