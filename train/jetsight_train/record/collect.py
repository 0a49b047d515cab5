"""Recording of episodes on several cores, resumable, published as a whole dataset at once.

Finished episodes are kept in a hidden folder beside the target, `.NAME.collecting`; the target
exists only once the dataset in it is complete.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jetsight.errors import DataError, JetsightError, StorageError, UsageError, first_line
from jetsight.storage import atomic
from jetsight_train.record import dataset, episode
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.environments import open_environment
from jetsight_train.record.policies import make_policy
from jetsight_train.record.pool import each_episode
from jetsight_train.record.staging import hold, rows_path, staging_of


@dataclass(frozen=True)
class Collected:
    """Result of `collect`: the dataset folder and how much is in it."""

    path: Path
    episodes: int
    frames: int
    resumed: int  # episodes of an earlier, interrupted recording


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
        progress: called with the number of newly available episodes.

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
        progress(recipe.episodes - len(missing))
        attempt = functools.partial(_attempt, recipe, staging=staging, description=description)
        for _ in each_episode(attempt, missing, workers, f"recording {recipe.env_id!r}"):
            progress(1)
        with atomic.new_directory(final) as folder:
            frames = dataset.assemble(folder, staging, range(recipe.episodes), description)
        # After the dataset has its name: a kill in between costs disk space, not episodes.
        shutil.rmtree(staging)
    return Collected(final, recipe.episodes, frames, recipe.episodes - len(missing))


def describe(recipe: episode.RecordingRecipe) -> DatasetDescription:
    """Open the environment once, so that a bad argument fails before anything is written.

    Raises:
        UsageError: see `open_environment` and `make_policy`; or the frame rate is unknown.
    """
    environment = open_environment(recipe.env_id, recipe.size_hw, recipe.steps)
    try:
        environment.reset(0)
        make_policy(recipe.policy, environment, np.random.default_rng(0))
        fps = recipe.fps if recipe.fps is not None else environment.fps
        if fps is None:
            raise UsageError(
                f"environment {recipe.env_id!r} has no known frame rate; give it with --fps"
            )
        return DatasetDescription(
            task=f"{recipe.env_id}, {recipe.policy} policy",
            robot_type=recipe.env_id,
            fps=fps,
            size_hw=recipe.size_hw,
            state_names=environment.state_names,
            action_names=environment.action_names,
        )
    finally:
        environment.close()


def _attempt(
    recipe: episode.RecordingRecipe, index: int, staging: Path, description: DatasetDescription
) -> JetsightError | None:
    """Record one episode; returns an expected failure, because it may cross processes."""
    try:
        episode.record(recipe, index, staging, description)
    except StorageError as problem:
        return problem
    except Exception as problem:  # an environment is foreign code and may raise anything
        why = f"{type(problem).__name__}: {first_line(problem)}"
        return DataError(
            f"environment {recipe.env_id!r} failed in episode {index} ({why}); finished episodes "
            "are kept: correct the environment and run again with --resume"
        )
    return None
