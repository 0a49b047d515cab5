"""Held-out episodes: a start state reached by replay, and a goal the driver reached 25 ticks later.

An episode is a function of the rules and its number. Its randomness comes from three words,
`(seed, number, _STREAM)`, while recordings use two, so no recording can hold it whatever its seed.

Shapes: T ticks, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import DataError, UsageError
from jetsight_compile.closed_loop.task import PushingState, Region
from jetsight_train.record.environments import Observation, PixelEnvironment, PushT
from jetsight_train.record.policies import make_policy

_STREAM = 0x6A73_6576  # any number; it keeps these draws apart from those of `jetsight collect`


@dataclass(frozen=True)
class Rules:
    """How episodes are drawn and judged; equal rules draw equal episodes.

    Args:
        env_id: Gymnasium id.
        seed: base seed.
        size_hw: camera frame size the model takes.
        warm_up: fewest ticks before the start, so that every history is full by then.
        goal_offset: ticks from start to goal in the undisturbed episode.
        budget: ticks an arm has to reach the goal.
        driver_ticks: length of the undisturbed episode.
        region: keep-out region; None without one.
        clearance_px: start and goal are at least this far outside the region, so that no arm
            violates it only because it could not brake.

    Raises:
        UsageError: no start fits into the episode.
    """

    env_id: str
    seed: int
    size_hw: tuple[int, int]
    warm_up: int = 30
    goal_offset: int = 25
    budget: int = 50
    driver_ticks: int = 120
    region: Region | None = None
    clearance_px: float = 20.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}, expected 0 or more")
        if self.warm_up + self.goal_offset >= self.driver_ticks:
            raise UsageError(
                f"a model with {self.warm_up} ticks of history and a goal {self.goal_offset} ticks "
                f"ahead does not fit into an episode of {self.driver_ticks}; use a model with a "
                "shorter history"
            )

    @property
    def starts(self) -> range:
        """Ticks an arm may start at."""
        return range(self.warm_up, self.driver_ticks - self.goal_offset)


@dataclass(frozen=True)
class EvalEpisode:
    """One start and goal; `actions` are those the driver really took, from reset to goal."""

    number: int
    reset_seed: int
    start: int
    actions: NDArray  # [start + goal_offset, a] float32
    start_state: NDArray  # [s]
    start_bits: bytes  # everything the simulator goes on from, exactly
    goal_state: NDArray  # [s]
    goal_frame: NDArray  # [h,w,3] uint8
    moves_block: bool


def random_stream(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Randomness of episode `number` for one purpose; 0 is the driver, arms take other numbers."""
    return np.random.default_rng(np.random.SeedSequence([seed, number, _STREAM, purpose + 1]))


def exact_bits(environment: PixelEnvironment, observation: Observation) -> bytes:
    """What an episode must share in every arm: the whole physics if known, else the state."""
    if isinstance(environment, PushT):
        return environment.physics().tobytes()
    return observation.state.tobytes()


def draw_episode(environment: PixelEnvironment, rules: Rules, number: int) -> EvalEpisode | None:
    """Play the driver's episode `number` and choose a start in it.

    Returns:
        The episode; None when a keep-out region is given and no start of it is of interest.

    Raises:
        UsageError: there is no driver for this environment, or its state is no pushing task.
        DataError: the environment ended the episode early.
    """
    task = PushingState(environment.state_names, rules.env_id)
    rng = random_stream(rules.seed, number, 0)
    reset_seed = int(rng.integers(1 << 31))
    played = _play(environment, rules, reset_seed, rng)
    start = _choose_start(played, task, rules, rng)
    if start is None:
        return None
    goal = played.seen[start + rules.goal_offset]
    first = played.seen[start].state
    return EvalEpisode(
        number,
        reset_seed,
        start,
        np.stack(played.actions[: start + rules.goal_offset]),
        first,
        played.bits[start],
        goal.state,
        goal.frame_hwc_u8,
        task.moves_block(first, goal.state),
    )


@dataclass(frozen=True)
class _Played:
    seen: list[Observation]
    bits: list[bytes]
    actions: list[NDArray]


def _play(
    environment: PixelEnvironment, rules: Rules, reset_seed: int, rng: np.random.Generator
) -> _Played:
    played = _Played([], [], [])
    observation = environment.reset(reset_seed)
    policy = make_policy("scripted", environment, rng)
    for tick in range(rules.driver_ticks):
        played.seen.append(observation)
        played.bits.append(exact_bits(environment, observation))
        played.actions.append(policy())
        observation, _, over = environment.step(played.actions[-1])
        if over:
            raise DataError(
                f"environment {rules.env_id!r} ended an episode after {tick + 1} ticks, but "
                f"{rules.driver_ticks} are needed; use an environment without an early end"
            )
    return played


def _choose_start(
    played: _Played, task: PushingState, rules: Rules, rng: np.random.Generator
) -> int | None:
    """A random tick with enough before and after it; with a region, one where it matters."""
    region = rules.region
    order = rng.permutation(np.arange(rules.starts.start, rules.starts.stop))
    if region is None:
        return int(order[0])
    agents = task.agent(np.stack([observation.state for observation in played.seen]))
    for start in map(int, order):
        end = start + rules.goal_offset
        if (region.distance(agents[[start, end]]) < rules.clearance_px).any():
            continue
        if region.contains(agents[start:end]).any() or region.crosses(agents[start], agents[end]):
            return start
    return None
