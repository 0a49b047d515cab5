"""Percentiles: close to numpy's, exact at the extremes, constant in memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetsight.histogram import Histogram


def _recorded(values: list[float]) -> Histogram:
    recorder = Histogram()
    for value in values:
        recorder.add(value)
    return recorder


@given(
    values=st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=300),
    percent=st.sampled_from([1, 10, 50, 90, 99, 99.9]),
)
def test_percentile_is_within_a_quarter_percent_of_a_sample(
    values: list[float], percent: float
) -> None:
    rank = max(1, math.ceil(len(values) * percent / 100))
    exact = sorted(values)[rank - 1]
    assert _recorded(values).percentile(percent) == pytest.approx(exact, rel=2.5e-3)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=100))
def test_extremes_count_and_mean_are_exact(values: list[float]) -> None:
    recorder = _recorded(values)
    assert recorder.max == max(values)
    assert recorder.min == min(values)
    assert recorder.count == len(values)
    assert recorder.mean == pytest.approx(float(np.mean(values)))
    assert recorder.summary()["max"] == max(values)


def test_one_outlier_in_a_thousand_is_the_maximum_and_not_the_p99() -> None:
    recorder = _recorded([1.0] * 999 + [500.0])
    assert recorder.summary()["max"] == 500.0
    assert recorder.summary()["p99"] == pytest.approx(1.0, rel=3e-3)


def test_two_percent_outliers_are_the_p99() -> None:
    """Negative control of the test above: nothing is trimmed."""
    assert _recorded([1.0] * 98 + [500.0] * 2).summary()["p99"] == pytest.approx(500.0, rel=3e-3)


def test_nan_is_counted_apart() -> None:
    recorder = _recorded([1.0, math.nan, math.inf, 2.0])
    assert (recorder.count, recorder.not_finite, recorder.max) == (2, 2, 2.0)


def test_empty_and_cleared_recorders_say_zero() -> None:
    recorder = _recorded([3.0])
    recorder.clear()
    assert recorder.summary() == Histogram().summary() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
