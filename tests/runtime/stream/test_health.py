"""Modes: worse at once, better only after enough good frames; one table of limits."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.stream.frames import Mode, Reason
from jetsight.stream.health import FrozenDetector, HealthLimits, HealthMonitor

P = 100_000_000


def _good(health: HealthMonitor, count: int) -> None:
    for _ in range(count):
        health.frame(0, None, 0, frozen=False)


@pytest.mark.parametrize(
    ("periods", "mode"),
    [(1.9, Mode.OK), (2.1, Mode.DEGRADED), (5.1, Mode.HOLD), (10.1, Mode.FAULT)],
)
def test_age_decides_the_mode(periods: float, mode: Mode) -> None:
    health = HealthMonitor(P)
    health.stall(round(periods * P), Reason.CAMERA_LOST)
    assert health.mode is mode
    assert health.alive == (mode < Mode.HOLD)
    assert health.reason is (Reason.OK if mode is Mode.OK else Reason.CAMERA_LOST)


def test_recovery_takes_ten_good_frames_in_a_row() -> None:
    health = HealthMonitor(P)
    health.stall(6 * P, Reason.CAMERA_LOST)
    _good(health, 9)
    assert health.mode is Mode.HOLD
    health.frame(0, Reason.LATENT_NOT_FINITE, 0, frozen=False)  # one bad frame: count again
    _good(health, 9)
    assert health.mode is Mode.HOLD
    _good(health, 1)
    assert health.mode is Mode.OK


def test_recovery_is_only_as_good_as_the_frames_were() -> None:
    health = HealthMonitor(P)
    health.stall(6 * P, Reason.CAMERA_LOST)
    for _ in range(10):
        health.frame(0, None, 0, frozen=True)
    assert (health.mode, health.reason) == (Mode.DEGRADED, Reason.FROZEN)


def test_ten_broken_latents_in_a_row_are_a_fault_and_nine_are_not() -> None:
    for count, mode in ((9, Mode.OK), (10, Mode.FAULT)):
        health = HealthMonitor(P)
        for _ in range(count):
            health.frame(0, Reason.LATENT_NOT_FINITE, 0, frozen=False)
        assert health.mode is mode


def test_many_drops_degrade_and_few_do_not() -> None:
    for lost, mode in ((1, Mode.DEGRADED), (0, Mode.OK)):
        health = HealthMonitor(P)
        for _ in range(100):  # 10 s, the time constant of the filter
            health.frame(0, None, lost, frozen=False)
        assert health.mode is mode
        assert health.freq_ok == (mode is Mode.OK)


def test_one_long_gap_alone_does_not_degrade() -> None:
    health = HealthMonitor(P)
    health.frame(0, None, 50, frozen=False)
    assert health.mode is Mode.OK


def test_limits_can_be_changed() -> None:
    health = HealthMonitor(P, HealthLimits(stale_periods=0.5))
    assert health.is_stale(P)
    assert not HealthMonitor(P).is_stale(P)


@pytest.mark.parametrize("shape", [(8, 12, 3), (5, 7, 3)])  # one divides by eight, one does not
def test_frozen_pixels_are_found_and_noise_is_not(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, shape, np.uint8)
    frozen, noisy = FrozenDetector(shape, 10 * P), FrozenDetector(shape, 10 * P)
    for i in range(11):
        noise = still.copy()
        noise.flat[i % noise.size] += 1  # one pixel by one
        assert not frozen.update(still, i * P)
        assert not noisy.update(noise, i * P)
    assert frozen.update(still, 11 * P)
    assert not noisy.update(still, 11 * P)
    assert not frozen.update(255 - still, 12 * P)
