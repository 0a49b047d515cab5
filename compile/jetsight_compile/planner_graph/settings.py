"""Which planners a bundle gets: from `--planner icem:256x5` and a settings file to their facts.

Shapes: N samples, E elites, Q kept elites, C context, K history, H horizon, a action size.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from jetsight.bundle.planner_spec import CostWeights, HazardSpec, HeadSpec, PlannerSpec
from jetsight.errors import ArtefactError, UsageError
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning.problem import ImagineSpec, Kind
from jetsight_train.recipe import read_recipe

T = TypeVar("T")
KINDS: tuple[Kind, ...] = get_args(Kind)
_WISH = re.compile(r"([a-z]+)(?::(\d{1,5})(?:x(\d{1,3}))?)?")
_SAMPLES = 256
_ELITE_SHARE, _FEWEST_ELITES, _KEPT_SHARE = 0.1, 4, 0.3
# With a probe a goal is where things are; the latent then only breaks ties.
_TERMINAL_BESIDE_PROBE = 0.01


@dataclass(frozen=True)
class PlannerPreset:
    """One planner somebody wants.

    Attributes:
        kind: which planner.
        samples: N, candidates per iteration.
        horizon: H, action blocks imagined; None for all that the model was trained for.
    """

    kind: Kind
    samples: int = _SAMPLES
    horizon: int | None = None


# The first one plans where nobody names one; the second is for short deadlines.
DEFAULT = (PlannerPreset("icem", 256), PlannerPreset("icem", 64))


@dataclass(frozen=True, kw_only=True)
class PlannerSettings:
    """What may be said of all planners of a bundle; None leaves the default of the planner's kind.

    Attributes:
        elites: E; a tenth of N and at least 4 if not given.
        kept: Q of icem; 0.3 of E if not given.
        momentum: of icem, 0.1 if not given.
        context: C; all that the model looks back on if not given.
        rate_limited: whether rate limits are obeyed; if the robot has any, if not given.
        start: the first mean, the last action held or the neutral one.
        noise_beta: exponent of the noise's power law over time; 2 for icem, else 0, if not given.
        iterations: at most.
        weights: of the latent costs.
        probe_weight: by quantity; 1 for every quantity if not given.
        std_start: `[a]` of the first iteration, in units of the actions' own std.
        std_scale: the same for all numbers of an action.
        temperature: of mppi, in units of cost.
    """

    elites: int | None = None
    kept: int | None = None
    momentum: float | None = None
    context: int | None = None
    rate_limited: bool | None = None
    start: Literal["hold", "neutral"] = "hold"
    noise_beta: float | None = None
    iterations: int = 10
    weights: CostWeights | None = None
    probe_weight: Mapping[str, float] | None = None
    std_start: tuple[float, ...] | None = None
    std_scale: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class _File:
    """A settings file: one table `[planner]`."""

    planner: PlannerSettings = field(default_factory=PlannerSettings)


def parse(text: str) -> PlannerPreset:
    """Read `KIND[:SAMPLES[xHORIZON]]`.

    Raises:
        UsageError: it is something else, or no planner is called so.

    Example:
        >>> parse("icem:256x5")
        PlannerPreset(kind='icem', samples=256, horizon=5)
    """
    match = _WISH.fullmatch(text)
    if match is None or match[1] not in KINDS:
        raise UsageError(
            f"--planner {text!r} is no planner, expected {', '.join(KINDS)} with a size or "
            "without, like icem:256x5"
        )
    samples, horizon = (int(part) if part else None for part in match.groups()[1:])
    return PlannerPreset(cast(Kind, match[1]), samples or _SAMPLES, horizon)


def load_settings(path: Path) -> PlannerSettings:
    """Read a settings file: TOML with the fields of `PlannerSettings` under `[planner]`.

    Raises:
        UsageError: not readable, not TOML, an unknown key (the nearest one is named), a bad value.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; --planner-settings takes a TOML file")
    return read_recipe(path, _File).planner


def specs(
    wishes: Sequence[PlannerPreset], model: WorldModel, settings: PlannerSettings
) -> tuple[ImagineSpec, ...]:
    """The graphs to make, each once.

    Raises:
        UsageError: settings that describe no planner, or none of this model.
    """
    found = tuple(dict.fromkeys(_spec(wish, model, settings) for wish in wishes))
    for spec in found:
        ImaginePorts.of(model, spec)  # refuses what the model cannot do
    if len({spec.graph for spec in found}) != len(found):
        raise UsageError("two planners of one kind and size differ; give each --planner once")
    return found


def _spec(wish: PlannerPreset, model: WorldModel, settings: PlannerSettings) -> ImagineSpec:
    horizon = model.config.horizon if wish.horizon is None else wish.horizon
    icem = wish.kind == "icem"
    elites = _given(settings.elites, max(_FEWEST_ELITES, round(_ELITE_SHARE * wish.samples)))
    elites = 0 if wish.kind == "mppi" else min(elites, wish.samples)
    limits = model.action.rate_limit_per_s is not None
    try:
        return ImagineSpec(
            wish.kind,
            wish.samples,
            horizon,
            elites,
            kept=_given(settings.kept, round(_KEPT_SHARE * elites)) if icem else 0,
            momentum=_given(settings.momentum, 0.1) if icem else 0.0,
            context=_given(settings.context, model.config.history),
            rate_limited=_given(settings.rate_limited, limits),
        )
    except ValueError as error:
        raise UsageError(f"--planner {wish.kind}:{wish.samples}x{horizon}: {error}") from None


def facts(spec: ImagineSpec, model: WorldModel, settings: PlannerSettings) -> PlannerSpec:
    """How a planner is meant to be used, for the manifest.

    Raises:
        UsageError: a number of the settings is out of range, or a list has another length.
    """
    heads, names = model.heads, model.action.names
    quantities = () if heads.probe_spec is None else heads.probe_spec.quantities
    shares = settings.std_start or (settings.std_scale,) * len(names)
    if len(shares) != len(names):
        raise UsageError(f"std_start has {len(shares)} numbers, an action has {len(names)}")
    weights = CostWeights(_TERMINAL_BESIDE_PROBE) if quantities else CostWeights()
    chosen = _given(settings.probe_weight, dict.fromkeys(quantities, 1.0))
    if unknown := sorted(set(chosen) - set(quantities)):
        raise UsageError(
            f"probe_weight names {unknown[0]!r}, but the probe reads "
            f"{', '.join(quantities) or 'nothing'}"
        )
    try:
        return PlannerSpec(
            graph=spec.graph,
            kind=spec.kind,
            samples=spec.samples,
            horizon=spec.horizon,
            elites=spec.elites,
            kept=spec.kept,
            momentum=spec.momentum,
            context=spec.context,
            rate_limited=spec.rate_limited,
            start=settings.start,
            noise_beta=_given(settings.noise_beta, 2.0 if spec.kind == "icem" else 0.0),
            iterations=settings.iterations,
            weights=_given(settings.weights, weights),
            probe_weight=chosen,
            std_start=tuple(s * std for s, std in zip(shares, model.action.std, strict=True)),
            temperature=settings.temperature,
        )
    except ArtefactError as error:
        raise UsageError(f"planner settings: {error}") from None


def head_spec(model: WorldModel) -> HeadSpec | None:
    """What the heads of a model read, for the manifest; None without any."""
    heads, spec = model.heads, model.heads.probe_spec
    if heads.is_empty:
        return None
    hazards = tuple(HazardSpec(h.name, h.threshold, h.miss_rate) for h in heads.hazards)
    read = {} if spec is None else dataclasses.asdict(spec)
    return HeadSpec(**read, hazards=hazards, support=heads.support is not None)


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
