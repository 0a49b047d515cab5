"""One recorded episode: simulated from its seed, then staged until all are assembled.

An episode is a function of its recipe and its index alone, so a recording that was resumed or
spread over processes equals an uninterrupted one.

Shapes: T ticks, C cameras, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.observations import kept_column
from jetsight.simulators.spec import EnvironmentSpec
from jetsight_train.record import staging
from jetsight_train.record.description import DONE_KEY, REWARD_KEY, DatasetDescription
from jetsight_train.record.policies import make_policy

_LEAST_PX = 16


@dataclass(frozen=True)
class RecordingRecipe:
    """Settings that determine a recording; stored beside unfinished recordings.

    Args:
        env_id: see `EnvironmentSpec`, which also explains the last four.
        episodes: number of episodes.
        steps: longest episode, ticks.
        seed: base seed; episode i uses `(seed, i)`, so other seeds share no episode.
        policy: see `make_policy`.
        height_px: frame height.
        width_px: frame width.
        fps: frames per second of an environment that declares none; None for its own rate.
        cameras: observations to take frames from, or `"render"`.
        action_names: of the action's dimensions.
        action_units: one per action name.
        keep: entries of `info` that become columns.

    Raises:
        UsageError: a number is out of range.
    """

    env_id: str
    episodes: int
    steps: int
    seed: int
    policy: str
    height_px: int
    width_px: int
    fps: float | None = None
    cameras: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("episodes", "steps", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value < least:
                raise UsageError(f"{name} is {value}, expected at least {least}")
        if min(self.size_hw) < _LEAST_PX or any(n % 2 for n in self.size_hw):
            raise UsageError(
                f"frame size {self.width_px}x{self.height_px} cannot be recorded; "
                f"expected even numbers of at least {_LEAST_PX} px, because colour has half the "
                "resolution in H.264"
            )
        _ = self.environment  # refuses what no environment takes

    @property
    def size_hw(self) -> tuple[int, int]:
        """Frame size (height, width)."""
        return self.height_px, self.width_px

    @property
    def environment(self) -> EnvironmentSpec:
        """Requirements on the environment."""
        return EnvironmentSpec(
            self.env_id,
            self.size_hw,
            cameras=self.cameras,
            action_names=self.action_names,
            action_units=self.action_units,
            keep=self.keep,
            hz=self.fps,
            steps=self.steps,
        )


@dataclass(frozen=True)
class RecordedEpisode:
    """Data of one episode; row t holds observation t and the action taken at t."""

    frames_u8: NDArray[np.uint8]  # [T,h,w,3], or [T,C,h,w,3] of several cameras
    states: NDArray[np.float32]  # [T,s]
    actions: NDArray[np.float32]  # [T,a]
    rewards: NDArray[np.float32]  # [T], for the action of the same row
    done: NDArray[np.bool_]  # [T], true on the last row
    kept: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [T], with the same observation


def simulate(recipe: RecordingRecipe, index: int) -> RecordedEpisode:
    """Play episode `index` of `recipe` in a fresh environment."""
    environment = Environment.open(recipe.environment)
    try:
        return _play(environment, recipe, index)
    finally:
        environment.close()


def _play(environment: Environment, recipe: RecordingRecipe, index: int) -> RecordedEpisode:
    seeds = np.random.SeedSequence([recipe.seed, index])
    observation = environment.reset(int(seeds.generate_state(1)[0]))
    policy = make_policy(recipe.policy, environment, np.random.default_rng(seeds.spawn(1)[0]))
    seen, actions, rewards = [], [], []
    for _ in range(recipe.steps):
        seen.append(observation)
        actions.append(policy())
        observation, reward, over = environment.step(actions[-1])
        rewards.append(reward)
        if over:
            break
    done = np.zeros(len(seen), dtype=np.bool_)
    done[-1] = True
    return RecordedEpisode(
        np.stack([each.frame_hwc_u8 for each in seen]),
        np.stack([each.state for each in seen]),
        np.stack(actions),
        np.array(rewards, dtype=np.float32),
        done,
        {name: kept_column(name, [each.kept[name] for each in seen]) for name in environment.keep},
    )


def record(
    recipe: RecordingRecipe, index: int, folder: Path, description: DatasetDescription
) -> None:
    """Simulate episode `index` and write it to the staging `folder`."""
    episode = simulate(recipe, index)
    extra = {REWARD_KEY: episode.rewards, DONE_KEY: episode.done, **episode.kept}
    rows = staging.EpisodeRows(episode.actions, episode.states, extra)
    staging.write_episode(folder, index, rows, episode.frames_u8, description)
