"""Record episodes on several cores, survive interruption, publish a whole dataset at once.

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
    resumed: int  # episodes that were there before


def staging_of(target: str | os.PathLike[str]) -> Path:
    """Name the hidden folder in which the episodes of `target` wait until all are there."""
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
        recipe: what to record; the same recipe gives the same files, for any number of workers and
            however often it was interrupted.
        target: folder that must not exist or be empty.
        workers: processes that simulate and encode.
        resume: go on with an interrupted recording of the same recipe.
        progress: called with the number of episodes that have just become available.

    Raises:
        StorageError: `target` is not empty, the disk is full, or there is an interrupted recording
            and `resume` is off.
        UsageError: the environment or policy does not exist, or there is nothing to resume, or it
            was recorded with other settings.
        DataError: the environment failed in an episode.

    Example:
        >>> recipe = Recipe("gym_pusht/PushT-v0", 2, 50, 7, "scripted", 96, 96)
        >>> collect(recipe, "pusht").frames
        100
    """
    final = Path(os.path.abspath(target))
    atomic.refuse_used(final)
    description = describe(recipe)
    with _hold(staging_of(final), recipe, resume) as staging:
        waiting = [i for i in range(recipe.episodes) if not _is_whole(staging, i)]
        progress(recipe.episodes - len(waiting))
        for _ in _record(recipe, staging, waiting, workers, description.fps):
            progress(1)
        with atomic.new_directory(final) as folder:
            frames = dataset.assemble(folder, staging, recipe.episodes, description)
        shutil.rmtree(staging)
    return Collected(final, recipe.episodes, frames, recipe.episodes - len(waiting))


def describe(recipe: episode.RecordingRecipe) -> dataset.DatasetDescription:
    """Open the environment once, so that a wrong call fails before anything is written.

    Raises:
        UsageError: see `open_environment` and `make_policy`; or the frame rate is not known.
    """
    environment = open_environment(recipe.env_id, recipe.size_hw, recipe.steps)
    try:
        environment.reset(0)
        make_policy(recipe.policy, environment, np.random.default_rng(0))
        fps = recipe.fps if recipe.fps is not None else environment.fps
        if fps is None:
            raise UsageError(
                f"environment {recipe.env_id!r} does not say its frame rate; give it with --fps"
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
    """Make or reopen `staging`, alone: two recordings of one target would tear each other."""
    plan = json.dumps(asdict(recipe), indent=2, sort_keys=True) + "\n"
    if resume and not (staging / PLAN).exists():
        raise UsageError(f"nothing to resume: there is no {staging / PLAN}; run without --resume")
    if not resume and staging.exists():
        raise StorageError(
            f"an interrupted recording is in {staging}; "
            "add --resume to go on with it, or remove that folder to start again"
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


def _is_whole(staging: Path, index: int) -> bool:
    return episode.rows_path(staging, index).exists()


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
        for done in as_completed([pool.submit(_attempt, recipe, i, staging, fps) for i in indices]):
            _raise(done.result())
            yield
    except BrokenProcessPool as problem:
        raise DataError(
            f"a process recording {recipe.env_id!r} died, perhaps for lack of memory; "
            "finished episodes are kept: run again with --resume and fewer --workers"
        ) from problem
    finally:
        pool.shutdown(cancel_futures=True)  # episodes in progress end and are kept


def _end_on_interrupt() -> None:
    """Ctrl-C reaches every process of the group: workers just end, the parent explains."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process per core is enough


def _attempt(
    recipe: episode.RecordingRecipe, index: int, staging: Path, fps: int
) -> JetsightError | None:
    """Record one episode; an expected failure is returned, because it may have to travel."""
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
