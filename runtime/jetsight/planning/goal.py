"""Goals, and the request that carries one through a planning call.

Shapes: h x w camera frame, C cameras, s state size, D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import UsageError
from jetsight.planning.limits import Limits

GoalLike = Union["Goal", NDArray, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Goal:
    """Desired state at the end of a plan; make one with `image`, `latent` or `probe`.

    An image or a latent is compared in the latent space; targets are values that the probe should
    read there. Both may be given.

    Args:
        image_hwc_u8: `uint8 [h, w, 3]` camera frame of the goal, RGB; `[C, h, w, 3]` of several.
        z: `float32 [D]` its latent, where that is known already.
        targets: value by quantity; an angle in radians stands for its cosine and sine.
        state: `float32 [s]` of the robot at the goal, beside the image, for a model that reads one.

    Example:
        >>> session.imagine(Goal.probe(block_x=300.0, block_angle=math.pi / 4))
    """

    image_hwc_u8: NDArray | None = None
    z: NDArray | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    state: NDArray | None = None

    @classmethod
    def image(
        cls, frame_hwc_u8: NDArray, state: NDArray | None = None, /, **targets: float
    ) -> Goal:
        """Make a goal that looks like a frame, with the robot in the given state.

        Args:
            frame_hwc_u8: `uint8 [h, w, 3]`, or `[C, h, w, 3]` of several cameras.
            state: `float32 [s]`, for a model that reads one.
            targets: value by quantity.
        """
        return cls(image_hwc_u8=frame_hwc_u8, targets=targets, state=state)

    @classmethod
    def latent(cls, z: NDArray, **targets: float) -> Goal:
        """Make a goal that has the latent `float32 [D]`."""
        return cls(z=np.asarray(z), targets=targets)

    @classmethod
    def probe(cls, targets: Mapping[str, float] | None = None, **more: float) -> Goal:
        """Make a goal of target values; give names with blanks as a mapping."""
        return cls(targets={**(targets or {}), **more})

    @classmethod
    def of(cls, value: GoalLike) -> Goal:
        """Convert a goal, an image, a latent or target values to a goal.

        Raises:
            UsageError: it is none of them.
        """
        if isinstance(value, Goal):
            return value
        if isinstance(value, Mapping):
            return cls.probe(value)
        # The number of axes tells image and latent apart; sizes are compared once the model is
        # known.
        if isinstance(value, np.ndarray) and value.ndim in (3, 4):
            return cls.image(value)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return cls.latent(value)
        found = f"an array {list(value.shape)}" if isinstance(value, np.ndarray) else type(value)
        raise UsageError(
            f"the goal is {found}; expected an image uint8 [h, w, 3], a latent float32 [D], or "
            "target values by quantity"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """One request for a plan; `Session.imagine` builds it from its arguments.

    Args:
        goal: to plan towards.
        deadline_ms: from the call on; None for no deadline.
        planner: name of a graph; None for the one that makes most of the deadline here.
        iterations: exactly so many; None for as many as it takes to converge.
        limits: tighter than the robot's own.
        weights: by `"terminal"`, `"running"`, `"support"` or quantity; the planner's where missing.
        constrain: obey the hazard heads.
        seed: of the draws; None goes on with the planner's own.
        warm: start from the plan before.
        arrive_ticks: when the goal is due; None for the end of the horizon.
    """

    goal: Goal
    deadline_ms: float | None = None
    planner: str | None = None
    iterations: int | None = None
    limits: Limits = field(default_factory=Limits)
    weights: Mapping[str, float] = field(default_factory=dict)
    constrain: bool = True
    seed: int | None = None
    warm: bool = True
    arrive_ticks: int | None = None
