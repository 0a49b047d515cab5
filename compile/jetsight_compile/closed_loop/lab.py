"""A simulator and everybody who is to drive in it, opened once per process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jetsight.bundle import Bundle
from jetsight.clock import Clock
from jetsight.errors import BundleError, UsageError
from jetsight.imagination import Planning
from jetsight.manifest import Manifest
from jetsight.session import Session
from jetsight.stream_spec import PlanSpec
from jetsight_compile.closed_loop.deployed import Deployed, PlannerUse, TickClock
from jetsight_compile.closed_loop.episodes import Rules, draw_episode
from jetsight_compile.closed_loop.pilots import Pilot, baselines
from jetsight_compile.closed_loop.results import BUNDLE, FREE
from jetsight_compile.closed_loop.settings import Settings
from jetsight_compile.closed_loop.task import PushingState, Region
from jetsight_compile.closed_loop.trial import Film, fly
from jetsight_train.record.environments import PixelEnvironment, open_environment

if TYPE_CHECKING:
    from jetsight_train.checkpoint import Description
    from jetsight_train.model.world_model import WorldModel

EAGER, EAGER_FREE = "torch eager", "torch eager unconstrained"


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
    _check_planners(manifest, settings)
    model, about = _load_model(settings, manifest)
    rules = _rules(settings, manifest, model)
    environment = open_environment(
        settings.env_id, rules.size_hw, rules.driver_ticks + rules.budget
    )
    sessions: list[Session] = []
    try:
        PushingState(environment.state_names, settings.env_id)
        _check_actions(environment, manifest)
        deployed = Session.open(
            bundle, settings.backend, settings.family, _clock(settings), threads=settings.threads
        )
        sessions.append(deployed)
        pilots = _planning(BUNDLE, FREE, deployed, settings)
        if model is not None:
            sessions.append(_eager_session(model, manifest, deployed, settings))
            pilots |= _planning(EAGER, EAGER_FREE, sessions[-1], settings)
        if settings.baselines:
            low, high = environment.action_low, environment.action_high
            pilots |= baselines(low, high, settings.seed)
    except BaseException:
        for session in sessions:
            session.close()
        environment.close()
        raise
    artefacts = Artefacts(_bundle_facts(manifest, deployed), _model_facts(manifest, about), rules)
    return Lab(environment, rules, pilots, sessions, artefacts)


def _planning(name: str, free: str, session: Session, settings: Settings) -> dict[str, Pilot]:
    """The arm of a session; on a keep-out run also without the constraint."""
    use = _use(settings)
    session.load_planner(use.planner)  # so that the first plan takes no longer than the others
    arms: dict[str, Pilot] = {name: Deployed(session, use)}
    if settings.keep_out:
        arms[free] = Deployed(session, _use(settings, constrain=False))
    return arms


def _use(settings: Settings, *, constrain: bool = True) -> PlannerUse:
    use = settings.use
    return PlannerUse(
        use.planner, use.iterations, use.budget_ms, use.replan_every, constrain, settings.seed
    )


def _clock(settings: Settings) -> Clock | None:
    """Simulated time where plans have no deadline, so that nothing depends on the machine."""
    return None if settings.use.budget_ms is not None else TickClock()


def _check_planners(manifest: Manifest, settings: Settings) -> None:
    names = [planner.graph for planner in manifest.planners]
    if not names:
        raise BundleError(
            f"{settings.bundle} has no planner, so there is nothing to evaluate; compile it again "
            "with --planner"
        )
    wanted = settings.use.planner
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"{settings.bundle} has no planner {wanted!r}; choose one of {', '.join(names)}"
        )
    used = manifest.planners[0 if wanted is None else names.index(wanted)]
    most = used.horizon * manifest.timing.action_block
    if settings.use.replan_every is not None and settings.use.replan_every > most:
        raise UsageError(
            f"--replan-every is {settings.use.replan_every}, but a plan of {used.graph} has "
            f"{most} ticks"
        )


def _rules(settings: Settings, manifest: Manifest, model: WorldModel | None) -> Rules:
    region = settings.region
    if settings.keep_out and not (manifest.heads and manifest.heads.hazards):
        raise BundleError(
            f"{settings.bundle} knows no hazard, so it cannot keep out of anything; train one "
            "with jetsight train --probe and compile again"
        )
    if settings.keep_out and region is None:
        region = _region_of(model)
    block = manifest.timing.action_block
    return Rules(
        settings.env_id,
        settings.seed,
        (manifest.frame.height_px, manifest.frame.width_px),
        warm_up=max(30, (manifest.model.history + 1) * block),
        region=region,
    )


def _region_of(model: WorldModel | None) -> Region:
    """The disc around the agent that a hazard of the checkpoint was trained on."""
    for hazard in model.heads.hazards if model is not None else ():
        disc = hazard.rule.disc
        if disc is not None and disc.columns == ("agent_x", "agent_y"):
            return Region(*disc.center, disc.radius)
    raise UsageError(
        "a bundle does not say where its hazard is; give the keep-out region with "
        "--region x,y,radius in px, or the checkpoint with --against"
    )


def _load_model(
    settings: Settings, manifest: Manifest
) -> tuple[WorldModel | None, Description | None]:
    if settings.against is None:
        return None, None
    import torch

    from jetsight_train import checkpoint

    torch.set_num_threads(settings.threads)
    model, about = checkpoint.load(Path(settings.against))
    config, facts = model.config, manifest.model
    found = (config.latent_size, config.history, config.horizon, model.action_size)
    wanted = (facts.latent_size, facts.history, facts.horizon, facts.action_size)
    if found != wanted:
        raise UsageError(
            f"{settings.against} has latent size, history, horizon and action size {found}, but "
            f"{settings.bundle} has {wanted}; give the checkpoint the bundle was compiled from"
        )
    return model.eval(), about


def _check_actions(environment: PixelEnvironment, manifest: Manifest) -> None:
    low, high = environment.action_low, environment.action_high
    action = manifest.action
    if len(action.low) != len(low) or (low > action.low).any() or (high < action.high).any():
        raise UsageError(
            f"environment {environment.env_id!r} takes actions from {low.tolist()} to "
            f"{high.tolist()}, but the model acts from {list(action.low)} to {list(action.high)}; "
            "evaluate it in the environment it was trained for"
        )


def _eager_session(
    model: WorldModel, manifest: Manifest, deployed: Session, settings: Settings
) -> Session:
    from jetsight_compile.closed_loop import eager

    plan_spec = PlanSpec.from_manifest(manifest, deployed.family)
    planning = Planning(plan_spec, eager.EagerBackend(model, plan_spec), str.encode)
    session = Session(
        deployed.spec,
        eager.encode_engine(model, deployed.spec),
        eager.forecast_engine(model, deployed.spec),
        clock=_clock(settings),
        planning=planning,
    )
    session.backend, session.family = eager.EagerBackend.name, "fp32"
    return session


def _bundle_facts(manifest: Manifest, session: Session) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "checkpoint_sha256": manifest.provenance.checkpoint_sha256,
        "backend": session.backend,
        "family": session.family,
        "precision": dict(session.precision),
    }


def _model_facts(manifest: Manifest, about: Description | None) -> dict[str, Any] | None:
    if about is None:
        return None
    digest = about.weights.sha256
    return {
        "name": about.name,
        "checkpoint_sha256": digest,
        "same_checkpoint": digest == manifest.provenance.checkpoint_sha256,
    }
