"""Agreement of two planners, on orders whose result is known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.compile.probes import windows_of

from jetsight_compile.validate import plan_agreement as module
from jetsight_compile.validate.plan_agreement import (
    CANDIDATES,
    ELITES,
    MOMENTS,
    agreement,
    costs,
    question,
)

N = CANDIDATES
ORDER = np.arange(N, dtype=np.float64)


def test_the_same_order_is_full_agreement_whatever_the_costs() -> None:
    expected = np.stack([ORDER, ORDER[::-1]])
    found = agreement(np.exp(expected), expected)
    assert (found.rank, found.elites, found.first_action) == (1.0, 1.0, 1.0)


def test_the_opposite_order_is_full_disagreement() -> None:
    found = agreement(ORDER[None, ::-1], ORDER[None])
    assert found.rank == pytest.approx(-1.0)
    assert (found.elites, found.first_action) == (0.0, 0.0)


def test_one_swap_of_neighbours_by_hand() -> None:
    swapped = ORDER.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    found = agreement(swapped[None], ORDER[None])
    assert found.rank == pytest.approx(1 - 6 * 2 / (N * (N**2 - 1)))
    assert found.elites == 1.0
    assert found.first_action == 0.0
    edge = ORDER.copy()
    edge[[ELITES - 1, ELITES]] = edge[[ELITES, ELITES - 1]]
    found = agreement(edge[None], ORDER[None])
    assert found.elites == pytest.approx((ELITES - 1) / ELITES)
    assert found.first_action == 1.0


def test_ties_cost_the_same_wherever_their_candidates_stand() -> None:
    """Equal costs in pairs: sqrt(1 - 3 / (N^2 - 1)) by hand, whatever the order within a pair."""
    tied, swapped = ORDER // 2, ORDER.copy()
    swapped[::2], swapped[1::2] = ORDER[1::2], ORDER[::2]
    expected = np.sqrt(1 - 3 / (N**2 - 1))
    assert agreement(tied[None], ORDER[None]).rank == pytest.approx(expected)
    assert agreement(tied[None], swapped[None]).rank == pytest.approx(expected)


def test_agreement_is_a_mean_over_the_moments() -> None:
    found = agreement(np.stack([ORDER, ORDER[::-1]]), np.stack([ORDER, ORDER]))
    assert (found.rank, found.elites, found.first_action) == (pytest.approx(0.0), 0.5, 0.5)


def test_more_noise_is_less_agreement_and_an_ignored_input_leaves_none() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((50, N))
    ranks = [
        agreement(expected + noise * rng.standard_normal((50, N)), expected).rank
        for noise in (0.0, 0.01, 0.1, 1.0, 10.0)
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[1] > 0.99 > ranks[3]
    assert abs(agreement(np.zeros((50, N)), expected).rank) < 0.2


def test_every_moment_is_combined_with_every_candidate() -> None:
    windows = windows_of(40)
    query = question(windows)
    assert len(query.samples) == MOMENTS * CANDIDATES
    assert query.goals.shape == (MOMENTS, windows.z.shape[-1])
    rows = [query.samples[i : i + CANDIDATES] for i in range(0, len(query.samples), CANDIDATES)]
    for row in rows:
        assert len({s["z_hist"].tobytes() + s["a_hist"].tobytes() for s in row}) == 1
    for column in zip(*rows, strict=True):
        assert len({s["actions"].tobytes() for s in column}) == 1
    assert len({s["actions"].tobytes() for s in rows[0]}) == CANDIDATES
    assert len({row[0]["z_hist"].tobytes() for row in rows}) == MOMENTS


def test_the_goal_is_where_the_moment_led() -> None:
    windows = windows_of(40)
    query = question(windows)
    for index, goal in enumerate(query.goals):
        history = query.samples[index * CANDIDATES]["z_hist"]
        (row,) = (i for i in range(40) if np.array_equal(windows.inputs(i)["z_hist"], history))
        np.testing.assert_array_equal(goal, windows.z[row, -1])


def test_few_windows_are_few_candidates() -> None:
    query = question(windows_of(16))
    assert len(query.samples) == MOMENTS * 16


def test_costs_are_distances_of_the_last_latent() -> None:
    query = question(windows_of(40))
    count, (cases, size) = len(query.samples), query.goals.shape
    z_future = np.random.default_rng(0).standard_normal((count, 2, size)).astype(np.float32)
    found = costs(z_future, query)
    assert found.shape == (cases, CANDIDATES)
    by_hand = ((z_future[CANDIDATES + 3, -1] - query.goals[1]) ** 2).sum()
    assert found[1, 3] == pytest.approx(by_hand, rel=1e-5)
    perfect = z_future.copy()
    perfect[2 * CANDIDATES + 7, -1] = query.goals[2]
    assert costs(perfect, query)[2, 7] == 0.0
    first = z_future.copy()
    first[:, 0] += 5.0  # only the end counts
    np.testing.assert_array_equal(costs(first, query), found)


def test_sizes_fit_the_smallest_recording() -> None:
    from jetsight_compile.calibration.data import FEWEST_WINDOWS

    assert module.ELITES < FEWEST_WINDOWS
    assert module.MOMENTS < FEWEST_WINDOWS
