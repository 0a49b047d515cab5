"""Planners of a bundle: from `--planner icem:256x5` and a settings file to their specifications.

Shapes: N samples, E elites, Q kept elites, C context, K history, H horizon, a action size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from jetsight.bundle.planner_spec import CostWeights, Kind, PlannerSpec, graph_name
from jetsight.errors import ArtefactError, UsageError
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import read_recipe

T = TypeVar("T")
KINDS: tuple[Kind, ...] = get_args(Kind)
_PRESET = re.compile(r"([a-z]+)(?::(\d{1,5})(?:x(\d{1,3}))?)?")
_SAMPLES = 256
_ELITE_SHARE, _FEWEST_ELITES, _KEPT_SHARE = 0.1, 4, 0.3
# With a probe a goal is given by its quantities; the latent then only breaks ties.
_TERMINAL_BESIDE_PROBE = 0.01


@dataclass(frozen=True)
class PlannerPreset:
    """Kind and size of a planner, as `--planner` gives them.

    Attributes:
        kind: the optimiser.
        samples: N, candidates per iteration.
        horizon: H, action blocks; None for as many as the model was trained for.
    """

    kind: Kind
    samples: int = _SAMPLES
    horizon: int | None = None

    def __str__(self) -> str:
        """`icem:256x5`, as `--planner` takes it."""
        size = self.samples if self.horizon is None else f"{self.samples}x{self.horizon}"
        return f"{self.kind}:{size}"


# A session plans with the first one by default; the second is for short deadlines.
DEFAULT = (PlannerPreset("icem", 256), PlannerPreset("icem", 64))


@dataclass(frozen=True, kw_only=True)
class PlannerSettings:
    """Settings of all planners of a bundle; None leaves the default of the planner's kind.

    Attributes:
        elites: E; a tenth of N and at least 4 if not given.
        kept: Q of icem; 0.3 of E if not given.
        momentum: of icem, 0.1 if not given.
        context: C; as many latents as the model looks back on if not given.
        rate_limited: limit the change per tick; True for a robot with rate limits if not given.
        start: mean of the first iteration, the last action held or the neutral one.
        noise_beta: exponent of the noise's power law over time; 2 for icem, else 0, if not given.
        iterations: largest number.
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
        UsageError: another form, or an unknown kind.

    Example:
        >>> parse("icem:256x5")
        PlannerPreset(kind='icem', samples=256, horizon=5)
    """
    match = _PRESET.fullmatch(text)
    if match is None or match[1] not in KINDS:
        raise UsageError(
            f"--planner {text!r} is not a planner, expected {', '.join(KINDS)} with a size or "
            "without, like icem:256x5"
        )
    samples, horizon = (int(part) if part else None for part in match.groups()[1:])
    # 0 would otherwise be taken for `not given` below; 1 has no spread to refit.
    if samples in (0, 1) or horizon == 0:
        raise UsageError(
            f"--planner {text!r} has too few samples or blocks, expected at least 2 and 1; leave a "
            "size out to take the default"
        )
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
    presets: Sequence[PlannerPreset], model: WorldModel, settings: PlannerSettings
) -> tuple[PlannerSpec, ...]:
    """Return the planners to compile, each once.

    Raises:
        UsageError: the settings are out of range, or do not fit this model.
    """
    found = {}
    for preset in presets:
        spec = _spec(preset, model, settings)
        ImaginePorts.of(model, spec)  # refuses what does not fit the model
        # By graph name, so that two spellings of one planner are compiled once.
        found[spec.graph] = spec
    return tuple(found.values())


def elites_of(preset: PlannerPreset, settings: PlannerSettings) -> int:
    """E, and so the K of the graph's `TopK`; 0 for mppi, which weighs all candidates."""
    if preset.kind == "mppi":
        return 0
    # A tenth of few samples would leave one or two, too few for a spread.
    share = max(_FEWEST_ELITES, round(_ELITE_SHARE * preset.samples))
    return min(_given(settings.elites, share), preset.samples)


def _spec(preset: PlannerPreset, model: WorldModel, settings: PlannerSettings) -> PlannerSpec:
    kind, names, probe = preset.kind, model.action.names, model.heads.probe_spec
    quantities = () if probe is None else probe.quantities
    horizon = _given(preset.horizon, model.config.horizon)
    icem, elites = kind == "icem", elites_of(preset, settings)
    shares = settings.std_start or (settings.std_scale,) * len(names)
    if len(shares) != len(names):
        raise UsageError(f"std_start has {len(shares)} numbers, an action has {len(names)}")
    weights = CostWeights(_TERMINAL_BESIDE_PROBE) if quantities else CostWeights()
    try:
        return PlannerSpec(
            graph=graph_name(kind, preset.samples, horizon),
            kind=kind,
            samples=preset.samples,
            horizon=horizon,
            elites=elites,
            kept=_given(settings.kept, round(_KEPT_SHARE * elites)) if icem else 0,
            momentum=_given(settings.momentum, 0.1) if icem else 0.0,
            context=_given(settings.context, model.config.history),
            rate_limited=_given(settings.rate_limited, model.action.rate_limit_per_s is not None),
            start=settings.start,
            noise_beta=_given(settings.noise_beta, 2.0 if icem else 0.0),
            iterations=settings.iterations,
            weights=_given(settings.weights, weights),
            probe_weight=_given(settings.probe_weight, dict.fromkeys(quantities, 1.0)),
            std_start=tuple(s * std for s, std in zip(shares, model.action.std, strict=True)),
            temperature=settings.temperature,
        )
    except ArtefactError as error:
        raise UsageError(f"planner {preset} with its settings: {error}") from None


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
