"""When a hazard happens: a region of recorded values, or a recorded column itself.

Shapes: F ticks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[np.float32]]  # name -> [F]


@dataclass(frozen=True)
class Disc:
    """Inside when `columns`, taken as a point, lie within `radius` of `center`, in their unit."""

    columns: tuple[str, ...]
    center: tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        """Refuse a disc without area, and a centre of another dimension than the columns."""
        if not self.columns or len(self.columns) != len(self.center):
            raise ValueError(
                f"disc: {len(self.columns)} columns and a center of {len(self.center)} numbers; "
                "expected one number per column"
            )
        if not (math.isfinite(self.radius) and self.radius > 0.0):
            raise ValueError(f"disc: radius is {self.radius:g}; expected a positive number")


@dataclass(frozen=True)
class Box:
    """Inside when every one of `columns` lies between `low` and `high`, borders included."""

    columns: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a box without inside, and limits that are not one pair per column."""
        if not self.columns or not len(self.columns) == len(self.low) == len(self.high):
            raise ValueError("box: columns, low and high must have one entry per column")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"box: low {self.low} must be below high {self.high}")


@dataclass(frozen=True)
class ColumnRule:
    """Happens when a recorded number is above `above`, or a recorded boolean is true.

    A column that LeRobot calls `next.SOMETHING` tells of the tick after its row, as `next.reward`.
    """

    column: str
    above: float = 0.5


@dataclass(frozen=True)
class HazardRule:
    """Exactly one way to tell, tick by tick of a recording, that a hazard happens."""

    disc: Disc | None = None
    box: Box | None = None
    recorded: ColumnRule | None = None

    def __post_init__(self) -> None:
        """Refuse none and several rules."""
        if sum(rule is not None for rule in (self.disc, self.box, self.recorded)) != 1:
            raise ValueError("a hazard needs exactly one of: disc, box, recorded")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the recorded columns that the rule reads."""
        region = self.disc or self.box
        if region is not None:
            return region.columns
        assert self.recorded is not None
        return (self.recorded.column,)

    def happens(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Whether it happens, tick by tick: `[F]`, from the values of `self.columns`."""
        values = np.stack([columns[name] for name in self.columns], axis=1).astype(np.float64)
        if self.disc is not None:
            inside = np.square(values - self.disc.center).sum(1) <= self.disc.radius**2
        elif self.box is not None:
            inside = ((values >= self.box.low) & (values <= self.box.high)).all(1)
        else:
            assert self.recorded is not None
            inside = values[:, 0] > self.recorded.above
            if self.recorded.column.startswith("next."):  # row t tells of tick t + 1
                inside = np.concatenate([[False], inside[:-1]])
        return np.asarray(inside)

    def describe(self) -> str:
        """The rule as words for a model card."""
        if self.disc is not None:
            at = ", ".join(f"{value:g}" for value in self.disc.center)
            return f"({', '.join(self.columns)}) within {self.disc.radius:g} of ({at})"
        if self.box is not None:
            low, high = self.box.low, self.box.high
            sides = zip(low, self.columns, high, strict=True)
            return " and ".join(f"{a:g} <= {name} <= {b:g}" for a, name, b in sides)
        assert self.recorded is not None
        return f"{self.recorded.column} > {self.recorded.above:g}"
