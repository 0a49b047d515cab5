"""An evaluation from start to finish: episodes shared by processes, rows in a fixed order."""

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
from importlib import metadata
from typing import Protocol

from jetsight.errors import DataError, JetsightError
from jetsight_compile.closed_loop.config import Settings
from jetsight_compile.closed_loop.lab import Artefacts, Lab, open_lab
from jetsight_compile.closed_loop.results import FORMAT, VERSION, Results, summarize
from jetsight_compile.closed_loop.rollout import Film, Trial
from jetsight_compile.closed_loop.statistics import check_scipy
from jetsight_compile.closed_loop.task import Region
from jetsight_compile.pipeline.environment import machine_facts, versions

_SIMULATORS = ("gymnasium", "gym-pusht", "pymunk", "scipy")
_MOST_TRIED = 20  # episodes looked at for each that a keep-out run needs
Progress = Callable[[Sequence[Trial]], None]


@dataclass(frozen=True)
class Evaluated:
    """Results, and pictures of the first episodes, one list of arms per episode."""

    results: Results
    films: list[list[Film]]
    region: Region | None


def evaluate(settings: Settings, progress: Progress = lambda rows: None) -> Evaluated:
    """Run every arm on every episode.

    Args:
        settings: what to do; equal ones give equal rows whatever the number of workers, unless
            plans have a deadline.
        progress: told the rows of each episode, in order.

    Raises:
        JetsightError: as `open_lab`.
        DataError: the simulator is not repeatable, or too few episodes have the region in the way.
    """
    check_scipy()
    with open_lab(settings) as lab:
        artefacts = lab.artefacts
        if settings.workers == 1:
            return _results(settings, artefacts, run_all(_Here(lab), settings, progress))
    with _Pool(settings) as pool:
        return _results(settings, artefacts, run_all(pool, settings, progress))


class Runner(Protocol):
    """Something that runs episodes."""

    def submit(self, number: int) -> Callable[[], list[Film]]:
        """Begin episode `number`, or remember it; the function returned waits for its films."""
        ...


def run_all(runner: Runner, settings: Settings, progress: Progress) -> list[list[Film]]:
    """Films of the first episodes that are of interest, in the order of their numbers.

    Raises:
        DataError: there are too few of them.
    """
    found: list[list[Film]] = []
    waiting: deque[Callable[[], list[Film]]] = deque()
    number, most = 0, settings.episodes * (_MOST_TRIED if settings.keep_out else 1)
    while len(found) < settings.episodes:
        while len(found) + len(waiting) < settings.episodes and number < most:
            waiting.append(runner.submit(number))
            number += 1
        if not waiting:
            raise DataError(
                f"only {len(found)} of {most} episodes have the region in their way, "
                f"{settings.episodes} were asked for; choose a larger or more central --region"
            )
        films = waiting.popleft()()
        if films:
            found.append(films if len(found) < settings.films else [_bare(f) for f in films])
            progress([film.trial for film in films])
    return found


def _bare(film: Film) -> Film:
    """A film without its pictures, which nobody will look at."""
    return Film(film.trial, film.frames_u8[:0], film.goal_u8[:0], film.misses, {}, {})


class _Here:
    """Runs in this process, when it is asked for the result."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def submit(self, number: int) -> Callable[[], list[Film]]:
        return functools.partial(self._lab.run, number)


class _Pool:
    """Runs in processes of their own, each with its own simulator and engines."""

    def __init__(self, settings: Settings) -> None:
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

    def submit(self, number: int) -> Callable[[], list[Film]]:
        future = self._pool.submit(_run_one, self._settings, number)

        def wait() -> list[Film]:
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
    """Ctrl-C reaches every process of the group: workers just end, the parent explains."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@functools.lru_cache(maxsize=1)
def _own_lab(settings: Settings) -> Lab:
    return open_lab(settings)


def _run_one(settings: Settings, number: int) -> list[Film] | JetsightError:
    """One episode in a worker; an expected failure is returned, because it has to travel."""
    try:
        films = _own_lab(settings).run(number)
    except JetsightError as problem:
        return problem
    return films if number < settings.films * _MOST_TRIED else [_bare(film) for film in films]


def _results(settings: Settings, artefacts: Artefacts, films: list[list[Film]]) -> Evaluated:
    rows = tuple(film.trial for episode in films for film in episode)
    rules = artefacts.rules
    region = rules.region
    facts = asdict(rules)
    del facts["env_id"], facts["seed"]
    facts["region"] = None if region is None else [region.x, region.y, region.radius]
    results = Results(
        format=FORMAT,
        version=VERSION,
        settings={**settings.facts(), **facts},
        versions={**versions(), **dict(_simulator_versions())},
        machine=machine_facts(),
        bundle=artefacts.bundle,
        against=artefacts.against,
        summary=summarize(rows, seed=settings.seed, region=region is not None),
        rows=rows,
    )
    return Evaluated(results, films[: settings.films], region)


def _simulator_versions() -> list[tuple[str, str]]:
    found = []
    for package in _SIMULATORS:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return found
