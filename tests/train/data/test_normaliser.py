from __future__ import annotations

import numpy as np
import pytest

from jetsight.errors import DataError
from jetsight_train.data.normaliser import check_range, is_still, measure

RNG = np.random.default_rng(0)
MOVING = RNG.normal(0.5, 0.2, 500)


def columns(*each: object) -> np.ndarray:
    return np.column_stack([np.broadcast_to(c, 500) for c in each]).astype(np.float32)


@pytest.mark.parametrize("value", [3.0, 0.1, 0.0, -1e6, 1e-9])
def test_a_constant_column_has_scale_one_and_its_exact_value(value: float) -> None:
    found = measure(columns(MOVING, value), ("a", "b"))
    assert found.fixed == ("b",)
    assert found.std[1] == 1.0
    assert found.mean[1] == float(np.float32(value))
    assert found.std[0] == pytest.approx(MOVING.std(), rel=1e-4)


@pytest.mark.parametrize(
    ("column", "span", "still"),
    [
        (1000.0 + 1e-4 * RNG.uniform(size=500), None, True),  # below the rounding of float32
        (1e-9 * RNG.uniform(size=500), None, False),  # small units, but motion
        (5.0 + 1e-4 * RNG.uniform(size=500), 10.0, True),  # noise of a sensor in its range
        (5.0 + 1e-2 * RNG.uniform(size=500), 10.0, False),
        (np.r_[np.zeros(499), 1.0], 1.0, False),  # a gripper that closes once
    ],
)
def test_near_constant_is_judged_by_range_and_magnitude(
    column: np.ndarray, span: float | None, still: bool
) -> None:
    both = columns(MOVING, column)
    limits = None if span is None else (2.0, span)
    assert is_still(both, limits).tolist() == [False, still]
    assert measure(both, ("a", "b"), limits).fixed == (("b",) if still else ())


def test_a_rare_event_is_not_worth_hundreds_of_deviations() -> None:
    column = np.zeros((100_000, 1), np.float32)
    column[7] = 1.0
    found = measure(column, ("grip",))
    assert (1.0 - found.mean[0]) / found.std[0] < 101
    assert column.std() < 0.0035  # without the floor it would be more than 300


def test_a_mean_of_many_ticks_does_not_round() -> None:
    column = np.full((200_000, 1), 16.1, np.float32)
    column[0] = 17.0
    assert measure(column, ("a",)).mean[0] == pytest.approx(float(np.float32(16.1)), abs=1e-5)


@pytest.mark.parametrize("bad", [1e30, -2e9, np.nan, np.inf])
def test_numbers_that_no_robot_has_name_their_column(bad: float) -> None:
    values = columns(MOVING, 1.0)
    values[42, 1] = bad
    with pytest.raises(DataError, match=r"here: 'b' is .* at tick 42"):
        check_range(values, ("a", "b"), "here")
    values[42, 1] = 1e8  # the control: large, but usable
    check_range(values, ("a", "b"), "here")
