"""A simulator and everybody who is to drive in it, opened once per process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Manifest
from jetsight.errors import BundleError, UsageError
from jetsight.session import Session
from jetsight_compile.closed_loop import arms
from jetsight_compile.closed_loop.agents import Pilot, baselines
from jetsight_compile.closed_loop.config import Settings
from jetsight_compile.closed_loop.episodes import Rules, draw_episode
from jetsight_compile.closed_loop.results import BUNDLE, FREE
from jetsight_compile.closed_loop.rollout import Film, fly
from jetsight_compile.closed_loop.task import PushingState, Region
from jetsight_train.record.environments import PixelEnvironment, open_environment

if TYPE_CHECKING:
    from jetsight_compile.closed_loop.arms import Reference


@dataclass(frozen=True)
class Artefacts:
    """What was opened, for results."""

    bundle: Mapping[str, Any]
    against: Mapping[str, Any] | None
    rules: Rules


class Lab:
    """Runs single episodes; the same number gives the same rows in any process.

    Args:
        environment: open.
        rules: of the episodes.
        pilots: arms by name, in the order they are reported.
        closing: sessions to close with it.
        artefacts: what the pilots were made from.
    """

    def __init__(
        self, environment: PixelEnvironment, rules: Rules, pilots: Mapping[str, Pilot],
        closing: Sequence[Session] = (), artefacts: Artefacts | None = None,
    ) -> None:  # fmt: skip
        self._environment, self._rules, self._pilots = environment, rules, dict(pilots)
        self._closing = closing
        self.artefacts = artefacts or Artefacts({}, None, rules)

    def run(self, number: int) -> list[Film]:
        """Every arm in episode `number`; nothing when it is of no interest for the region."""
        episode = draw_episode(self._environment, self._rules, number)
        if episode is None:
            return []
        return [
            fly(self._environment, name, pilot, episode, self._rules)
            for name, pilot in self._pilots.items()
        ]

    def close(self) -> None:
        """Release simulator and engines."""
        for pilot in self._pilots.values():
            pilot.end()
        for session in self._closing:
            session.close()
        self._environment.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def open_lab(settings: Settings) -> Lab:
    """Open bundle, checkpoint and simulator, and put the arms together.

    Raises:
        BundleError, CheckpointError: an artefact was refused.
        UsageError: the bundle has no planners, or not this one; no such environment; no region.
        MissingDependency: a simulator, torch or backend is not installed.
        EngineError: a graph cannot be loaded here.
    """
    bundle = Bundle.open(settings.bundle)
    manifest = bundle.manifest
    arms.check_planners(manifest, settings)
    reference = arms.load_reference(settings, manifest)
    rules = _rules(settings, manifest, reference)
    environment = open_environment(
        settings.env_id, rules.size_hw, rules.driver_ticks + rules.budget
    )
    sessions: list[Session] = []
    try:
        PushingState(environment.state_names, settings.env_id)
        _check_actions(environment, manifest)
        sessions.append(arms.deployed_session(bundle, settings))
        use = arms.resolve(settings, sessions[0])
        pilots = arms.planning(BUNDLE, FREE, sessions[0], use, settings)
        if reference is not None:
            sessions.append(arms.eager_session(reference, manifest, sessions[0], settings))
            names = (arms.EAGER, arms.EAGER_FREE)
            pilots |= arms.planning(*names, sessions[1], use, settings)
        if settings.baselines:
            low, high = environment.action_low, environment.action_high
            pilots |= baselines(low, high, settings.seed)
    except BaseException:
        for session in sessions:
            session.close()
        environment.close()
        raise
    facts = arms.bundle_facts(manifest, sessions[0], use)
    against = arms.reference_facts(manifest, reference)
    return Lab(environment, rules, pilots, sessions, Artefacts(facts, against, rules))


def _rules(settings: Settings, manifest: Manifest, reference: Reference | None) -> Rules:
    region = settings.region
    if settings.keep_out and not (manifest.heads and manifest.heads.hazards):
        raise BundleError(
            f"{settings.bundle} knows no hazard, so it cannot keep out of anything; train one "
            "with jetsight train --probe and compile again"
        )
    if settings.keep_out and region is None:
        region = _region_of(reference)
    block = manifest.timing.action_block
    return Rules(
        settings.env_id,
        settings.seed,
        (manifest.frame.height_px, manifest.frame.width_px),
        warm_up=max(30, (manifest.model.history + 1) * block),
        region=region,
    )


def _region_of(reference: Reference | None) -> Region:
    """The disc around the agent that a hazard of the checkpoint was trained on."""
    for hazard in reference.model.heads.hazards if reference is not None else ():
        disc = hazard.rule.disc
        if disc is not None and disc.columns == ("agent_x", "agent_y"):
            return Region(disc.center[0], disc.center[1], disc.radius)
    raise UsageError(
        "a bundle does not say where its hazard is; give the keep-out region with "
        "--region x,y,radius in px, or the checkpoint with --against"
    )


def _check_actions(environment: PixelEnvironment, manifest: Manifest) -> None:
    low, high = environment.action_low, environment.action_high
    action = manifest.action
    if len(action.low) != len(low) or (low > action.low).any() or (high < action.high).any():
        raise UsageError(
            f"environment {environment.env_id!r} takes actions from {low.tolist()} to "
            f"{high.tolist()}, but the model acts from {list(action.low)} to {list(action.high)}; "
            "evaluate it in the environment it was trained for"
        )
