"""Recording of episodes on several cores, resumable, published as a whole dataset at once.

Finished episodes are kept in a hidden folder beside the target, `.NAME.collecting`; the target
exists only once the dataset in it is complete.
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
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jetsight.errors import DataError, JetsightError, StorageError, UsageError, first_line
from jetsight.storage import atomic
from jetsight_train.record import dataset, episode
from jetsight_train.record.environments import open_environment
from jetsight_train.record.policies import make_policy

PLAN = "recording.json"


@dataclass(frozen=True)
class Collected:
    """Result of `collect`: the dataset folder and how much is in it."""

    path: Path
    episodes: int
    frames: int
    resumed: int  # episodes of an earlier, interrupted recording


def staging_of(target: str | os.PathLike[str]) -> Path:
    """Name the hidden folder that keeps the episodes of `target` until all are recorded."""
    final = Path(os.path.abspath(target))
    return final.parent / f".{final.name}.collecting"


def finished(target: str | os.PathLike[str]) -> int:
    """Count the episodes kept from an interrupted recording of `target`."""
    return len(list(staging_of(target).glob("episode-*.npz")))


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
    with _hold(staging_of(final), recipe, resume) as staging:
        missing = [i for i in range(recipe.episodes) if not episode.rows_path(staging, i).exists()]
        for _ in _record(recipe, staging, missing, workers, description.fps):
            progress(1)
        with atomic.new_directory(final) as folder:
            frames = dataset.assemble(folder, staging, recipe.episodes, description)
        # After the dataset has its name: a kill in between costs disk space, not episodes.
        shutil.rmtree(staging)
    return Collected(final, recipe.episodes, frames, recipe.episodes - len(missing))


def describe(recipe: episode.RecordingRecipe) -> dataset.DatasetDescription:
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
        return dataset.DatasetDescription(
            task=f"{recipe.env_id}, {recipe.policy} policy",
            robot_type=recipe.env_id,
            fps=fps,
            size_hw=recipe.size_hw,
            state_names=environment.state_names,
            action_names=environment.action_names,
        )
    finally:
        environment.close()


@contextlib.contextmanager
def _hold(staging: Path, recipe: episode.RecordingRecipe, resume: bool) -> Iterator[Path]:
    """Make or reopen `staging` under a lock, against two recordings of one target."""
    plan = json.dumps(asdict(recipe), indent=2, sort_keys=True) + "\n"
    if resume and not (staging / PLAN).exists():
        raise UsageError(f"nothing to resume: there is no {staging / PLAN}; run without --resume")
    if not resume and staging.exists():
        raise StorageError(
            f"an interrupted recording is in {staging}; "
            "add --resume to continue it, or remove that folder to start again"
        )
    if not resume:
        atomic.write_file(staging / PLAN, plan.encode())
    with _locked(staging):
        if (staging / PLAN).read_text(encoding="utf-8") != plan:
            raise UsageError(
                f"{staging / PLAN} was recorded with other settings; "
                "resume with the same ones, or remove that folder to start again"
            )
        yield staging


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The kernel releases this lock when the process ends, however it ends.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise StorageError(
            f"another process is recording into {folder}; wait for it or choose another target"
        ) from problem
    finally:
        os.close(descriptor)


def _record(
    recipe: episode.RecordingRecipe, staging: Path, indices: list[int], workers: int, fps: int
) -> Iterator[None]:
    """Record the episodes `indices`; yields once after each."""
    if workers <= 1 or len(indices) <= 1:
        for i in indices:
            _raise(_attempt(recipe, i, staging, fps))
            yield
        return
    # spawn: simulators keep threads and display handles that do not survive a fork.
    pool = ProcessPoolExecutor(
        min(workers, len(indices)), multiprocessing.get_context("spawn"), _end_on_interrupt
    )
    try:
        futures = [pool.submit(_attempt, recipe, i, staging, fps) for i in indices]
        for future in as_completed(futures):
            _raise(future.result())
            yield
    except BrokenProcessPool as problem:
        raise DataError(
            f"a process recording {recipe.env_id!r} died, perhaps for lack of memory; "
            "finished episodes are kept: run again with --resume and fewer --workers"
        ) from problem
    finally:
        pool.shutdown(cancel_futures=True)  # episodes in progress end and are kept


def _end_on_interrupt() -> None:
    """Initialise a worker: on Ctrl-C, which reaches every process, only the parent reports."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # a worker per core, so more threads would compete


def _attempt(
    recipe: episode.RecordingRecipe, index: int, staging: Path, fps: int
) -> JetsightError | None:
    """Record one episode; returns an expected failure, because it may cross processes."""
    try:
        episode.record(recipe, index, staging, fps)
    except StorageError as problem:
        return problem
    except Exception as problem:  # an environment is foreign code and may raise anything
        why = f"{type(problem).__name__}: {first_line(problem)}"
        return DataError(
            f"environment {recipe.env_id!r} failed in episode {index} ({why}); finished episodes "
            "are kept: correct the environment and run again with --resume"
        )
    return None


def _raise(problem: JetsightError | None) -> None:
    if problem is not None:
        raise problem
