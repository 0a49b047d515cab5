"""Runner of an evaluation: episodes shared by processes, rows in a fixed order."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from jetsight.errors import DataError, JetsightError
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.lab import Artefacts, Lab, open_lab
from jetsight_compile.closed_loop.results import FORMAT, VERSION, EvalResults, summarize
from jetsight_compile.closed_loop.rollout import EpisodeResult, EpisodeTrace
from jetsight_compile.closed_loop.statistics import check_scipy
from jetsight_compile.closed_loop.tasks.region import Region
from jetsight_compile.closed_loop.tasks.task import EvalTask
from jetsight_compile.pipeline.environment import machine_spec, versions

# Libraries whose version can change the rows.
_SIMULATORS = ("gymnasium", "gym-pusht", "pymunk", "scipy")
_MOST_TRIED = 20  # episodes tried for each one that is needed
Progress = Callable[[Sequence[EpisodeResult]], None]


@dataclass(frozen=True)
class Evaluated:
    """Results, and pictures of the first episodes, one list of arms per episode."""

    results: EvalResults
    films: list[list[EpisodeTrace]]
    task: EvalTask
    region: Region | None


def evaluate(settings: EvalConfig, progress: Progress = lambda rows: None) -> Evaluated:
    """Run every arm on every episode.

    Args:
        settings: equal settings give equal rows with any number of workers, unless plans have a
            deadline.
        progress: called with the rows of each episode, in order.

    Raises:
        JetsightError: as `open_lab`.
        DataError: the simulator is not repeatable, or too few episodes can be used.
    """
    check_scipy()
    with open_lab(settings) as lab:
        artefacts = lab.artefacts
        # Also opened for worker processes: it refuses bad settings before the first one starts.
        if settings.workers == 1:
            return _results(settings, artefacts, run_all(_Here(lab), settings, progress))
    with _Pool(settings) as pool:
        return _results(settings, artefacts, run_all(pool, settings, progress))


class EpisodeRunner(Protocol):
    """Executor of episodes."""

    def submit(self, number: int) -> Callable[[], list[EpisodeTrace]]:
        """Schedule episode `number`; the returned function waits for its films."""
        ...


def run_all(
    runner: EpisodeRunner, settings: EvalConfig, progress: Progress
) -> list[list[EpisodeTrace]]:
    """Collect the films of the first usable episodes, in the order of their numbers.

    Raises:
        DataError: too few episodes are usable.
    """
    collected: list[list[EpisodeTrace]] = []
    waiting: deque[Callable[[], list[EpisodeTrace]]] = deque()
    number, most = 0, settings.episodes * _MOST_TRIED
    while len(collected) < settings.episodes:
        while len(collected) + len(waiting) < settings.episodes and number < most:
            waiting.append(runner.submit(number))
            number += 1
        if not waiting:
            raise _too_few(len(collected), most, settings)
        # In the order of submission, so that the rows do not depend on the speed of a worker.
        films = waiting.popleft()()
        if films:
            collected.append(
                films if len(collected) < settings.films else [_bare(f) for f in films]
            )
            progress([film.trial for film in films])
    return collected


def _too_few(usable: int, tried: int, settings: EvalConfig) -> DataError:
    if settings.keep_out:
        return DataError(
            f"only {usable} of {tried} episodes have the region in their way, expected "
            f"{settings.episodes}; choose a larger or more central --region"
        )
    return DataError(
        f"environment {settings.env_id!r} ends its episodes early: only {usable} of {tried} reach "
        f"a start and a goal {settings.goal_ticks} ticks later, expected {settings.episodes}; give "
        "a smaller --goal-ticks, or a --driver whose episodes last longer"
    )


def _bare(film: EpisodeTrace) -> EpisodeTrace:
    """Drop the pictures of a film that is not published."""
    nothing, judged = film.frames_u8[:0], film.judgements
    return EpisodeTrace(film.trial, nothing, nothing, judged, {}, {})


class _Here:
    """Runs episodes in this process, when the result is read."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def submit(self, number: int) -> Callable[[], list[EpisodeTrace]]:
        return functools.partial(self._lab.run, number)


class _Pool:
    """Runs episodes in worker processes, each with its own simulator and engines."""

    def __init__(self, settings: EvalConfig) -> None:
        self._settings = settings
        # spawn: simulators keep threads and display handles that do not survive a fork.
        self._pool = ProcessPoolExecutor(
            min(settings.workers, settings.episodes),
            multiprocessing.get_context("spawn"),
            _begin_worker,
            (settings.threads,),
        )

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, number: int) -> Callable[[], list[EpisodeTrace]]:
        future = self._pool.submit(_run_one, self._settings, number)

        def wait() -> list[EpisodeTrace]:
            try:
                done = future.result()
            except BrokenProcessPool as problem:
                raise DataError(
                    "a process of the evaluation died, perhaps for lack of memory; "
                    "use fewer --workers"
                ) from problem
            if isinstance(done, JetsightError):
                raise done
            return done

        return wait


def _begin_worker(threads: int) -> None:
    """Let workers end on Ctrl-C, which every process of the group gets; the parent reports it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = str(threads)


# One lab per worker process: opening loads the bundle and its engines.
@functools.lru_cache(maxsize=1)
def _own_lab(settings: EvalConfig) -> Lab:
    return open_lab(settings)


def _run_one(settings: EvalConfig, number: int) -> list[EpisodeTrace] | JetsightError:
    """Run one episode in a worker; return an expected error, which the parent raises."""
    try:
        films = _own_lab(settings).run(number)
    except JetsightError as problem:
        return problem
    return films if number < settings.films * _MOST_TRIED else [_bare(film) for film in films]


def _results(
    settings: EvalConfig, artefacts: Artefacts, films: list[list[EpisodeTrace]]
) -> Evaluated:
    rows = tuple(film.trial for episode in films for film in episode)
    region, facts = artefacts.rules.region, asdict(artefacts.rules)
    task = artefacts.task
    assert task is not None, "a lab without a task runs no evaluation"
    del facts["env_id"], facts["seed"]
    facts["region"] = None if region is None else [region.x, region.y, region.radius]
    facts["task"] = task_facts(task, region)
    results = EvalResults(
        format=FORMAT,
        version=VERSION,
        settings={**settings.facts(), **facts},
        versions={**versions(), **versions(_SIMULATORS)},
        machine=machine_spec(),
        bundle=artefacts.bundle,
        against=artefacts.against,
        summary=summarize(rows, seed=settings.seed, region=region is not None, kinds=task.kinds),
        rows=rows,
    )
    return Evaluated(results, films[: settings.films], task, region)


def task_facts(task: EvalTask, region: Region | None) -> dict[str, Any]:
    """Describe a task for the results."""
    return {
        "name": task.name,
        "criterion": task.criterion,
        "measures": [[measure.name, measure.unit] for measure in task.measures],
        "also": list(task.also),
        "kinds": list(task.kinds),
        "region_columns": list(task.region.columns) if region and task.region else None,
    }
