"""Keep-out regions: a disc, and the state columns that say where the robot is.

Shapes: n points, s state size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Region:
    """A disc that the robot's position must stay out of, in the units of the state."""

    x: float
    y: float
    radius: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x, self.y, self.radius))) or self.radius <= 0:
            raise UsageError(
                f"region {self.x:g},{self.y:g},{self.radius:g} is no disc; expected a finite "
                "centre and a radius above 0, for example --region 256,256,60"
            )

    @classmethod
    def parse(cls, text: str) -> Region:
        """Parse centre x, y and radius in the units of the state, like `"256,256,60"`.

        Raises:
            UsageError: the text has another form.
        """
        try:
            x, y, radius = (float(part) for part in text.split(","))
        except ValueError as problem:
            raise UsageError(
                f"region {text!r} is not x,y,radius in the units of the state, for example "
                "--region 256,256,60"
            ) from problem
        return cls(x, y, radius)

    def distance(self, points: NDArray) -> NDArray:
        """Compute the distance of points `[..., 2]` to the rim, 0 or less inside."""
        gap = np.asarray(points, np.float64) - (self.x, self.y)
        return np.asarray(np.hypot(gap[..., 0], gap[..., 1]) - self.radius)

    def contains(self, points: NDArray) -> NDArray:
        """Return for each point `[..., 2]` whether it is inside."""
        return np.asarray(self.distance(points) <= 0.0)

    def crosses(self, start: NDArray, end: NDArray) -> bool:
        """Return whether the segment from `start [2]` to `end [2]` enters the region."""
        # Distance to the nearest point of the segment, which is a point if start equals end.
        segment = np.asarray(end, np.float64) - start
        centre = np.array([self.x, self.y]) - start
        length_2 = float(segment @ segment)
        along = min(max(float(centre @ segment) / length_2, 0.0), 1.0) if length_2 > 0 else 0.0
        return bool(np.linalg.norm(centre - along * segment) <= self.radius)


# Place of points `[..., 2]` in the camera's picture, as shares of its width and height.
ToPicture = Callable[[NDArray], NDArray]


@dataclass(frozen=True)
class RegionFrame:
    """State columns in which regions of a task are measured.

    Args:
        columns: names of the state's columns that hold the position.
        indices: of these columns.
        clearance: distance of start and goal to a region, so that no arm enters it only because it
            could not brake; None for a third of the region's radius.
        to_picture: leads from positions to the picture; None if a region cannot be drawn.
    """

    columns: tuple[str, str]
    indices: tuple[int, int]
    clearance: float | None = None
    to_picture: ToPicture | None = None

    @classmethod
    def of(cls, columns: Sequence[str], state_names: Sequence[str], where: str) -> RegionFrame:
        """Find two columns by name.

        Raises:
            UsageError: they are not two, or the state of `where` lacks one.
        """
        if len(columns) != 2 or columns[0] == columns[1]:
            raise UsageError(
                f"--region-columns names {len(set(columns))} columns, expected two, for example x,y"
            )
        for name in columns:
            if name not in state_names:
                hint = did_you_mean(name, state_names, "it has")
                raise UsageError(f"--region-columns: {where} has no column {name!r}; {hint}")
        first, second = (list(state_names).index(name) for name in columns)
        return cls((columns[0], columns[1]), (first, second))

    def positions(self, states: NDArray) -> NDArray:
        """Select the positions of states, `[..., s] -> [..., 2]`."""
        return np.asarray(states[..., list(self.indices)], np.float64)

    def clearance_of(self, region: Region) -> float:
        """Return the distance that starts and goals keep to `region`."""
        return region.radius / 3.0 if self.clearance is None else self.clearance
