"""Recording of episodes on several cores, resumable, published as a whole dataset at once.

Finished episodes are kept in a hidden folder beside the target, `.NAME.collecting`; the target
exists only once the dataset in it is complete.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jetsight.errors import DataError, JetsightError, UsageError
from jetsight.simulators.environment import Environment
from jetsight.storage import atomic
from jetsight_train.record import dataset, episode
from jetsight_train.record.description import (
    CAMERA_KEY,
    DONE_KEY,
    REWARD_KEY,
    DatasetDescription,
)
from jetsight_train.record.policies import make_policy
from jetsight_train.record.pool import each_episode
from jetsight_train.record.staging import hold, rows_path, staging_of


@dataclass(frozen=True)
class Collected:
    """Result of `collect`: the dataset folder and what is in it."""

    path: Path
    episodes: int
    frames: int
    resumed: int  # episodes of an earlier, interrupted recording
    cameras: tuple[str, ...]


def collect(
    recipe: episode.RecordingRecipe,
    target: str | os.PathLike[str],
    *,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int], None] = lambda episodes: None,
) -> Collected:
    """Record `recipe` as a LeRobot v3 dataset at `target`.

    Args:
        recipe: what to record; equal recipes give equal files, for any number of workers and
            interruptions.
        target: folder that must not exist or be empty.
        workers: processes that simulate and encode.
        resume: continue an interrupted recording of the same recipe.
        progress: called with the number of newly recorded episodes.

    Raises:
        StorageError: `target` is not empty, the disk is full, or there is an interrupted recording
            and `resume` is off.
        UsageError: the environment or policy does not exist, or there is nothing to resume, or it
            was recorded with other settings.
        DataError: the environment failed in an episode.

    Example:
        >>> recipe = RecordingRecipe("gym_pusht/PushT-v0", 2, 50, 7, "scripted", 96, 96)
        >>> collect(recipe, "pusht").frames
        100
    """
    final = Path(os.path.abspath(target))
    # First: a target in use must not be found out after all episodes were simulated.
    atomic.refuse_used(final)
    description = describe(recipe)
    plan = json.dumps(asdict(recipe), indent=2, sort_keys=True) + "\n"
    with hold(staging_of(final), plan, resume=resume) as staging:
        missing = [i for i in range(recipe.episodes) if not rows_path(staging, i).exists()]
        attempt = functools.partial(_attempt, recipe, staging=staging, description=description)
        for _ in each_episode(attempt, missing, workers, f"recording {recipe.env_id!r}"):
            progress(1)
        with atomic.new_directory(final) as folder:
            frames = dataset.assemble(folder, staging, range(recipe.episodes), description)
        # After the dataset has its name: a kill in between costs disk space, not episodes.
        shutil.rmtree(staging)
    kept = recipe.episodes - len(missing)
    return Collected(final, recipe.episodes, frames, kept, description.cameras)


def describe(recipe: episode.RecordingRecipe) -> DatasetDescription:
    """Try the environment and the policy once, so that what is unusable fails before any work.

    Raises:
        MissingDependency: the simulator is not installed.
        UsageError: see `Environment.open`, `Environment.probe` and `make_policy`.
    """
    environment = Environment.open(recipe.environment)
    try:
        environment.probe()
        environment.reset(0)
        policy = make_policy(recipe.policy, environment, np.random.default_rng(0))
        environment.step(policy())
    except DataError as problem:
        raise UsageError(str(problem)) from problem
    finally:
        environment.close()
    return DatasetDescription(
        task=f"{recipe.env_id}, {recipe.policy} policy",
        robot_type=recipe.env_id,
        fps=environment.hz,
        size_hw=recipe.size_hw,
        state_names=environment.state_names,
        action_names=environment.action_names,
        cameras=_camera_keys(environment.cameras) if recipe.cameras else (CAMERA_KEY,),
        state_units=environment.state_units,
        action_units=environment.action_units,
        extra=(REWARD_KEY, DONE_KEY, *environment.keep),
    )


def _camera_keys(names: Sequence[str]) -> tuple[str, ...]:
    """Name the features of cameras by their last words where those differ."""
    short = [name.rpartition(".")[2] for name in names]
    chosen = short if len(set(short)) == len(short) else names
    return tuple(f"observation.images.{name}" for name in chosen)


def _attempt(
    recipe: episode.RecordingRecipe, index: int, staging: Path, description: DatasetDescription
) -> JetsightError | None:
    """Record one episode; returns an expected failure, because it may cross processes."""
    try:
        episode.record(recipe, index, staging, description)
    except DataError as problem:
        return DataError(
            f"{problem} (episode {index}; finished episodes are kept: run again with --resume)"
        )
    except JetsightError as problem:
        return problem
    return None
