"""Results of an evaluation, written as one JSON file.

    format, version   "jetsight-eval", "2.0"
    settings          the options; equal settings and versions give equal rows; `task` says what
                      success is, and names measures, further criteria and kinds of episodes
    versions          of jetsight, the simulator and every library used
    machine           hardware and load, to interpret the latencies
    bundle, against   the artefacts: name, digest of the checkpoint, family, precision, backend
    summary.arms      per arm: `success` as {count, of, rate, low, high} (Wilson, 95 %), the same
                      for each further criterion in `also` and each kind of episodes in `by_kind`;
                      `mean_off`, the mean distance to the goal at the end of a trial by measure;
                      plans, share of valid ones, reasons of invalid ones, latency in ms, ticks on
                      which an action was held without a plan, ticks on which success could not be
                      computed; with a region also `violation` (episodes with the robot inside at
                      any tick) and `violation_ticks` (share of ticks inside, bootstrap over
                      episodes)
    summary.pairs     the bundle beside every other arm on the same episodes: difference of success
                      rates with its interval, discordant episodes, exact McNemar p-value
    summary.keep_out  reduction of violations by the constraint; null without a region
    rows              one per episode and arm, see `rollout.EpisodeResult`: `start_sha256` is a
                      digest of the exact physical start state, equal in every arm; `off` holds the
                      distances of the last tick; `success_tick` counts from the start, null without
                      success

Success is judged at every tick after the start. A trial ends when success and every further
criterion hold, or with the budget. PushT: agent and block are each within 20 px and the block's
angle within pi/9 of the goal; its further criterion `joint` is stable-worldmodel's: one distance
over both positions below 20 px, and the angle. Version 1.0 knew that task alone, and had
`joint_success`, `success_block_moves` and `mean_agent_px` in place of `also`, `by_kind` and
`mean_off`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight_compile.closed_loop.rollout import EpisodeResult
from jetsight_compile.closed_loop.statistics import (
    Paired,
    Rate,
    Reduction,
    clustered,
    paired,
    reduction,
    wilson,
)

FORMAT, VERSION = "jetsight-eval", "2.0"
BUNDLE, FREE = "bundle", "bundle unconstrained"


@dataclass(frozen=True)
class PlanLatency:
    """Latency of plans in ms, from call to return."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Share:
    """A share of ticks with a bootstrap interval over episodes."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmSummary:
    """One arm over all episodes; see the module's docstring."""

    success: Rate
    also: Mapping[str, Rate]
    by_kind: Mapping[str, Rate]
    mean_off: Mapping[str, float | None]
    mean_success_tick: float | None
    uncomputed_ticks: int
    plans: int
    valid_plans: int
    no_plan_reasons: Mapping[str, int]
    held_ticks: int
    surprising_ticks: int
    plan_ms: PlanLatency | None
    violation: Rate | None
    violation_ticks: Share | None


@dataclass(frozen=True)
class Pair:
    """The comparison of two arms by name."""

    first: str
    second: str
    comparison: Paired


@dataclass(frozen=True)
class KeepOut:
    """Violations without (`free`) and with (`constrained`) the constraint."""

    episodes: Reduction
    ticks_reduction: float | None
    comparison: Paired


@dataclass(frozen=True)
class Summary:
    """Statistics over the rows."""

    arms: Mapping[str, ArmSummary]
    pairs: tuple[Pair, ...]
    keep_out: KeepOut | None


@dataclass(frozen=True)
class EvalResults:
    """The whole file."""

    format: str
    version: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    bundle: Mapping[str, Any]
    against: Mapping[str, Any] | None
    summary: Summary
    rows: tuple[EpisodeResult, ...]


def summarize(
    rows: Sequence[EpisodeResult], *, seed: int, region: bool, kinds: Sequence[str] = ()
) -> Summary:
    """Summarize the rows of paired arms.

    Args:
        rows: every arm has the same episodes in the same order.
        seed: of bootstrap intervals.
        region: the evaluation had a keep-out region.
        kinds: of episodes, to count apart.
    """
    by_arm: dict[str, list[EpisodeResult]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    arms = {name: _arm(trials, seed, region, kinds) for name, trials in by_arm.items()}
    first = BUNDLE if BUNDLE in by_arm else next(iter(by_arm))
    pairs = tuple(
        Pair(first, other, paired(_solved(by_arm[first]), _solved(by_arm[other])))
        for other in by_arm
        if other != first
    )
    keep_out = None
    if region and BUNDLE in by_arm and FREE in by_arm:
        keep_out = _keep_out(by_arm[FREE], by_arm[BUNDLE], arms[FREE], arms[BUNDLE])
    return Summary(arms, pairs, keep_out)


def _solved(trials: Sequence[EpisodeResult]) -> list[bool]:
    return [trial.success for trial in trials]


def _arm(
    trials: Sequence[EpisodeResult], seed: int, region: bool, kinds: Sequence[str]
) -> ArmSummary:
    reached = [trial.success_tick for trial in trials if trial.success_tick is not None]
    inside, ticks = [trial.inside_ticks for trial in trials], [trial.ticks for trial in trials]
    reasons: Counter[str] = Counter()
    for trial in trials:
        reasons.update(trial.no_plan_reasons)
    return ArmSummary(
        success=_success(trials),
        also={
            name: wilson(sum(trial.also[name] for trial in trials), len(trials))
            for name in trials[0].also
        },
        by_kind={
            kind: _success([trial for trial in trials if trial.kind == kind]) for kind in kinds
        },
        mean_off={name: _mean([trial.off[name] for trial in trials]) for name in trials[0].off},
        mean_success_tick=_mean(reached),
        uncomputed_ticks=sum(trial.uncomputed_ticks for trial in trials),
        plans=sum(trial.plans for trial in trials),
        valid_plans=sum(trial.valid_plans for trial in trials),
        no_plan_reasons=dict(reasons),
        held_ticks=sum(trial.held_ticks for trial in trials),
        surprising_ticks=sum(trial.surprising_ticks for trial in trials),
        plan_ms=_latency([value for trial in trials for value in trial.plan_ms]),
        violation=wilson(sum(_entered(trials)), len(trials)) if region else None,
        violation_ticks=Share(*clustered(inside, ticks, seed)) if region else None,
    )


def _success(trials: Sequence[EpisodeResult]) -> Rate:
    return wilson(sum(_solved(trials)), len(trials))


def _entered(trials: Sequence[EpisodeResult]) -> list[bool]:
    return [trial.inside_ticks > 0 for trial in trials]


def _keep_out(
    free: Sequence[EpisodeResult],
    constrained: Sequence[EpisodeResult],
    base: ArmSummary,
    after: ArmSummary,
) -> KeepOut:
    assert base.violation is not None
    assert after.violation is not None
    ticks = None
    if base.violation_ticks is not None and after.violation_ticks is not None:
        before = base.violation_ticks.rate
        ticks = 1.0 - after.violation_ticks.rate / before if before > 0 else None
    comparison = paired(_entered(free), _entered(constrained))
    return KeepOut(reduction(base.violation, after.violation), ticks, comparison)


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the numbers among `values`; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _latency(values: Sequence[float]) -> PlanLatency | None:
    if not values:
        return None
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return PlanLatency(p50, p90, p99, max(values))
