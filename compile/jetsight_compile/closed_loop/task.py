"""The pushing task and its success criterion: agent and block at a goal pose.

Shapes: s state size, n points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import UsageError

_NEEDED = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")


@dataclass(frozen=True)
class Tolerance:
    """Success limits: agent and block each within `position_px`, angle within `angle_rad`.

    The strict form is that of stable-worldmodel: one distance over all four coordinates.
    """

    position_px: float = 20.0
    angle_rad: float = math.pi / 9


@dataclass(frozen=True)
class Miss:
    """Distance of a state to the goal; `joint_px` is over agent and block positions together."""

    agent_px: float
    block_px: float
    angle_rad: float

    @property
    def joint_px(self) -> float:
        """Norm of all four coordinate differences."""
        return math.hypot(self.agent_px, self.block_px)

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether agent, block and angle are within their limits; False if not finite."""
        return (
            self.agent_px < tolerance.position_px
            and self.block_px < tolerance.position_px
            and self.angle_rad < tolerance.angle_rad
        )

    def jointly_within(self, tolerance: Tolerance) -> bool:
        """Return whether stable-worldmodel's criterion is met, which implies `within`."""
        return self.joint_px < tolerance.position_px and self.angle_rad < tolerance.angle_rad


class PushingState:
    """Indices of agent and block in the state vector of an environment.

    Args:
        names: of the state, in order.
        env_id: for messages.

    Raises:
        UsageError: the state has no agent and block, so success could not be judged.
    """

    def __init__(self, names: Sequence[str], env_id: str) -> None:
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise UsageError(
                f"environment {env_id!r} has no {', '.join(missing)} in its state, so success "
                "cannot be judged; expected a pushing task such as gym_pusht/PushT-v0"
            )
        places = [list(names).index(name) for name in _NEEDED]
        self._agent, self._block, self._angle = places[:2], places[2:4], places[4]

    def agent(self, states: NDArray) -> NDArray:
        """Select the agent positions of states, `[..., s] -> [..., 2]` px."""
        return np.asarray(states[..., self._agent], np.float64)

    def miss(self, state: NDArray, goal: NDArray) -> Miss:
        """Measure the distance of `state [s]` to `goal [s]`."""
        gap = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
        # The remainder is the angle the short way round.
        return Miss(
            agent_px=float(np.hypot(*gap[self._agent])),
            block_px=float(np.hypot(*gap[self._block])),
            angle_rad=abs(math.remainder(float(gap[self._angle]), 2 * math.pi)),
        )

    def moves_block(self, start: NDArray, goal: NDArray) -> bool:
        """Return whether `goal` needs the block moved by 20 px or turned by 20 degrees."""
        miss = self.miss(start, goal)
        return miss.block_px >= 20.0 or miss.angle_rad >= math.radians(20.0)


@dataclass(frozen=True)
class Region:
    """A disc the agent's centre must stay out of, in px of the state."""

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
        """Parse centre x, y and radius in px, like `"256,256,60"`.

        Raises:
            UsageError: the text has another form.
        """
        try:
            x, y, radius = (float(part) for part in text.split(","))
        except ValueError as problem:
            raise UsageError(
                f"region {text!r} is not x,y,radius in px, for example --region 256,256,60"
            ) from problem
        return cls(x, y, radius)

    def distance(self, points: NDArray) -> NDArray:
        """Compute the distance of points `[..., 2]` to the rim in px, 0 or less inside."""
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
