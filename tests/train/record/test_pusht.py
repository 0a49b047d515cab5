"""Scripted driver: it moves the block from every side, and drives around it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.train.gym_factory import needs_pusht
from hypothesis import given, settings
from hypothesis import strategies as st

from jetsight.simulators.environment import Environment
from jetsight.simulators.registry import PUSHT
from jetsight.simulators.spec import EnvironmentSpec
from jetsight_train.record.episode import RecordingRecipe, simulate
from jetsight_train.record.policies import SmoothRandom
from jetsight_train.record.pusht import (
    CENTRE_LOCAL,
    CLEARANCE_PX,
    OUTLINE_LOCAL,
    PushTDriver,
    Scene,
    distance_to_outline,
    nearest_on_outline,
    shortest_way,
)

EPISODES, STEPS = 4, 100
MOVES_PX = 0.5


def states(policy: str) -> np.ndarray:
    """Recorded states [episode, step, 5]."""
    recipe = RecordingRecipe(PUSHT, EPISODES, STEPS, 3, policy, height_px=16, width_px=16)
    return np.stack([simulate(recipe, i).states for i in range(EPISODES)])


@pytest.fixture(scope="module")
def scripted() -> np.ndarray:
    return states("scripted")


def moving(recorded: np.ndarray) -> np.ndarray:
    """Return the mask of steps in which the block moved [episode, step - 1]."""
    return np.linalg.norm(np.diff(recorded[..., 2:4], axis=1), axis=-1) > MOVES_PX


def leg_gap(start: np.ndarray, end: np.ndarray, scene: Scene) -> float:
    """Return the least distance of the block from the line from `start` to `end`."""
    along = np.linspace(0.0, 1.0, 400)[:, None]
    return float(distance_to_outline(start + along * (end - start), scene.outline).min())


def sides(recorded: np.ndarray) -> set[int]:
    """Return the sectors, of eight around the block in its own frame, it was moved from."""
    agent, block, angle = recorded[:, :-1, :2], recorded[:, :-1, 2:4], recorded[:, :-1, 4]
    rel, c, s = agent - block, np.cos(angle), np.sin(angle)
    local = np.stack([c * rel[..., 0] + s * rel[..., 1], c * rel[..., 1] - s * rel[..., 0]], -1)
    local = local - CENTRE_LOCAL
    sector = np.floor((np.arctan2(local[..., 1], local[..., 0]) + np.pi) / (np.pi / 4)).astype(int)
    return set((sector[moving(recorded)] % 8).tolist())


@needs_pusht
def test_block_moves_and_far_more_than_by_chance(scripted):
    share = moving(scripted).mean()
    assert share >= 0.25
    assert moving(scripted).mean(axis=1).min() >= 0.1  # no episode is idle
    assert moving(states("random")).mean() < share / 2


@needs_pusht
def test_block_is_pushed_from_most_sides(scripted):
    assert len(sides(scripted)) >= 6
    assert len(sides(scripted[:1, :25])) < 6  # the measure can fail: one push has one side


@needs_pusht
def test_actions_stay_in_range_and_are_smooth():
    recipe = RecordingRecipe(PUSHT, 1, STEPS, 3, "scripted", height_px=16, width_px=16)
    actions = simulate(recipe, 0).actions
    assert actions.min() >= 0
    assert actions.max() <= 512
    jumps = np.linalg.norm(np.diff(actions, axis=0), axis=1)
    shuffled = np.random.default_rng(0).permutation(actions)
    assert np.median(jumps) < 40
    assert np.median(np.linalg.norm(np.diff(shuffled, axis=0), axis=1)) > 2 * np.median(jumps)


def test_an_episode_is_a_function_of_its_seed():
    scene = Scene(np.array([60.0, 60.0]), np.array([250.0, 250.0]), 0.4)

    def drive(seed: int) -> np.ndarray:
        driver = PushTDriver(np.random.default_rng(seed))
        return np.stack([driver.act(scene) for _ in range(10)])

    assert np.array_equal(drive(5), drive(5))
    assert not np.array_equal(drive(5), drive(6))


@needs_pusht
def test_success_does_not_end_an_episode():
    environment = Environment.open(EnvironmentSpec(PUSHT, (16, 16), steps=5))
    environment.reset(0)
    world = environment._env.unwrapped
    world.agent.position = (20.0, 20.0)
    world.block.angle = np.pi / 4  # turns about the centre of mass, so it comes first
    world.block.position = (256.0, 256.0)
    _, reward, over = environment.step(np.array([20.0, 20.0], np.float32))
    environment.close()
    assert reward == pytest.approx(1.0)  # the block is in its goal ...
    assert not over  # ... and the physics goes on


def test_way_is_straight_past_nothing_and_bent_around_the_block():
    scene = Scene(np.zeros(2), np.array([256.0, 200.0]), 0.0)
    start, goal = np.array([80.0, 250.0]), np.array([430.0, 250.0])
    assert leg_gap(start, goal, scene) < CLEARANCE_PX
    first = shortest_way(start, goal, scene)
    assert leg_gap(start, first, scene) > CLEARANCE_PX - 1
    aside = np.array([80.0, 480.0])
    assert np.array_equal(shortest_way(start, aside, scene), aside)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(30, 480)] * 4),
    st.tuples(st.floats(150, 360), st.floats(150, 360), st.floats(-3.2, 3.2)),
)
def test_first_leg_never_touches_the_block(ends, pose):
    scene = Scene(np.zeros(2), np.array(pose[:2]), pose[2])
    start, goal = np.array(ends[:2]), np.array(ends[2:])
    gaps = distance_to_outline(np.stack([start, goal]), scene.outline)
    if gaps.min() <= CLEARANCE_PX + 1:
        return
    first = shortest_way(start, goal, scene)
    # The way is judged at 16 points; between two of them the gap can shrink by half their spacing.
    shrink = np.linalg.norm(first - start) / 15 / 2
    assert leg_gap(start, first, scene) > CLEARANCE_PX - shrink or np.array_equal(first, goal)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.floats(-200, 200), st.floats(-200, 200)))
def test_both_distances_to_the_outline_agree_and_bound(point):
    at = np.array(point)
    foot, gap = nearest_on_outline(at, OUTLINE_LOCAL)
    assert distance_to_outline(at[None], OUTLINE_LOCAL)[0] == pytest.approx(gap, abs=1e-9)
    assert np.linalg.norm(at - foot) == pytest.approx(gap, abs=1e-9)
    assert gap <= np.linalg.norm(OUTLINE_LOCAL - at, axis=1).min() + 1e-9


def test_smooth_random_covers_the_box_and_moves_slowly():
    low, high = np.array([0.0, -np.inf], np.float32), np.array([512.0, np.inf], np.float32)
    policy = SmoothRandom(low, high, np.random.default_rng(1))
    walk = np.stack([policy() for _ in range(2000)])
    assert walk[:, 0].min() >= 0
    assert walk[:, 0].max() <= 512
    assert np.abs(walk[:, 1]).max() <= 1  # an unbounded side counts as +-1
    assert np.ptp(walk[:, 0]) > 450
    lag = np.corrcoef(walk[:-1, 0], walk[1:, 0])[0, 1]
    assert lag > 0.8
