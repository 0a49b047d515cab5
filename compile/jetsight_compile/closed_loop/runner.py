"""Runner of an evaluation: episodes shared by processes, rows in a fixed order."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Manifest
from jetsight.errors import BundleError, DataError, JetsightError, UsageError
from jetsight.session import Session
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import EnvironmentSpec
from jetsight_compile.closed_loop import arms
from jetsight_compile.closed_loop.agents import Agent, baselines
from jetsight_compile.closed_loop.arms import TorchModel
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.episodes import Rules, draw_episode
from jetsight_compile.closed_loop.results import (
    BUNDLE,
    FORMAT,
    FREE,
    VERSION,
    EvalResults,
    summarize,
)
from jetsight_compile.closed_loop.rollout import EpisodeResult, EpisodeTrace, run_episode
from jetsight_compile.closed_loop.statistics import check_scipy
from jetsight_compile.closed_loop.task import PushingState, Region
from jetsight_compile.pipeline.environment import machine_spec, versions

# Libraries whose version can change the rows.
_SIMULATORS = ("gymnasium", "gym-pusht", "pymunk", "scipy")
_MOST_TRIED = 20  # episodes tried per episode that a keep-out run needs
Progress = Callable[[Sequence[EpisodeResult]], None]


@dataclass(frozen=True)
class Evaluated:
    """Results, and pictures of the first episodes, one list of arms per episode."""

    results: EvalResults
    films: list[list[EpisodeTrace]]
    region: Region | None


def evaluate(settings: EvalConfig, progress: Progress = lambda rows: None) -> Evaluated:
    """Run every arm on every episode.

    Args:
        settings: equal settings give equal rows with any number of workers, unless plans have a
            deadline.
        progress: called with the rows of each episode, in order.

    Raises:
        JetsightError: as `open_lab`.
        DataError: the simulator is not repeatable, or too few episodes have the region in the way.
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
    """Collect the films of the first relevant episodes, in the order of their numbers.

    Raises:
        DataError: too few episodes are relevant.
    """
    collected: list[list[EpisodeTrace]] = []
    waiting: deque[Callable[[], list[EpisodeTrace]]] = deque()
    number, most = 0, settings.episodes * (_MOST_TRIED if settings.keep_out else 1)
    while len(collected) < settings.episodes:
        while len(collected) + len(waiting) < settings.episodes and number < most:
            waiting.append(runner.submit(number))
            number += 1
        if not waiting:
            raise DataError(
                f"only {len(collected)} of {most} episodes have the region in their way, expected "
                f"{settings.episodes}; choose a larger or more central --region"
            )
        # In the order of submission, so that the rows do not depend on the speed of a worker.
        films = waiting.popleft()()
        if films:
            collected.append(
                films if len(collected) < settings.films else [_bare(f) for f in films]
            )
            progress([film.trial for film in films])
    return collected


def _bare(film: EpisodeTrace) -> EpisodeTrace:
    """Drop the pictures of a film that is not published."""
    return EpisodeTrace(film.trial, film.frames_u8[:0], film.goal_u8[:0], film.misses, {}, {})


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
    del facts["env_id"], facts["seed"]
    facts["region"] = None if region is None else [region.x, region.y, region.radius]
    results = EvalResults(
        format=FORMAT,
        version=VERSION,
        settings={**settings.facts(), **facts},
        versions={**versions(), **versions(_SIMULATORS)},
        machine=machine_spec(),
        bundle=artefacts.bundle,
        against=artefacts.against,
        summary=summarize(rows, seed=settings.seed, region=region is not None),
        rows=rows,
    )
    return Evaluated(results, films[: settings.films], region)


@dataclass(frozen=True)
class Artefacts:
    """Opened artefacts, for the results."""

    bundle: Mapping[str, Any]
    against: Mapping[str, Any] | None
    rules: Rules


class Lab:
    """Runs single episodes; the same number gives the same rows in any process.

    Args:
        environment: open.
        rules: of the episodes.
        agents: arms by name, in the order of the report.
        closing: sessions to close with it.
        artefacts: artefacts behind the agents.
    """

    def __init__(
        self,
        environment: Environment,
        rules: Rules,
        agents: Mapping[str, Agent],
        closing: Sequence[Session] = (),
        artefacts: Artefacts | None = None,
    ) -> None:
        self._environment, self._rules, self._agents = environment, rules, dict(agents)
        self._closing = closing
        self.artefacts = artefacts or Artefacts({}, None, rules)

    def run(self, number: int) -> list[EpisodeTrace]:
        """Run every arm in episode `number`; return nothing if the region is not in its way."""
        episode = draw_episode(self._environment, self._rules, number)
        if episode is None:
            return []
        return [
            run_episode(self._environment, name, agent, episode, self._rules)
            for name, agent in self._agents.items()
        ]

    def close(self) -> None:
        """Release simulator and engines."""
        for agent in self._agents.values():
            agent.end()
        for session in self._closing:
            session.close()
        self._environment.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_lab(settings: EvalConfig) -> Lab:
    """Open bundle, checkpoint and simulator, and build the arms.

    Raises:
        BundleError, CheckpointError: an artefact was refused.
        UsageError: the bundle lacks the planner, there is no such environment, or no region.
        MissingDependency: a simulator, torch or backend is not installed.
        EngineError: a graph cannot be loaded here.
    """
    bundle = Bundle.open(settings.bundle)
    manifest = bundle.manifest
    arms.check_planners(manifest, settings)
    reference = arms.load_reference(settings, manifest)
    rules = _rules(settings, manifest, reference)
    ticks = rules.driver_ticks + rules.budget
    spec = EnvironmentSpec(
        settings.env_id,
        rules.size_hw,
        cameras=settings.cameras,
        hz=manifest.timing.camera_hz,
        steps=ticks,
    )
    environment = Environment.open(spec)
    sessions: list[Session] = []
    try:
        environment.check_actions(manifest.action.names)
        environment.probe()
        PushingState(environment.state_names, settings.env_id)
        _check_bounds(environment, manifest)
        sessions.append(arms.deployed_session(bundle, settings))
        use = arms.resolve(settings, sessions[0])
        agents = arms.planning(BUNDLE, FREE, sessions[0], use, settings)
        if reference is not None:
            sessions.append(arms.eager_session(reference, manifest, sessions[0], settings))
            names = (arms.EAGER, arms.EAGER_FREE)
            agents |= arms.planning(*names, sessions[1], use, settings)
        if settings.baselines:
            low, high = environment.action_low, environment.action_high
            agents |= baselines(low, high, settings.seed)
    except BaseException:  # Ctrl-C while engines load must release the simulator as well
        for session in sessions:
            session.close()
        environment.close()
        raise
    facts = arms.bundle_facts(manifest, sessions[0], use)
    against = arms.reference_facts(manifest, reference)
    return Lab(environment, rules, agents, sessions, Artefacts(facts, against, rules))


def _rules(settings: EvalConfig, manifest: Manifest, reference: TorchModel | None) -> Rules:
    region = settings.region
    if settings.keep_out and not (manifest.heads and manifest.heads.hazards):
        raise BundleError(
            f"{settings.bundle} has no hazard head, so it cannot avoid a region; train one with "
            "jetsight train --probe and compile again"
        )
    if settings.keep_out and region is None:
        region = _region_of(reference)
    block = manifest.timing.action_block
    return Rules(
        settings.env_id,
        settings.seed,
        (manifest.frame.height_px, manifest.frame.width_px),
        # Long enough to fill the history, and never shorter than the default.
        warm_up=max(30, (manifest.model.history + 1) * block),
        region=region,
    )


def _region_of(reference: TorchModel | None) -> Region:
    """Find the disc around the agent that a hazard of the checkpoint was trained on."""
    for hazard in reference.model.heads.hazards if reference is not None else ():
        disc = hazard.rule.disc
        if disc is not None and disc.columns == ("agent_x", "agent_y"):
            return Region(disc.center[0], disc.center[1], disc.radius)
    raise UsageError(
        "a bundle does not contain the region of its hazard; give the keep-out region with "
        "--region x,y,radius in px, or the checkpoint with --against"
    )


def _check_bounds(environment: Environment, manifest: Manifest) -> None:
    low, high = environment.action_low, environment.action_high
    action = manifest.action
    if (low > action.low).any() or (high < action.high).any():
        raise UsageError(
            f"environment {environment.env_id!r} takes actions from {low.tolist()} to "
            f"{high.tolist()}, but the model acts from {list(action.low)} to {list(action.high)}; "
            "evaluate it in the environment it was trained for"
        )
