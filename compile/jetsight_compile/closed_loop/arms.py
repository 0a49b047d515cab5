"""Planning arms: the deployed bundle, and the PyTorch model it was compiled from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Manifest
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.clock import Clock
from jetsight.errors import BundleError, UsageError
from jetsight.planning.imagine import Planning
from jetsight.session import Session
from jetsight_compile.closed_loop.agents import Agent, Deployed, TickClock
from jetsight_compile.closed_loop.config import EvalConfig, PlanOptions

if TYPE_CHECKING:
    from jetsight_train.checkpoint import CheckpointDescription
    from jetsight_train.model.world_model import WorldModel

EAGER, EAGER_FREE = "torch eager", "torch eager unconstrained"


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch model and the description of its checkpoint."""

    model: WorldModel
    about: CheckpointDescription


def check_planners(manifest: Manifest, settings: EvalConfig) -> None:
    """Check the planners of a bundle, before any engine is loaded.

    Raises:
        BundleError: the bundle has no planner.
        UsageError: the bundle lacks the chosen planner.
    """
    names = [planner.graph for planner in manifest.planners]
    if not names:
        raise BundleError(
            f"{settings.bundle} has no planner, so there is nothing to evaluate; compile it again "
            "with --planner"
        )
    chosen = settings.use.planner
    if chosen is not None and chosen not in names:
        raise UsageError(
            f"{settings.bundle} has no planner {chosen!r}; choose one of {', '.join(names)}"
        )


def load_reference(settings: EvalConfig, manifest: Manifest) -> TorchModel | None:
    """Load the checkpoint of `--against`; None without one.

    Raises:
        CheckpointError: the checkpoint was refused.
        UsageError: its sizes differ from those of the bundle.
    """
    if settings.against is None:
        return None
    import torch

    from jetsight_train import checkpoint

    # As for every engine: by default the results would depend on the number of cores.
    torch.set_num_threads(settings.threads)
    model, about = checkpoint.load(Path(settings.against))
    config, facts = model.config, manifest.model
    sizes = (config.latent_size, config.history, config.horizon, model.action_size)
    expected = (facts.latent_size, facts.history, facts.horizon, facts.action_size)
    if sizes != expected:
        raise UsageError(
            f"{settings.against} has latent size, history, horizon and action size {sizes}, but "
            f"{settings.bundle} has {expected}; give the checkpoint the bundle was compiled from"
        )
    return TorchModel(model.eval(), about)


def deployed_session(bundle: Bundle, settings: EvalConfig) -> Session:
    """Open the session of a robot.

    Raises:
        EngineError: a graph cannot be loaded here, or computes something else than PyTorch.
    """
    return Session.open(
        bundle, settings.backend, settings.family, _clock(settings), threads=settings.threads
    )


def eager_session(
    reference: TorchModel, manifest: Manifest, deployed: Session, settings: EvalConfig
) -> Session:
    """Build the same session with PyTorch engines."""
    from jetsight_compile.closed_loop import torch_engines

    # `EagerBackend` builds a planner from its name, so `str.encode` replaces the bundle's graphs.
    spec = PlanSpec.from_manifest(manifest, deployed.family)
    session = Session(
        deployed.spec,
        torch_engines.encode_engine(reference.model, deployed.spec),
        torch_engines.forecast_engine(reference.model, deployed.spec),
        clock=_clock(settings),
        planning=Planning(spec, torch_engines.EagerBackend(reference.model, spec), str.encode),
    )
    session.backend, session.family = torch_engines.EagerBackend.name, "fp32"
    return session


def resolve(settings: EvalConfig, deployed: Session) -> PlanOptions:
    """Resolve the open plan options; the result is equal for all arms.

    Raises:
        UsageError: the family lacks this planner, or its plans are shorter than `replan_every`.
    """
    use, planner = settings.use, _planner(settings, deployed)
    most = planner.horizon * deployed.spec.action_block
    if use.replan_every > most:
        raise UsageError(
            f"--replan-every is {use.replan_every}, but a plan of {planner.graph} has {most} ticks"
        )
    iterations = use.iterations
    if use.budget_ms is None and iterations is None:
        iterations = planner.iterations  # fixed, so that every arm does equal work
    return replace(use, planner=planner.graph, iterations=iterations, seed=settings.seed)


def planning(
    name: str, free: str, session: Session, use: PlanOptions, settings: EvalConfig
) -> dict[str, Agent]:
    """Build the arm of a session; in a keep-out run also without the constraint."""
    session.load_planner(use.planner)  # otherwise the first plan's time would include loading
    arms: dict[str, Agent] = {name: Deployed(session, use)}
    if settings.keep_out:
        arms[free] = Deployed(session, replace(use, constrain=False))
    return arms


def bundle_facts(manifest: Manifest, session: Session, use: PlanOptions) -> dict[str, Any]:
    """Describe the bundle and the plan options for the results."""
    planner = next(each for each in session.planners if each.graph == use.planner)
    return {
        "name": manifest.name,
        "checkpoint_sha256": manifest.provenance.checkpoint_sha256,
        "backend": session.backend,
        "family": session.family,
        "precision": dict(session.precision),
        "planner": asdict(planner),
        "iterations": use.iterations,
        "replan_every": use.replan_every,
    }


def reference_facts(manifest: Manifest, reference: TorchModel | None) -> dict[str, Any] | None:
    """Describe the checkpoint of `--against` for the results."""
    if reference is None:
        return None
    digest = reference.about.weights.sha256
    return {
        "name": reference.about.name,
        "checkpoint_sha256": digest,
        "same_checkpoint": digest == manifest.provenance.checkpoint_sha256,
    }


def _planner(settings: EvalConfig, session: Session) -> PlannerSpec:
    planners = {planner.graph: planner for planner in session.planners}
    chosen = settings.use.planner or next(iter(planners), "")
    if chosen not in planners:
        raise UsageError(
            f"family {session.family} of {settings.bundle} has no planner {chosen!r}; "
            "choose another --family"
        )
    return planners[chosen]


def _clock(settings: EvalConfig) -> Clock | None:
    """Choose simulated time for plans without deadline, independent of the machine."""
    return None if settings.use.budget_ms is not None else TickClock()
