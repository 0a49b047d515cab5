from __future__ import annotations

import numpy as np
import pytest
import torch

from jetsight_train.model.hazard_rules import Box, ColumnRule, Disc, HazardRule
from jetsight_train.model.heads import (
    HazardHead,
    HazardHeadSpec,
    Heads,
    ProbeHead,
    ProbeHeadSpec,
    SupportHead,
)

D, A, P, G = 8, 6, 3, 2
SPEC = ProbeHeadSpec(("x", "cos a", "sin a"), ("px", "1", "1"), (2.0, 0.7, 0.7))
DISC = HazardRule(disc=Disc(("x", "y"), (3.0, 4.0), 2.0))


@pytest.mark.parametrize("lead", [(), (5,), (4, 3)])
def test_heads_take_any_leading_axes(lead: tuple[int, ...]) -> None:
    z, a = torch.randn(*lead, D), torch.randn(*lead, A)
    assert ProbeHead(D, P)(z).shape == (*lead, P)
    assert HazardHead(D, A, G)(z, a, z).shape == (*lead, G)
    assert SupportHead(D)(z).shape == lead


def test_normalisers_are_inside_and_stored() -> None:
    head = ProbeHead(D, P, (4,))
    z = torch.randn(5, D)
    plain = head(z)
    head.y_mean.fill_(100.0)
    head.y_std.fill_(7.0)
    torch.testing.assert_close(head(z), 7.0 * plain + 100.0)
    head.z_mean.fill_(1.0)
    head.z_std.fill_(2.0)
    torch.testing.assert_close(head(2.0 * z + 1.0), 7.0 * plain + 100.0)
    assert {"z_mean", "z_std", "y_mean", "y_std"} <= set(head.state_dict())


def test_a_hazard_head_normalises_actions_in_robot_units() -> None:
    head = HazardHead(D, A, G, (4,))
    z, a = torch.randn(5, D), torch.randn(5, A)
    plain = head(z, a, z)
    head.a_mean.fill_(250.0)
    head.a_std.fill_(100.0)
    torch.testing.assert_close(head(z, 100.0 * a + 250.0, z), plain)


def test_heads_and_their_specs_come_together() -> None:
    hazards = (HazardHeadSpec("wall", 0.0, 0.05, DISC),)
    assert Heads().is_empty
    assert not Heads(ProbeHead(D, P), HazardHead(D, A, 1), None, SPEC, hazards).is_empty
    for wrong in (
        {"probe": ProbeHead(D, P)},
        {"probe_spec": SPEC},
        {"hazards": hazards},
        {"hazard": HazardHead(D, A, 1)},
    ):
        with pytest.raises(ValueError, match="needs its"):
            Heads(**wrong)  # type: ignore[arg-type]


def test_a_disc_is_round_and_a_box_is_not() -> None:
    columns = {"x": np.float32([3.0, 5.0, 4.9, 5.1]), "y": np.float32([4.0, 4.0, 5.9, 4.0])}
    assert DISC.happens(columns).tolist() == [True, True, False, False]
    box = HazardRule(box=Box(("x", "y"), (1.0, 2.0), (5.0, 6.0)))
    assert box.happens(columns).tolist() == [True, True, True, False]


def test_a_column_named_next_tells_of_the_tick_after_its_row() -> None:
    flags = np.float32([0, 1, 0, 0])
    of = {name: HazardRule(recorded=ColumnRule(name)) for name in ("bump", "next.bump")}
    assert of["bump"].happens({"bump": flags}).tolist() == [False, True, False, False]
    assert of["next.bump"].happens({"next.bump": flags}).tolist() == [False, False, True, False]


@pytest.mark.parametrize("radius", [-60.0, 0.0, float("nan"), float("inf")])
def test_a_disc_without_area_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        Disc(("x",), (0.0,), radius)


def test_rules_that_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="one number per column"):
        Disc(("x", "y"), (0.0,), 1.0)
    with pytest.raises(ValueError, match="below high"):
        Box(("x",), (2.0,), (1.0,))
    with pytest.raises(ValueError, match="exactly one of"):
        HazardRule()
    with pytest.raises(ValueError, match="exactly one of"):
        HazardRule(disc=DISC.disc, recorded=ColumnRule("bump"))


def test_a_probe_spec_must_fit_itself() -> None:
    with pytest.raises(ValueError, match="one unit and one scale"):
        ProbeHeadSpec(("x",), ("px", "px"), (1.0,))
    with pytest.raises(ValueError, match="twice"):
        ProbeHeadSpec(("x", "x"), ("px", "px"), (1.0, 1.0))
    with pytest.raises(ValueError, match="positive"):
        ProbeHeadSpec(("x",), ("px",), (0.0,))
