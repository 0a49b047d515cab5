from __future__ import annotations

import numpy as np
import pytest

from jetsight.errors import DataError
from jetsight_train.heads import conformal


@pytest.mark.parametrize(
    ("n", "rate", "rank"),
    [(19, 0.05, 1), (38, 0.05, 1), (39, 0.05, 2), (99, 0.1, 10), (9, 0.1, 1), (1, 0.5, 1)],
)
def test_the_threshold_is_just_below_the_kth_smallest(n: int, rate: float, rank: int) -> None:
    logits = np.random.default_rng(n).permutation(n).astype(np.float32)
    at = conformal.threshold(logits, rate)
    assert np.float32(at) < rank - 1 < at + 1e-4
    missed = conformal.miss_rate(logits, np.ones(n, bool), at)
    assert missed == pytest.approx((rank - 1) / n)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.3])
def test_too_few_hazardous_blocks_promise_nothing(rate: float) -> None:
    need = conformal.needed(rate)
    conformal.threshold(np.zeros(need, np.float32), rate)
    with pytest.raises(DataError, match=f"at least {need} to calibrate on"):
        conformal.threshold(np.zeros(need - 1, np.float32), rate)


def missed_on_average(threshold_of: object, n: int, draws: int = 4000) -> float:
    rng = np.random.default_rng(0)
    logits = rng.gumbel(size=(draws, n + 50)).astype(np.float32)
    at = np.array([threshold_of(row[:n]) for row in logits])  # type: ignore[operator]
    return float((logits[:, n:] <= at[:, None]).mean())


@pytest.mark.parametrize("n", [19, 24, 60])
def test_the_promise_holds_for_new_blocks(n: int) -> None:
    kept = missed_on_average(lambda some: conformal.threshold(some, 0.05), n)
    exact = np.floor(0.05 * (n + 1)) / (n + 1)
    assert kept == pytest.approx(exact, abs=0.004)
    assert exact <= 0.05


def test_a_plain_quantile_breaks_the_promise() -> None:
    assert missed_on_average(lambda some: np.quantile(some, 0.05), 24) > 0.07


def test_equal_logits_are_not_missed() -> None:
    logits = np.full(40, 1.25, np.float32)
    at = conformal.threshold(logits, 0.05)
    assert conformal.miss_rate(logits, np.ones(40, bool), at) == 0.0


def test_rates_by_hand() -> None:
    logits = np.float32([0.0, 1.0, 2.0, 3.0])
    truth = np.array([False, True, False, True])
    assert conformal.miss_rate(logits, truth, 1.0) == 0.5
    assert conformal.false_alarm_rate(logits, truth, 1.0) == 0.5
    assert conformal.area_under_curve(logits, truth) == 0.75
    nothing, everything = np.zeros(4, bool), np.ones(4, bool)
    assert conformal.miss_rate(logits, nothing, 1.0) is None
    assert conformal.false_alarm_rate(logits, everything, 1.0) is None
    assert conformal.area_under_curve(logits, nothing) is None


def test_the_area_is_the_share_of_ordered_pairs_with_ties_half() -> None:
    rng = np.random.default_rng(3)
    logits, truth = rng.integers(0, 5, 60).astype(np.float32), rng.random(60) < 0.3
    better = logits[truth][:, None] - logits[~truth][None]
    expected = ((better > 0) + 0.5 * (better == 0)).mean()
    assert conformal.area_under_curve(logits, truth) == pytest.approx(expected)
