"""A lab: the keep-out region of any task, and bounds as the environment's float32 has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jetsight.errors import UsageError
from jetsight_compile.closed_loop import lab
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.tasks.region import Region, RegionFrame
from jetsight_train.model.hazard_rules import Disc

NAMES = ("x", "y", "heading")
DISC = Disc(("x", "y"), (1.0, 1.5), 0.25)
GIVEN = Region(0.5, 0.5, 0.1)


def settings(region: Region | None = None) -> EvalConfig:
    return EvalConfig("b.jetsight", "toy-v0", 1, 0, keep_out=True, region=region)


def found(
    region: Region | None, columns: tuple[str, ...], disc: Disc | None, names: Any = NAMES
) -> tuple[RegionFrame, Region]:
    """What a run keeps out of: a region or not, a task's columns or not, a checkpoint or not."""
    frame = RegionFrame.of(columns, names, "it") if columns else None
    hazards = [SimpleNamespace(rule=SimpleNamespace(disc=each)) for each in (None, disc)]
    heads = SimpleNamespace(heads=SimpleNamespace(hazards=hazards))
    reference = None if disc is None else SimpleNamespace(model=heads)
    environment = SimpleNamespace(env_id="toy-v0", state_names=list(names))
    parts: Any = (settings(region), SimpleNamespace(region=frame), environment, reference)
    return lab._region(*parts)


def test_the_region_is_the_given_one_else_that_of_the_checkpoints_hazard() -> None:
    trained = Region(1.0, 1.5, 0.25)
    assert found(GIVEN, ("x", "y"), None)[1] == GIVEN
    assert found(GIVEN, ("x", "y"), DISC)[1] == GIVEN
    assert found(None, ("x", "y"), DISC)[1] == trained
    frame, region = found(None, (), DISC)
    assert (frame.columns, region) == (("x", "y"), trained), "columns of the hazard"
    assert found(GIVEN, (), DISC)[0].columns == ("x", "y")


@pytest.mark.parametrize(
    ("region", "columns", "disc", "says"),
    [
        (None, ("x", "y"), None, "give the keep-out region with --region"),
        (None, ("y", "x"), DISC, "give the keep-out region with --region"),  # of other columns
        (GIVEN, (), None, "--region-columns, two of x, y, heading"),
    ],
)
def test_a_region_without_place_is_refused(
    region: Region | None, columns: tuple[str, ...], disc: Disc | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        found(region, columns, disc)


def test_a_hazard_of_columns_that_the_environment_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="has no column 'x'"):
        found(None, (), DISC, names=("a", "b"))


def test_bounds_agree_in_float32_and_wider_ones_are_refused() -> None:
    box = SimpleNamespace(
        env_id="toy-v0", action_low=np.float32([-0.7]), action_high=np.float32([0.7])
    )

    def check(low: float, high: float) -> None:
        manifest: Any = SimpleNamespace(action=SimpleNamespace(low=(low,), high=(high,)))
        lab._check_bounds(box, manifest)  # type: ignore[arg-type]

    check(-0.7, 0.7)  # float32's 0.7 is a little less
    check(-0.1, 0.5)
    for low, high in ((-0.71, 0.7), (-0.7, 0.71)):
        with pytest.raises(UsageError, match="evaluate it in the environment"):
            check(low, high)
