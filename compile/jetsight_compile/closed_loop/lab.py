"""A lab: everything one process needs to run single episodes, opened and checked.

Shapes: a size of one action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Manifest
from jetsight.errors import BundleError, UsageError, did_you_mean
from jetsight.session import Session
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import EnvironmentSpec
from jetsight_compile.closed_loop import arms
from jetsight_compile.closed_loop.agents import Agent, baselines
from jetsight_compile.closed_loop.arms import TorchModel
from jetsight_compile.closed_loop.config import EvalConfig, PlanOptions
from jetsight_compile.closed_loop.episodes import DRIVER_TICKS, Rules, draw_episode
from jetsight_compile.closed_loop.results import BUNDLE, FREE
from jetsight_compile.closed_loop.rollout import EpisodeTrace, run_episode
from jetsight_compile.closed_loop.tasks.choose import choose_task, needed_info
from jetsight_compile.closed_loop.tasks.probe import ProbeReader
from jetsight_compile.closed_loop.tasks.region import Region, RegionFrame
from jetsight_compile.closed_loop.tasks.task import EvalTask
from jetsight_train.record.policies import make_policy

_FEWEST_STARTS = 20  # ticks that a start is drawn from, in an episode that does not end early


class Closing(Protocol):
    """Anything that is closed at the end."""

    def close(self) -> None:
        """Release what it owns."""
        ...


@dataclass(frozen=True)
class Artefacts:
    """Opened artefacts, for the results."""

    bundle: Mapping[str, Any]
    against: Mapping[str, Any] | None
    rules: Rules
    task: EvalTask | None = None


class Lab:
    """Runs single episodes; the same number gives the same rows in any process.

    Args:
        environment: open.
        task: of the evaluation.
        rules: of the episodes.
        agents: arms by name, in the order of the report.
        closing: sessions and engines to close with it.
        artefacts: artefacts behind the agents.
    """

    def __init__(
        self,
        environment: Environment,
        task: EvalTask,
        rules: Rules,
        agents: Mapping[str, Agent],
        closing: Sequence[Closing] = (),
        artefacts: Artefacts | None = None,
    ) -> None:
        self._environment, self._task, self._rules = environment, task, rules
        self._agents, self._closing = dict(agents), closing
        self.artefacts = artefacts or Artefacts({}, None, rules)

    def run(self, number: int) -> list[EpisodeTrace]:
        """Run every arm in episode `number`; return nothing if it cannot be used."""
        world, task, rules = self._environment, self._task, self._rules
        episode = draw_episode(world, task, rules, number)
        if episode is None:
            return []
        return [
            run_episode(world, task, name, agent, episode, rules)
            for name, agent in self._agents.items()
        ]

    def close(self) -> None:
        """Release simulator and engines."""
        for agent in self._agents.values():
            agent.end()
        for each in self._closing:
            each.close()
        self._environment.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_lab(settings: EvalConfig) -> Lab:
    """Open bundle, checkpoint and simulator, and build the arms.

    Raises:
        BundleError, CheckpointError: an artefact was refused.
        UsageError: the bundle lacks the planner, there is no such environment, success or region.
        MissingDependency: a simulator, torch or backend is not installed.
        EngineError: a graph cannot be loaded here.
    """
    bundle = Bundle.open(settings.bundle)
    manifest = bundle.manifest
    arms.check_planners(manifest, settings)
    _check_hazard(settings, manifest)
    reference = arms.load_reference(settings, manifest)
    rules = _rules(settings, manifest)
    environment = Environment.open(_environment_spec(settings, manifest, rules))
    probe = ProbeReader(bundle, settings.family, settings.backend, environment.state_names)
    with ExitStack() as opened:  # Ctrl-C while engines load must release the simulator as well
        opened.callback(environment.close)
        environment.check_actions(manifest.action.names)
        environment.probe()
        task = choose_task(settings.success, environment, probe, settings.region_columns)
        task.check(environment.observation)
        if settings.keep_out:
            task.region, region = _region(settings, task, environment, reference)
            rules = replace(rules, region=region)
        _check_inputs(environment, manifest)
        _check_bounds(environment, manifest)
        make_policy(rules.driver, environment, np.random.default_rng(0))
        sessions, agents, use = _arms(settings, bundle, environment, reference, opened)
        facts = arms.bundle_facts(manifest, sessions[0], use)
        against = arms.reference_facts(manifest, reference)
        artefacts = Artefacts(facts, against, rules, task)
        opened.pop_all()
    return Lab(environment, task, rules, agents, [*sessions, probe], artefacts)


def _arms(
    settings: EvalConfig,
    bundle: Bundle,
    environment: Environment,
    reference: TorchModel | None,
    opened: ExitStack,
) -> tuple[list[Session], dict[str, Agent], PlanOptions]:
    """Build the arms by name; sessions are closed with `opened`."""
    sessions = [arms.deployed_session(bundle, settings)]
    opened.callback(sessions[0].close)
    use = arms.resolve(settings, sessions[0])
    agents = arms.planning(BUNDLE, FREE, sessions[0], use, settings)
    if reference is not None:
        sessions.append(arms.eager_session(reference, bundle.manifest, sessions[0], settings))
        opened.callback(sessions[1].close)
        names = (arms.EAGER, arms.EAGER_FREE)
        agents |= arms.planning(*names, sessions[1], use, settings)
    if settings.baselines:
        low, high = environment.action_low, environment.action_high
        agents |= baselines(low, high, settings.seed)
    return sessions, agents, use


def _check_hazard(settings: EvalConfig, manifest: Manifest) -> None:
    if settings.keep_out and not (manifest.heads and manifest.heads.hazards):
        raise BundleError(
            f"{settings.bundle} has no hazard head, so it cannot avoid a region; train one with "
            "jetsight train --probe and compile again"
        )


def _environment_spec(settings: EvalConfig, manifest: Manifest, rules: Rules) -> EnvironmentSpec:
    several = manifest.frame.cameras if len(manifest.frame.cameras) > 1 else ()
    return EnvironmentSpec(
        settings.env_id,
        rules.size_hw,
        cameras=settings.cameras or several,
        keep=needed_info(settings.success),
        hz=manifest.timing.camera_hz,
        steps=rules.driver_ticks + rules.budget,
    )


def _rules(settings: EvalConfig, manifest: Manifest) -> Rules:
    block = manifest.timing.action_block
    # Long enough to fill the history, and never shorter than the default.
    warm_up = max(30, (manifest.model.history + 1) * block)
    return Rules(
        settings.env_id,
        settings.seed,
        (manifest.frame.height_px, manifest.frame.width_px),
        warm_up=warm_up,
        goal_offset=settings.goal_ticks,
        budget=settings.ticks,
        driver=settings.driver,
        driver_ticks=max(DRIVER_TICKS, warm_up + settings.goal_ticks + _FEWEST_STARTS),
    )


def _region(
    settings: EvalConfig,
    task: EvalTask,
    environment: Environment,
    reference: TorchModel | None,
) -> tuple[RegionFrame, Region]:
    """Find the region and its columns: those given, else of a hazard that the checkpoint has."""
    known = None if task.region is None else task.region.columns
    discs = [h.rule.disc for h in reference.model.heads.hazards] if reference is not None else []
    disc = next((d for d in discs if d is not None and known in (None, d.columns)), None)
    if settings.region is None and disc is None:
        raise UsageError(
            "a bundle does not contain the region of its hazard; give the keep-out region with "
            "--region x,y,radius in the units of the state, or the checkpoint with --against"
        )
    if task.region is None and disc is None:
        raise UsageError(
            "which columns of the state hold the robot's position is not known; name them with "
            f"--region-columns, two of {', '.join(environment.state_names)}"
        )
    region = settings.region
    if region is None:
        assert disc is not None
        region = Region(disc.center[0], disc.center[1], disc.radius)
    if task.region is not None:
        return task.region, region
    assert disc is not None
    where = f"environment {environment.env_id!r}"
    return RegionFrame.of(disc.columns, environment.state_names, where), region


def _check_inputs(environment: Environment, manifest: Manifest) -> None:
    """Refuse an environment that lacks a camera, or a state, that the model sees by."""
    cameras = manifest.frame.cameras
    if max(1, len(cameras)) != len(environment.cameras):
        raise UsageError(
            f"environment {environment.env_id!r} shows {', '.join(environment.cameras)}, but the "
            f"model takes {', '.join(cameras) or 'one camera'}; name its pictures in this order "
            "with --camera, or evaluate the model in the environment it was trained for"
        )
    for name in () if manifest.state is None else manifest.state.names:
        if name not in environment.state_names:
            hint = did_you_mean(name, environment.state_names, "it has")
            raise UsageError(
                f"environment {environment.env_id!r} has no state {name!r}, which the model reads; "
                f"{hint}"
            )


def _check_bounds(environment: Environment, manifest: Manifest) -> None:
    low, high = environment.action_low, environment.action_high
    action = manifest.action
    # In the environment's float32, in which 0.7 is a little less than the manifest's 0.7.
    lowest, highest = np.array(action.low, np.float32), np.array(action.high, np.float32)
    if (low > lowest).any() or (high < highest).any():
        raise UsageError(
            f"environment {environment.env_id!r} takes actions from {low.tolist()} to "
            f"{high.tolist()}, but the model acts from {list(action.low)} to {list(action.high)}; "
            "evaluate it in the environment it was trained for"
        )
