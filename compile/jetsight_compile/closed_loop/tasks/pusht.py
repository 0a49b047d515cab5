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
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.tasks.region import RegionFrame
from jetsight_compile.closed_loop.tasks.task import EvalTask, Judgement, Measure
from jetsight_train.record.pusht import ARENA_PX

MOVES, RESTS = "block moves", "block rests"
JOINT = "joint"
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


class PushingTask(EvalTask):
    """Agent and block at the goal's pose: the task of gym_pusht/PushT-v0.

    Args:
        names: of the state, in order.
        env_id: for messages.
        tolerance: limits.

    Raises:
        UsageError: the state has no agent and block, so success could not be judged.
    """

    name = "pusht"
    criterion = "agent and block within 20 px, block angle within 20 degrees"
    measures = (Measure("agent", "px"), Measure("block", "px"), Measure("angle", "rad"))
    also = (JOINT,)
    kinds = (MOVES, RESTS)

    def __init__(
        self, names: Sequence[str], env_id: str, tolerance: Tolerance | None = None
    ) -> None:
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise UsageError(
                f"environment {env_id!r} has no {', '.join(missing)} in its state, so success "
                "cannot be judged; expected a pushing task such as gym_pusht/PushT-v0"
            )
        places = [list(names).index(name) for name in _NEEDED]
        self._agent, self._block, self._angle = places[:2], places[2:4], places[4]
        self._tolerance = tolerance or Tolerance()
        columns, indices = (_NEEDED[0], _NEEDED[1]), (places[0], places[1])
        self.region = RegionFrame(columns, indices, 20.0, lambda points: points / ARENA_PX)

    def judge(self, now: Observation, goal: Observation) -> Judgement:
        """Judge one tick."""
        miss, limits = self.miss(now.state, goal.state), self._tolerance
        off = {"agent_px": miss.agent_px, "block_px": miss.block_px, "angle_rad": miss.angle_rad}
        return Judgement(miss.within(limits), off, {JOINT: miss.jointly_within(limits)})

    def miss(self, state: NDArray, goal: NDArray) -> Miss:
        """Measure the distance of `state [s]` to `goal [s]`."""
        gap = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
        # The remainder is the angle the short way round.
        return Miss(
            agent_px=float(np.hypot(*gap[self._agent])),
            block_px=float(np.hypot(*gap[self._block])),
            angle_rad=abs(math.remainder(float(gap[self._angle]), 2 * math.pi)),
        )

    def kind(self, start: NDArray, goal: NDArray) -> str:
        """Tell goals that need the block moved by 20 px or turned by 20 degrees from others."""
        miss = self.miss(start, goal)
        moves = miss.block_px >= 20.0 or miss.angle_rad >= math.radians(20.0)
        return MOVES if moves else RESTS
