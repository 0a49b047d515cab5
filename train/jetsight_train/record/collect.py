"""`collect`: record episodes on several cores, survive interruption, publish a dataset at once.

Finished episodes wait in a hidden folder beside the target, `.NAME.collecting`; the target's own
name appears only when the dataset below it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jetsight import atomic
from jetsight.errors import DataError, JetsightError, StorageError, UsageError
from jetsight_train.record import dataset, episode
from jetsight_train.record.environments import open_environment
from jetsight_train.record.policies import make_policy

PLAN = "recording.json"


@dataclass(frozen=True)
class Collected:
    """What `collect` made: the dataset folder and how much is in it."""

    path: Path
    episodes: int
    frames: int
    resumed: int  # episodes that were there before


def staging_of(target: Path) -> Path:
    """The hidden folder in which the episodes of `target` wait until all are there."""
    return target.parent / f".{target.name}.collecting"


def collect(
    recipe: episode.Recipe,
    target: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
) -> Collected:
    """Record `recipe` as a LeRobot v3 dataset at `target`.

    Args:
        recipe: what to record; the same recipe gives the same dataset, whatever the workers.
        target: folder that must not exist or be empty.
        workers: processes that simulate and encode.
        resume: go on with an interrupted recording of the same recipe.
        progress: called after each episode with its number of frames.

    Raises:
        StorageError: `target` is not empty, or there is an interrupted recording and `resume` is
            off.
        UsageError: there is nothing to resume, or it was made with other settings.
        DataError: an episode could not be recorded.
    """
    target = Path(os.path.abspath(target))
    atomic.refuse_used(target)
    recipe, description = _inspect(recipe)
    staging = staging_of(target)
    with _hold(staging, recipe, resume):
        waiting = [i for i in range(recipe.episodes) if not _is_whole(staging, i)]
        resumed = recipe.episodes - len(waiting)
        for frames in _record_all(recipe, staging, waiting, workers):
            progress(frames)
        with atomic.new_directory(target) as folder:
            dataset.assemble(folder, staging, recipe.episodes, description)
            info = json.loads((folder / "meta/info.json").read_text(encoding="utf-8"))
        shutil.rmtree(staging)
    return Collected(target, recipe.episodes, info["total_frames"], resumed)


def _inspect(recipe: episode.Recipe) -> tuple[episode.Recipe, dataset.Description]:
    """Open the environment once, so that a wrong call fails before anything is written."""
    import numpy as np

    environment = open_environment(recipe.env_id, recipe.size_hw, recipe.steps)
    try:
        make_policy(recipe.policy, environment, np.random.default_rng(0))
        fps = recipe.fps if recipe.fps is not None else environment.fps
        description = dataset.Description(
            task=f"{recipe.env_id}, {recipe.policy} policy",
            robot_type=recipe.env_id,
            fps=fps,
            size_hw=recipe.size_hw,
            state_names=environment.state_names,
            action_names=environment.action_names,
        )
    finally:
        environment.close()
    return replace(recipe, fps=fps), description


@contextlib.contextmanager
def _hold(staging: Path, recipe: episode.Recipe, resume: bool) -> Iterator[None]:
    """Make or reopen `staging`, alone: two recordings of one target would tear each other."""
    plan = json.dumps(asdict(recipe), indent=2, sort_keys=True) + "\n"
    if staging.exists() and not resume:
        raise StorageError(
            f"an interrupted recording is in {staging}; "
            "add --resume to go on with it, or remove that folder to start again"
        )
    if resume and not (staging / PLAN).exists():
        raise UsageError(f"nothing to resume: there is no {staging / PLAN}; run without --resume")
    if resume and (staging / PLAN).read_text(encoding="utf-8") != plan:
        raise UsageError(
            f"{staging / PLAN} was recorded with other settings; "
            "resume with the same ones, or remove that folder to start again"
        )
    staging.mkdir(parents=True, exist_ok=True)
    with open(staging / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise StorageError(
                f"another process is recording into {staging}; wait for it or choose another target"
            ) from problem
        atomic.write_file(staging / PLAN, plan.encode())
        yield


def _is_whole(staging: Path, index: int) -> bool:
    return episode.rows_path(staging, index).exists()


def _record_all(
    recipe: episode.Recipe, staging: Path, indices: list[int], workers: int
) -> Iterator[int]:
    """Record the episodes `indices`, yielding the frames of each as it is finished."""
    if workers <= 1 or len(indices) <= 1:
        yield from (episode.record(recipe, i, staging) for i in indices)
        return
    jobs = [(recipe, i, staging) for i in indices]
    # spawn: simulators keep threads and display handles that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(indices)), initializer=_quiet_worker) as pool:
        for frames in pool.imap_unordered(_record_job, jobs):
            if isinstance(frames, str):
                raise DataError(frames)
            yield frames


def _quiet_worker() -> None:
    """Ctrl-C reaches the whole process group; only the parent answers it, by ending the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _record_job(job: tuple[episode.Recipe, int, Path]) -> Any:
    recipe, index, staging = job
    try:
        return episode.record(recipe, index, staging)
    except JetsightError as problem:
        return f"episode {index} could not be recorded: {problem}"
