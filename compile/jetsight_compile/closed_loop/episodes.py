"""Held-out episodes: a start reached by replay, and a goal that the driver reached ticks later.

An episode is a function of the rules and its number. Its random generator is seeded with three
words, `(seed, number, _STREAM)`, those of recordings with two, so no recording can contain it.

Shapes: T ticks, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.tasks.region import Region
from jetsight_compile.closed_loop.tasks.task import EvalTask
from jetsight_train.record.policies import make_policy

_STREAM = 0x6A73_6576  # any number; it keeps these draws apart from those of `jetsight collect`
DRIVER_TICKS = 120


@dataclass(frozen=True)
class Rules:
    """Parameters of episodes; equal rules draw equal episodes.

    Args:
        env_id: Gymnasium id.
        seed: base seed.
        size_hw: camera frame size the model takes.
        warm_up: fewest ticks before the start, so that every history is full by then.
        goal_offset: ticks from start to goal in the undisturbed episode.
        budget: ticks an arm has to reach the goal.
        driver: policy of the undisturbed episode, as `make_policy` takes it.
        driver_ticks: longest length of the undisturbed episode.
        region: keep-out region; None without one.

    Raises:
        UsageError: no start fits into the episode.
    """

    env_id: str
    seed: int
    size_hw: tuple[int, int]
    warm_up: int = 30
    # Goal offset and budget are those of stable-worldmodel's PushT evaluation.
    goal_offset: int = 25
    budget: int = 50
    driver: str = "scripted"
    driver_ticks: int = DRIVER_TICKS
    region: Region | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}, expected 0 or more")
        if self.warm_up + self.goal_offset >= self.driver_ticks:
            raise UsageError(
                f"a model with {self.warm_up} ticks of history and a goal {self.goal_offset} ticks "
                f"ahead does not fit into an episode of {self.driver_ticks}; use a model with a "
                "shorter history"
            )

    def starts(self, ticks: int) -> range:
        """Ticks an arm may start at in an episode of `ticks`."""
        return range(self.warm_up, ticks - self.goal_offset)


@dataclass(frozen=True)
class EvalEpisode:
    """One start and goal; `actions` are the driver's, from reset to goal."""

    number: int
    reset_seed: int
    start: int
    actions: NDArray  # [start + goal_offset, a] float32
    start_state: NDArray  # [s]
    start_bits: bytes  # exact state of the simulator at the start
    goal: Observation
    kind: str = ""  # see `EvalTask.kind`
    state_names: tuple[str, ...] = ()  # of the environment

    @property
    def goal_frame(self) -> NDArray:
        """Camera frame of the goal `[h,w,3]` uint8, or `[C,h,w,3]` of several cameras."""
        return self.goal.frame_hwc_u8

    @property
    def goal_state(self) -> Mapping[str, float]:
        """State of the environment at the goal, by name."""
        return dict(zip(self.state_names, self.goal.state.tolist(), strict=True))


def random_stream(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Random generator of episode `number` for one purpose: 0 for the driver, others for arms."""
    return np.random.default_rng(np.random.SeedSequence([seed, number, _STREAM, purpose + 1]))


def draw_episode(
    environment: Environment, task: EvalTask, rules: Rules, number: int
) -> EvalEpisode | None:
    """Play the driver's episode `number` and choose a start in it.

    Returns:
        The episode; None when it ends too early for a start, or a keep-out region is given and no
        start of it is of interest.

    Raises:
        UsageError: there is no such driver for this environment.
    """
    rng = random_stream(rules.seed, number, 0)
    reset_seed = int(rng.integers(1 << 31))
    played = _play(environment, rules, reset_seed, rng)
    start = _choose_start(played, task, rules, rng)
    if start is None:
        return None
    end, first = start + rules.goal_offset, played.observations[start].state
    goal = played.observations[end]
    return EvalEpisode(
        number=number,
        reset_seed=reset_seed,
        start=start,
        actions=np.stack(played.actions[:end]),
        start_state=first,
        start_bits=played.bits[start],
        goal=goal,
        kind=task.kind(first, goal.state),
        state_names=tuple(environment.state_names),
    )


@dataclass(frozen=True)
class _Played:
    observations: list[Observation]
    bits: list[bytes]
    actions: list[NDArray]


def _play(
    environment: Environment, rules: Rules, reset_seed: int, rng: np.random.Generator
) -> _Played:
    played = _Played([], [], [])
    observation = environment.reset(reset_seed)
    policy = make_policy(rules.driver, environment, rng)
    for _ in range(rules.driver_ticks):
        played.observations.append(observation)
        played.bits.append(environment.exact_state())
        played.actions.append(policy())
        observation, _, over = environment.step(played.actions[-1])
        if over:
            break
    return played


def _choose_start(
    played: _Played, task: EvalTask, rules: Rules, rng: np.random.Generator
) -> int | None:
    """Draw a start with enough ticks around it; with a region, one with the region in the way."""
    region = rules.region
    starts = rules.starts(len(played.observations))
    if not starts:
        return None
    order = rng.permutation(np.arange(starts.start, starts.stop))
    if region is None:
        return int(order[0])
    assert task.region is not None, "a region without columns is refused before"
    clearance = task.region.clearance_of(region)
    states = np.stack([observation.state for observation in played.observations])
    agents = task.region.positions(states)
    for start in map(int, order):
        end = start + rules.goal_offset
        if (region.distance(agents[[start, end]]) < clearance).any():
            continue
        if region.contains(agents[start:end]).any() or region.crosses(agents[start], agents[end]):
            return start
    return None
