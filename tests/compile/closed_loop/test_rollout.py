"""Episodes and trials in the real simulator: repeatable, paired, and judged by what happened."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.compile.eval_factory import PUSHING, Steady, pusht, short_rules
from helpers.train.gym_factory import needs_pusht

from jetsight.errors import DataError, UsageError
from jetsight.simulators.registry import PUSHT
from jetsight_compile.closed_loop.agents import baselines
from jetsight_compile.closed_loop.episodes import EvalEpisode, draw_episode, random_stream
from jetsight_compile.closed_loop.rollout import run_episode
from jetsight_compile.closed_loop.tasks.region import Region
from jetsight_train.record.episode import RecordingRecipe, simulate

pytestmark = needs_pusht


def drawn(number: int, **changes: object) -> EvalEpisode:
    with pusht() as environment:
        episode = draw_episode(environment, PUSHING, short_rules(**changes), number)
    assert episode is not None
    return episode


def test_an_episode_is_a_function_of_seed_and_number() -> None:
    one, again, other = drawn(4), drawn(4), drawn(5)
    assert one.start_bits == again.start_bits
    np.testing.assert_array_equal(one.actions, again.actions)
    np.testing.assert_array_equal(one.goal_frame, again.goal_frame)
    assert one.start_bits != other.start_bits
    assert drawn(4, seed=8).start_bits != one.start_bits


def test_no_recording_holds_an_episode_of_the_evaluation() -> None:
    """The same seed and number mean something else to `jetsight collect`."""
    episode = drawn(4)
    recorded = simulate(RecordingRecipe(PUSHT, 5, 1, 3, "scripted", 16, 16), 4)
    assert not np.allclose(recorded.actions[0], episode.actions[0])
    streams = [random_stream(3, 4, purpose).random() for purpose in range(3)]
    assert len(set(streams)) == 3


def test_the_goal_is_what_the_driver_saw_later() -> None:
    episode, rules = drawn(1), short_rules()
    assert episode.start in rules.starts(rules.driver_ticks)
    assert len(episode.actions) == episode.start + rules.goal_offset
    with pusht() as environment:
        environment.reset(episode.reset_seed)
        for action in episode.actions:
            seen, _, _ = environment.step(action)
    np.testing.assert_array_equal(seen.frame_hwc_u8, episode.goal_frame)
    np.testing.assert_array_equal(seen.state, episode.goal.state)


def test_every_arm_starts_from_the_same_state_and_replay_always_arrives() -> None:
    rules = short_rules()
    with pusht() as environment:
        arms = baselines(environment.action_low, environment.action_high, rules.seed)
        for number in range(4):
            episode = draw_episode(environment, PUSHING, rules, number)
            assert episode is not None
            rows = [
                run_episode(environment, PUSHING, name, arms[name], episode, rules).trial
                for name in arms
            ]
            assert len({row.start_sha256 for row in rows}) == 1
            replay = next(row for row in rows if row.arm == "replay")
            assert replay.also["joint"]
            assert replay.ticks <= rules.goal_offset
            if replay.ticks == rules.goal_offset:
                assert set(replay.off.values()) == {0.0}


def test_standing_still_reaches_no_goal_that_lies_away() -> None:
    rules = short_rules(driver_ticks=50, goal_offset=25, budget=30)
    with pusht() as environment:
        hold = baselines(environment.action_low, environment.action_high, 0)["no-op"]
        episodes = [draw_episode(environment, PUSHING, rules, number) for number in range(3)]
        rows = [
            run_episode(environment, PUSHING, "no-op", hold, e, rules).trial
            for e in episodes
            if e is not None
        ]
    assert not any(row.success for row in rows)
    assert {row.ticks for row in rows} == {30}


def test_a_pilot_watches_the_warm_up_and_acts_after_it() -> None:
    episode, rules, agent = drawn(2), short_rules(), Steady()
    with pusht() as environment:
        film = run_episode(environment, PUSHING, "steady", agent, episode, rules)
    ticks = range(episode.start + film.trial.ticks)
    assert agent.seen == [(tick, tick >= episode.start) for tick in ticks]
    assert agent.ended
    assert len(film.frames_u8) == len(film.judgements) == film.trial.ticks + 1


def test_a_simulator_that_does_not_repeat_itself_is_no_ground_for_comparison() -> None:
    episode, rules = drawn(2), short_rules()
    spoiled = EvalEpisode(**{**vars(episode), "reset_seed": episode.reset_seed + 1})
    with pusht() as environment, pytest.raises(DataError, match="not repeatable: episode 2"):
        run_episode(environment, PUSHING, "steady", Steady(), spoiled, rules)


def test_time_inside_a_region_is_counted_per_tick() -> None:
    rules, episode = short_rules(), drawn(2)
    everywhere = short_rules(region=Region(256.0, 256.0, 800.0))
    nowhere = short_rules(region=Region(-900.0, 0.0, 10.0))
    with pusht() as environment:
        rows = [
            run_episode(environment, PUSHING, "steady", Steady(), episode, each).trial
            for each in (rules, everywhere, nowhere)
        ]
    assert [row.inside_ticks for row in rows] == [0, rows[1].ticks, 0]


def test_with_a_region_starts_are_outside_and_the_way_leads_through() -> None:
    region = Region(256.0, 256.0, 70.0)
    rules = short_rules(region=region, driver_ticks=70, goal_offset=25)
    with pusht() as environment:
        drawn_ones = [draw_episode(environment, PUSHING, rules, number) for number in range(3)]
    chosen = [episode for episode in drawn_ones if episode is not None]
    assert chosen
    for episode in chosen:
        ends = np.stack([episode.start_state[:2], episode.goal.state[:2]])
        assert (region.distance(ends) >= 20.0).all()
    far = short_rules(region=Region(-900.0, 0.0, 10.0))
    with pusht() as environment:
        assert draw_episode(environment, PUSHING, far, 0) is None


def test_a_history_that_fills_the_episode_leaves_no_start() -> None:
    with pytest.raises(UsageError, match="shorter history"):
        short_rules(warm_up=24)
    with pytest.raises(UsageError, match="--seed is -1"):
        short_rules(seed=-1)
