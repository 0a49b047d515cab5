"""The last check of every action: finite, inside the bounds, no faster than allowed.

Shapes: a size of one robot action.
"""

from __future__ import annotations

import numpy as np

from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError
from jetsight.planning.limits import Limits


class ActionGate:
    """Bounds and rate limits of one robot.

    Args:
        spec: of the robot.
        limits: tighter than the robot's own.

    Attributes:
        neutral: `[a]` the robot's neutral action.

    Raises:
        UsageError: limits of another size than the action, or crossed ones.
    """

    def __init__(self, spec: PlanSpec, limits: Limits) -> None:
        tick_s = np.float32(1 / spec.stream.camera_hz)
        self.neutral: NDArray = spec.stream.neutral
        self._low = np.maximum(spec.low, _or(limits.low, spec.low))
        self._high = np.minimum(spec.high, _or(limits.high, spec.high))
        free: NDArray = np.full_like(spec.low, np.inf)
        own = free if spec.rate_per_tick is None else spec.rate_per_tick
        asked = free if limits.rate_per_s is None else _or(limits.rate_per_s, free) * tick_s
        self._rate = np.minimum(own, asked)
        if (self._low > self._high).any():
            raise UsageError("limits leave no action: low is above high in one dimension")

    def admit(self, values: NDArray, last: NDArray | None) -> tuple[NDArray, bool]:
        """Return the nearest action that may be executed, and whether it differs.

        Args:
            values: `[a]` finite.
            last: `[a]` executed before it; None if that is not known.
        """
        found = np.asarray(values, np.float32)
        if last is not None:
            found = np.clip(found, last - self._rate, last + self._rate)
        # Bounds last: an action out of bounds may return to them in one step, however long.
        found = np.clip(found, self._low, self._high)
        return found.copy(), not np.array_equal(found, values)


def finite(values: object, size: int) -> NDArray | None:
    """Convert to `float32 [size]`; None if a number is not finite.

    Raises:
        UsageError: it has another shape.
    """
    found: NDArray = np.asarray(values, np.float32)
    if found.shape != (size,):
        raise UsageError(f"an action has the shape {list(found.shape)}, expected {[size]}")
    return found if np.isfinite(found).all() else None


def _or(values: object, usual: NDArray) -> NDArray:
    if values is None:
        return usual
    found: NDArray = np.asarray(values, np.float32)
    if found.shape != usual.shape:
        raise UsageError(f"limits have the shape {list(found.shape)}, expected {list(usual.shape)}")
    return found
