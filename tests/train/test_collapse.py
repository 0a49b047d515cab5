from __future__ import annotations

import pytest
import torch

from jetsight.errors import ArtefactError, CollapseError
from jetsight_train.collapse import CollapseMonitor, LatentHealth, MonitorConfig, latent_health


def test_effective_rank_of_known_spectra() -> None:
    assert latent_health(torch.randn(20000, 12)).effective_rank == pytest.approx(12, abs=0.1)
    flat = torch.randn(5000, 3) @ torch.linalg.qr(torch.randn(12, 12))[0][:3]
    assert latent_health(flat).effective_rank == pytest.approx(3, abs=0.05)


def test_correlation_of_copies_is_one() -> None:
    z = torch.randn(500, 1).expand(-1, 6)
    assert latent_health(z).correlation == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "dead",
    [
        LatentHealth(1e-4, 0.0, 0.5, 60.0),  # all frames look alike
        LatentHealth(1.0, 1.0, 0.9, 2.0),  # many dimensions, one number
        LatentHealth(float("nan"), float("nan"), float("nan"), float("nan")),
    ],
)
def test_a_dead_run_is_stopped_after_patience(dead: LatentHealth) -> None:
    monitor = CollapseMonitor(MonitorConfig(warmup_steps=10, patience=3), 64)
    monitor.check(5, dead)
    monitor.check(10, dead)
    monitor.check(20, dead)
    with pytest.raises(CollapseError, match=r"step 30.*objective\.variance"):
        monitor.check(30, dead)


def test_a_living_run_and_a_short_dip_are_not_stopped() -> None:
    monitor = CollapseMonitor(MonitorConfig(warmup_steps=0, patience=2), 64)
    dead, alive = LatentHealth(0.0, 0.0, 0.0, 1.0), LatentHealth(1.0, 0.9, 0.05, 50.0)
    for step in range(20):
        monitor.check(step, dead if step % 2 else alive)


@pytest.mark.parametrize(
    "wrong", [{"every_steps": 0}, {"patience": 0}, {"warmup_steps": -1}, {"min_rank_share": 1.5}]
)
def test_a_monitor_that_never_looks_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises((ArtefactError, ValueError), match=next(iter(wrong))):
        MonitorConfig(**wrong)  # type: ignore[arg-type]
    MonitorConfig()
