"""Intervals and tests against values worked out by hand or printed in the papers."""

from __future__ import annotations

import math
import sys

import pytest

from jetsight.errors import MissingDependency, UsageError
from jetsight_compile.closed_loop.statistics import (
    check_scipy,
    clustered,
    mcnemar,
    paired,
    reduction,
    wilson,
)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998) 857, table I
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_interval(count: int, of: int, low: float, high: float) -> None:
    found = wilson(count, of)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.rate == count / of
    z = 1.959964
    by_hand = (count + z * z / 2) / (of + z * z)
    assert (found.low + found.high) / 2 == pytest.approx(by_hand, abs=1e-6)


def test_nothing_seen_says_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_mcnemar_is_a_fair_coin_over_discordant_pairs() -> None:
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0


def test_a_pair_counts_who_solved_what_alone() -> None:
    first, second = [True, True, True, False], [True, False, False, True]
    found = paired(first, second)
    assert (found.only_first, found.only_second, found.difference) == (2, 1, 0.25)
    assert found.low < 0.25 < found.high
    back = paired(second, first)
    assert (back.difference, back.low) == pytest.approx((-0.25, -found.high))


def test_the_paired_interval_is_worked_out_by_hand() -> None:
    """36 both, 12 and 2 alone, 0 neither: margins 48 of 50 and 38 of 50."""
    found = paired([True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2)
    x, y = wilson(48, 50), wilson(38, 50)
    phi = (36 * 0 - 12 * 2) / math.sqrt(48 * 2 * 38 * 12)
    a, b = x.rate - x.low, y.high - y.rate
    low = 0.2 - math.sqrt(a * a - 2 * phi * a * b + b * b)
    assert found.difference == pytest.approx(0.2)
    assert found.low == pytest.approx(low)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


def test_more_agreement_makes_the_paired_interval_narrower() -> None:
    agree = paired([True] * 50 + [False] * 50, [True] * 48 + [False] * 52)
    oppose = paired([True] * 50 + [False] * 50, [False] * 50 + [True] * 48 + [False] * 2)
    assert agree.difference == pytest.approx(oppose.difference)
    assert agree.high - agree.low < 0.5 * (oppose.high - oppose.low)


def test_unequal_numbers_are_no_pairs() -> None:
    for first, second in (([True], []), ([], []), ([True], [True, False])):
        with pytest.raises(UsageError, match="cannot be paired"):
            paired(first, second)


def test_reduction_to_nothing_is_still_uncertain() -> None:
    found = reduction(wilson(60, 100), wilson(0, 100))
    assert (found.reduction, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.9 < found.low < 1.0
    none = reduction(wilson(60, 100), wilson(60, 100))
    assert none.low is not None
    assert none.high is not None
    assert none.low < 0.0 < none.high


def test_what_never_happened_cannot_be_reduced() -> None:
    assert reduction(wilson(0, 100), wilson(0, 100)).reduction is None


def test_ticks_of_one_episode_are_not_independent() -> None:
    share, low, high = clustered([50, 0, 0, 0], [50, 50, 50, 50], seed=0)
    over_ticks = wilson(50, 200)
    assert share == 0.25
    assert high - low > 3 * (over_ticks.high - over_ticks.low)
    assert clustered([50, 0, 0, 0], [50, 50, 50, 50], seed=0) == (share, low, high)
    assert clustered([], [], seed=0) == (0.0, 0.0, 0.0)


def test_without_scipy_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingDependency, match="'scipy'"):
        check_scipy()
