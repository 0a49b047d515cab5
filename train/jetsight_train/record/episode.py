"""One recorded episode: simulated from its seed, then staged until all are assembled.

An episode is a function of its recipe and its index alone, so a recording that was resumed or
spread over processes equals an uninterrupted one.

Shapes: T ticks, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight_train.record import staging
from jetsight_train.record.description import DONE_KEY, REWARD_KEY, DatasetDescription
from jetsight_train.record.environments import PixelEnvironment, open_environment
from jetsight_train.record.policies import make_policy

_LEAST_PX = 16


@dataclass(frozen=True)
class RecordingRecipe:
    """Settings that determine a recording; stored beside unfinished recordings.

    Args:
        env_id: Gymnasium id.
        episodes: number of episodes.
        steps: longest episode, ticks.
        seed: base seed; episode i uses `(seed, i)`, so other seeds share no episode.
        policy: `"scripted"` or `"random"`.
        height_px: frame height.
        width_px: frame width.
        fps: frames per second to write; None for the environment's own rate.

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
    fps: int | None = None

    def __post_init__(self) -> None:
        for name in ("episodes", "steps", "seed", "fps"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}, expected at least {least}")
        if min(self.size_hw) < _LEAST_PX or any(n % 2 for n in self.size_hw):
            raise UsageError(
                f"frame size {self.width_px}x{self.height_px} cannot be recorded; "
                f"expected even numbers of at least {_LEAST_PX} px, because colour has half the "
                "resolution in H.264"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Frame size (height, width)."""
        return self.height_px, self.width_px


@dataclass(frozen=True)
class RecordedEpisode:
    """Data of one episode; row t holds observation t and the action taken at t."""

    frames_u8: NDArray[np.uint8]  # [T,h,w,3]
    states: NDArray[np.float32]  # [T,s]
    actions: NDArray[np.float32]  # [T,a]
    rewards: NDArray[np.float32]  # [T], for the action of the same row
    done: NDArray[np.bool_]  # [T], true on the last row


def simulate(recipe: RecordingRecipe, index: int) -> RecordedEpisode:
    """Play episode `index` of `recipe` in a fresh environment."""
    environment = open_environment(recipe.env_id, recipe.size_hw, recipe.steps)
    try:
        return _play(environment, recipe, index)
    finally:
        environment.close()


def _play(environment: PixelEnvironment, recipe: RecordingRecipe, index: int) -> RecordedEpisode:
    seeds = np.random.SeedSequence([recipe.seed, index])
    observation = environment.reset(int(seeds.generate_state(1)[0]))
    policy = make_policy(recipe.policy, environment, np.random.default_rng(seeds.spawn(1)[0]))
    frames, states, actions, rewards = [], [], [], []
    for _ in range(recipe.steps):
        action = policy()
        frames.append(observation.frame_hwc_u8)
        states.append(observation.state)
        actions.append(action)
        observation, reward, over = environment.step(action)
        rewards.append(reward)
        if over:
            break
    done = np.zeros(len(frames), dtype=np.bool_)
    done[-1] = True
    columns = (np.stack(column) for column in (frames, states, actions))
    return RecordedEpisode(*columns, np.array(rewards, dtype=np.float32), done)


def record(
    recipe: RecordingRecipe, index: int, folder: Path, description: DatasetDescription
) -> None:
    """Simulate episode `index` and write it to the staging `folder`."""
    episode = simulate(recipe, index)
    extra = {REWARD_KEY: episode.rewards, DONE_KEY: episode.done}
    rows = staging.EpisodeRows(episode.actions, episode.states, extra)
    staging.write_episode(folder, index, rows, episode.frames_u8, description)
