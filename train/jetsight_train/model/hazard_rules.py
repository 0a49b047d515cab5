"""Rules that label hazards: a region of recorded values, or a recorded column itself.

Shapes: F ticks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[np.float32]]  # name -> [F]
Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Disc:
    """Region within `radius` of `center` for the point made of `columns`, in their unit.

    Attributes:
        columns: recorded columns that make the point.
        center (units): of the region, one number per column.
        radius (units): of the region.
    """

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

    def contains(self, values: Values) -> Labels:
        """Return whether each tick is in the region: `[F, columns] -> [F]`."""
        return np.asarray(np.square(values - self.center).sum(1) <= self.radius**2)

    def describe(self) -> str:
        """Write the rule for a model card."""
        center = ", ".join(f"{value:g}" for value in self.center)
        return f"({', '.join(self.columns)}) within {self.radius:g} of ({center})"


@dataclass(frozen=True)
class Box:
    """Region in which each of `columns` is between `low` and `high`, limits included.

    Attributes:
        columns: recorded columns.
        low (units): smallest value of each column in the region.
        high (units): largest value of each column in the region.
    """

    columns: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse an empty box, and limits that are not one pair per column."""
        if not self.columns or not len(self.columns) == len(self.low) == len(self.high):
            raise ValueError("box: columns, low and high must have one entry per column")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"box: low {self.low} must be below high {self.high}")

    def contains(self, values: Values) -> Labels:
        """Return whether each tick is in the region: `[F, columns] -> [F]`."""
        return np.asarray(((values >= self.low) & (values <= self.high)).all(1))

    def describe(self) -> str:
        """Write the rule for a model card."""
        sides = zip(self.low, self.columns, self.high, strict=True)
        return " and ".join(f"{low:g} <= {name} <= {high:g}" for low, name, high in sides)


@dataclass(frozen=True)
class ColumnRule:
    """Ticks at which a recorded number is above `above`, or a recorded boolean is true.

    A LeRobot column `next.NAME` (such as `next.reward`) describes the tick after its row.

    Attributes:
        column: recorded column.
        above (units): value above which the tick is hazardous.
    """

    column: str
    above: float = 0.5

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the recorded columns that the rule reads."""
        return (self.column,)

    def contains(self, values: Values) -> Labels:
        """Return whether the rule holds at each tick: `[F, 1] -> [F]`."""
        above = values[:, 0] > self.above
        if self.column.startswith("next."):  # row t describes tick t + 1
            above = np.concatenate([[False], above[:-1]])
        return np.asarray(above)

    def describe(self) -> str:
        """Write the rule for a model card."""
        return f"{self.column} > {self.above:g}"


@dataclass(frozen=True)
class HazardRule:
    """Definition of a hazard, tick by tick of a recording; exactly one of the fields is given."""

    disc: Disc | None = None
    box: Box | None = None
    recorded: ColumnRule | None = None

    def __post_init__(self) -> None:
        """Refuse no rule and several rules."""
        if sum(rule is not None for rule in (self.disc, self.box, self.recorded)) != 1:
            raise ValueError("a hazard needs exactly one of: disc, box, recorded")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the recorded columns that the rule reads."""
        return self._rule.columns

    def happens(self, columns: Columns) -> Labels:
        """Return whether the hazard happens at each tick: `[F]`, from the recorded `columns`."""
        values = np.stack([columns[name] for name in self.columns], axis=1).astype(np.float64)
        return self._rule.contains(values)

    def describe(self) -> str:
        """Write the rule for a model card."""
        return self._rule.describe()

    @property
    def _rule(self) -> Disc | Box | ColumnRule:
        rule = self.disc or self.box or self.recorded
        assert rule is not None
        return rule
