"""Rates with confidence intervals, and paired comparison of arms.

All intervals are 95 %. Wilson, JASA 22 (1927) for one rate; Newcombe, Statistics in Medicine 17
(1998) 2635, square-and-add, for a paired difference; Donner and Zou, Statistical Methods in Medical
Research 21 (2012) 347 for a ratio from two Wilson intervals; McNemar, Psychometrika 12 (1947),
in its exact form.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.errors import MissingDependency, UsageError

_RESAMPLES = 4000


@dataclass(frozen=True)
class Rate:
    """`count` of `of`, as a share with its interval; an empty rate has the interval 0 to 1."""

    count: int
    of: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Two arms on the same episodes, `difference` = rate of the first - rate of the second.

    Args:
        only_first: episodes that only the first arm solved.
        only_second: episodes that only the second arm solved.
        difference: of the rates.
        low: lower end of its interval.
        high: upper end of its interval.
        p_value: exact McNemar, two-sided.
    """

    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Reduction:
    """Relative reduction of a rate, 1 = to zero; None if the base rate is 0."""

    reduction: float | None
    low: float | None
    high: float | None


def check_scipy() -> None:
    """Raise `MissingDependency` now instead of after an hour of simulation."""
    _scipy_stats()


def wilson(count: int, of: int) -> Rate:
    """Compute the share `count / of` with Wilson's interval."""
    if of == 0:
        return Rate(0, 0, 0.0, 0.0, 1.0)
    interval = _scipy_stats().binomtest(count, of).proportion_ci(0.95, method="wilson")
    return Rate(count, of, count / of, float(interval.low), float(interval.high))


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two arms episode by episode.

    Args:
        first: success of the first arm per episode.
        second: success of the second arm on the same episodes, in the same order.

    Raises:
        UsageError: the numbers of episodes differ, or there are none.
    """
    if len(first) != len(second) or not len(first):
        raise UsageError(
            f"{len(first)} and {len(second)} episodes cannot be paired; give both arms the same"
        )
    x, y = np.asarray(first, bool), np.asarray(second, bool)
    only_x, only_y = int((x & ~y).sum()), int((y & ~x).sum())
    low, high = _newcombe(int((x & y).sum()), only_x, only_y, int((~x & ~y).sum()))
    difference = float(x.mean() - y.mean())
    return Paired(only_x, only_y, difference, low, high, mcnemar(only_x, only_y))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the discordant pairs under a fair coin; 1 without any."""
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(_scipy_stats().binomtest(only_first, discordant, 0.5).pvalue)


def reduction(base: Rate, after: Rate) -> Reduction:
    """Compute the reduction from `base` to `after`, as a share of `base`.

    The interval is that of two independent rates: too wide for paired ones, and not too narrow if
    the arms are positively correlated over episodes.
    """
    if base.count == 0 or after.of == 0:
        return Reduction(None, None, None)
    low, high = _ratio_interval(after, base)
    return Reduction(1.0 - after.rate / base.rate, 1.0 - high, 1.0 - low)


def clustered(hits: Sequence[int], ticks: Sequence[int], seed: int) -> tuple[float, float, float]:
    """Share `sum(hits) / sum(ticks)` with a percentile bootstrap over episodes.

    Ticks of one episode are correlated, so Wilson over ticks would be far too narrow.

    Returns:
        Share, low, high; all 0 without ticks.
    """
    h, t = np.asarray(hits, np.float64), np.asarray(ticks, np.float64)
    if t.sum() == 0:
        return 0.0, 0.0, 0.0
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(h), size=(_RESAMPLES, len(h)))
    shares = h[rows].sum(axis=1) / np.maximum(t[rows].sum(axis=1), 1.0)
    low, high = np.percentile(shares, (2.5, 97.5))
    return float(h.sum() / t.sum()), float(low), float(high)


def _newcombe(both: int, only_x: int, only_y: int, neither: int) -> tuple[float, float]:
    n = both + only_x + only_y + neither
    x, y = wilson(both + only_x, n), wilson(both + only_y, n)
    margins = (both + only_x) * (only_y + neither) * (both + only_y) * (only_x + neither)
    # Correlation of the two arms over the episodes; 0 if a margin is empty.
    phi = (both * neither - only_x * only_y) / math.sqrt(margins) if margins else 0.0
    difference = x.rate - y.rate

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2.0 * phi * a * b + b * b, 0.0))

    low = difference - reach(x.rate - x.low, y.high - y.rate)
    high = difference + reach(x.high - x.rate, y.rate - y.low)
    return max(low, -1.0), min(high, 1.0)


def _ratio_interval(top: Rate, bottom: Rate) -> tuple[float, float]:
    """Compute the interval of `top.rate / bottom.rate`; `bottom.low` has to be above 0."""
    a, b = top, bottom
    product = a.rate * b.rate

    def bound(mine: float, other: float, sign: float) -> float:
        # Rounding can make a discriminant of zero negative.
        inner = product**2 - mine * other * (2 * a.rate - mine) * (2 * b.rate - other)
        return (product + sign * math.sqrt(max(inner, 0.0))) / (other * (2 * b.rate - other))

    return max(bound(a.low, b.high, -1.0), 0.0), bound(a.high, b.low, 1.0)


def _scipy_stats() -> Any:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as problem:
        raise MissingDependency("scipy", "sim", "the statistics of an evaluation") from problem
