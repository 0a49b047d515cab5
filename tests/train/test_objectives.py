from __future__ import annotations

import numpy as np
import pytest
import torch

from jetsight_train.objectives import (
    ObjectiveConfig,
    anchor_term,
    barlow_twins,
    covariance_term,
    cross_correlation,
    motion_term,
    objective_terms,
    off_diagonal,
    temporal_term,
    variance_term,
    vicreg,
)


def test_variance_term_by_hand() -> None:
    z = torch.tensor([[0.0, 3.0], [1.0, -3.0]])
    stds = np.sqrt(np.array([0.5, 18.0]) + 1e-4)
    assert variance_term(z).item() == pytest.approx(np.maximum(0, 1 - stds).mean(), rel=1e-5)


def test_covariance_term_is_numpys() -> None:
    z = torch.randn(200, 7) @ torch.randn(7, 7)
    covariance = np.cov(z.numpy().T)
    expected = (np.square(covariance).sum() - np.square(np.diag(covariance)).sum()) / 7
    assert covariance_term(z).item() == pytest.approx(expected, rel=1e-4)


def test_off_diagonal_leaves_out_exactly_the_diagonal() -> None:
    matrix = torch.arange(9.0).view(3, 3)
    assert sorted(off_diagonal(matrix).tolist()) == [1, 2, 3, 5, 6, 7]


def test_cross_correlation_is_numpys() -> None:
    a, b = torch.randn(300, 4), torch.randn(300, 4)
    expected = np.corrcoef(a.numpy().T, b.numpy().T)[:4, 4:]
    np.testing.assert_allclose(cross_correlation(a, b).numpy(), expected, atol=1e-4)


def test_barlow_prefers_equal_and_decorrelated() -> None:
    config = ObjectiveConfig("barlow")
    good = torch.randn(4096, 8)
    redundant = good[:, :1].expand(-1, 8) + 0.01 * torch.randn(4096, 8)
    total = {
        name: sum(term.item() for term in barlow_twins(z, target, config).values())
        for name, (z, target) in {
            "equal": (good, good),
            "redundant": (redundant, redundant),
            "unrelated": (good, good.roll(1, 0)),
        }.items()
    }
    assert total["equal"] < 0.05 * min(total["redundant"], total["unrelated"])


def test_vicreg_constants_are_the_papers() -> None:
    config = ObjectiveConfig("vicreg")
    assert (config.prediction, config.variance, config.covariance) == (25.0, 25.0, 1.0)
    assert config.redundancy == 0.0051


def test_constant_latents_pay_the_full_variance_term() -> None:
    z = torch.zeros(64, 8)
    terms = vicreg(z, z, z, ObjectiveConfig("vicreg"))
    assert terms["variance"].item() == pytest.approx(25.0 * 0.99, rel=1e-3)
    assert terms["prediction"].item() == 0.0


def test_the_control_objective_is_blind_to_collapse() -> None:
    z = torch.zeros(64, 8)
    terms = objective_terms(z, z, z.view(8, 8, 8), ObjectiveConfig("none", temporal=1.0))
    assert set(terms) == {"prediction"}


def test_temporal_term_counts_change_within_a_window_only() -> None:
    still = torch.randn(5, 1, 4).expand(-1, 3, -1)
    assert temporal_term(still).item() == 0.0
    moving = torch.arange(3.0).view(1, 3, 1).expand(5, -1, 4)
    assert temporal_term(moving).item() == pytest.approx(1.0)


def test_the_slowness_prior_is_off_unless_asked_for() -> None:
    windows = torch.randn(6, 3, 4)
    predicted = windows[:, 1:].flatten(0, 1)
    plain = objective_terms(predicted, predicted, windows, ObjectiveConfig("vicreg"))
    slow = objective_terms(predicted, predicted, windows, ObjectiveConfig("vicreg", temporal=2.0))
    assert "temporal" not in plain
    assert slow["temporal"].item() == pytest.approx(2.0 * temporal_term(windows).item())


def test_motion_term_is_paid_by_what_stays_and_not_by_what_moves() -> None:
    moves = torch.randn(512, 2, 3) * 1.5
    stays = torch.randn(512, 1, 3).expand(-1, 2, -1) * 1.5
    assert motion_term(moves).item() == 0.0
    assert motion_term(stays).item() == pytest.approx(0.99, abs=1e-6)  # 1 - sqrt(eps)


def test_slow_and_moving_dimensions_are_apart() -> None:
    windows = torch.randn(64, 2, 8)
    windows[..., :4] = windows[:, :1, :4]  # the slow half does not move, the other does
    config = ObjectiveConfig("vicreg", temporal=1.0, slow_share=0.5, motion=1.0)
    terms = objective_terms(windows[:, 0], windows[:, 1], windows, config)
    swapped = objective_terms(windows[:, 0], windows[:, 1], windows.flip(-1), config)
    assert terms["temporal"].item() == 0.0
    assert terms["motion"].item() < 0.2
    assert swapped["temporal"].item() > 0.5
    assert swapped["motion"].item() > 0.9


@pytest.mark.parametrize(
    "wrong", [{"rollout_steps": 0}, {"context": -1}, {"motion": 1.0, "slow_share": 1.0}]
)
def test_objectives_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|below 1"):
        ObjectiveConfig("vicreg", **wrong)


def test_anchor_term_looks_at_the_first_dimensions_only() -> None:
    anchors = torch.randn(5, 2, 3)
    z = torch.cat([anchors, torch.randn(5, 2, 4)], dim=-1)
    assert anchor_term(z, anchors).item() == 0.0
    assert anchor_term(z.flip(-1), anchors).item() > 0.1
