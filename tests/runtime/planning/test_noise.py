"""The planner's noise: colour, variance, and the same numbers in whatever order they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.planning.noise import Noise, colouring


def make(beta: float = 2.0, iterations: int = 4) -> Noise:
    noise = Noise(iterations, samples=2000, horizon=5, block=5, step_size=2, beta=beta)
    noise.use((1, 2))
    return noise


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 4.0])
def test_every_tick_has_variance_one_and_sample_zero_is_the_mean(beta: float) -> None:
    noise = make(beta)
    assert noise.draw(0)
    drawn = noise.by_tick[0]
    assert drawn.shape == (2000, 25, 2)
    assert not drawn[0].any()
    np.testing.assert_allclose(drawn[1:].std(axis=0), 1.0, atol=0.08)
    np.testing.assert_allclose(drawn[1:].mean(axis=0), 0.0, atol=0.12)
    assert np.shares_memory(drawn, noise.values)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("ticks", [10, 25])
def test_power_falls_with_frequency_as_asked(beta: float, ticks: int) -> None:
    """The slope of log power over log frequency, each bin averaged over 4000 signals."""
    white = np.random.default_rng(0).standard_normal((ticks, 4000))
    signal = colouring(ticks, beta) @ white if beta else white
    power = (np.abs(np.fft.rfft(signal, axis=0)) ** 2).mean(axis=1)
    inner = slice(1, (ticks - 1) // 2 + 1)  # without the constant and the last one
    frequency = np.arange(len(power))[inner]
    slope = np.polyfit(np.log(frequency), np.log(power[inner]), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.1)


@pytest.mark.parametrize("ticks", [1, 2, 3, 10, 25])
def test_colouring_is_stationary_and_loses_nothing(ticks: int) -> None:
    matrix = colouring(ticks, 2.0)
    covariance = matrix @ matrix.T
    np.testing.assert_allclose(np.diag(covariance), 1.0, rtol=1e-5)
    for shift in range(ticks):
        np.testing.assert_allclose(
            np.diag(np.roll(covariance, -shift, 1)), covariance[0, shift], atol=1e-5
        )
    assert np.linalg.matrix_rank(matrix) == ticks


def test_neighbours_look_alike_only_when_coloured() -> None:
    def alike(beta: float) -> float:
        noise = make(beta)
        noise.draw(0)
        signal = noise.by_tick[0, 1:]
        return float((signal[:, 1:] * signal[:, :-1]).mean())

    assert alike(2.0) > 0.5
    assert abs(alike(0.0)) < 0.05  # negative control


def test_numbers_depend_on_key_and_iteration_alone() -> None:
    ahead, late = make(), make()
    while ahead.prepare() is not None:
        pass
    for iteration in (3, 0, 2, 1):
        late.draw(iteration)
    np.testing.assert_array_equal(ahead.values, late.values)
    before = ahead.values.copy()
    ahead.use((1, 2))
    assert ahead.prepare() is None  # the same key: all of it is there
    ahead.use((1, 3))
    assert ahead.prepare() == 0
    assert not np.array_equal(ahead.values[0], before[0])
    assert not np.array_equal(before[0], before[1])


def test_more_iterations_than_slots_are_drawn_again() -> None:
    small, large = make(iterations=2), make(iterations=6)
    for iteration in range(6):
        small.draw(iteration)
        large.draw(iteration)
        np.testing.assert_array_equal(small.values[small.slot(iteration)], large.values[iteration])
    assert small.draw(0)  # it was overwritten
    assert not small.draw(0)


def test_nothing_is_drawn_for_nobody() -> None:
    assert Noise(2, 4, 1, 1, 1, 0.0).prepare() is None
