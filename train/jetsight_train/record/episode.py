"""One recorded episode: simulated from its seed, kept as `.mp4` and `.npz` until assembly.

An episode is a function of its recipe and its index alone, so a recording that was resumed or
spread over processes equals an uninterrupted one.

Shapes: T ticks, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight.storage import atomic
from jetsight_train.record import dataset_stats, video
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


def video_path(folder: Path, index: int) -> Path:
    """Return the path of the frames of episode `index` before assembly."""
    return folder / f"episode-{index:06d}.mp4"


def rows_path(folder: Path, index: int) -> Path:
    """Return the path of the rows of episode `index`; it exists once the episode is complete."""
    return folder / f"episode-{index:06d}.npz"


def record(recipe: RecordingRecipe, index: int, folder: Path, fps: int) -> None:
    """Simulate episode `index` and write it to `folder`."""
    episode = simulate(recipe, index)
    # The rows are written last: an interruption leaves a complete episode, or none.
    atomic.write_file(video_path(folder, index), video.encode(episode.frames_u8, fps))
    rows = io.BytesIO()
    columns = {name: getattr(episode, name) for name in ("states", "actions", "rewards", "done")}
    # Into memory first, so that the file takes its name in one step.
    np.savez(rows, **columns, histogram=dataset_stats.histogram(episode.frames_u8))
    atomic.write_file(rows_path(folder, index), rows.getvalue())


def load_rows(folder: Path, index: int) -> dict[str, NDArray[Any]]:
    """Load the rows of episode `index` that `record` wrote."""
    with np.load(rows_path(folder, index), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
