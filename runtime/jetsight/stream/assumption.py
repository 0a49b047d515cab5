"""Actions of a source that reports none: assumed to be neutral, and said so in every forecast.

Shapes: a size of one robot action, n ticks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.engine import NDArray
from jetsight.stream.frames import Frame

Assumed = Literal["neutral"]
"""The actions that a forecast assumes."""

ActionsOption = Literal["neutral", "unknown"]
"""A declaration by the caller of a stream: the robot executes the neutral action, or nothing."""


class ActionAssumption:
    """Fills in the neutral action for a source without actions, until it reports one.

    A source that reports some of its actions is a robot that moves, so that a missing one is
    unknown and never neutral.

    Args:
        spec: of the model.
        active: fill in; else frames pass as they are.
        declared: by the caller, and not by default; a planner may then rely on it.
    """

    def __init__(self, spec: StreamSpec, *, active: bool, declared: bool) -> None:
        self._neutral: NDArray = spec.neutral[None]
        self._span = spec.span_ticks + spec.action_block
        self._active, self.declared = active, declared
        self._tick: int | None = None

    @property
    def assumed(self) -> Assumed | None:
        """The actions that forecasts assume now; None if none are."""
        return "neutral" if self._active else None

    def fill(self, frame: Frame) -> Frame:
        """Return the frame with the neutral action before and after it, where that is assumed."""
        if frame.action_since is not None or frame.plan is not None:
            self._active = False
        if not self._active:
            return frame
        before, self._tick = self._tick, frame.tick
        # As of a camera that was there before: frames that were lost do not end the assumption.
        passed = self._span if before is None else min(max(frame.tick - before, 0), self._span)
        since = np.broadcast_to(self._neutral, (passed, self._neutral.shape[1]))
        return replace(frame, action_since=since, plan=self._neutral)
