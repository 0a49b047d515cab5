"""A camera that follows a script, fault by fault.

Shapes: n steps, a size of one robot action, h, w frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import SourceInfo, StreamRequest, defect
from jetsight.engine import NDArray
from jetsight.stream.frames import Frame
from jetsight.testing.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Shot:
    """One period of a scripted camera.

    Args:
        image_hwc_u8: the picture; None for a grey one that changes a little every frame.
        action: `[a]` executed since the period before; None when not known.
        plan: `[n, a]` upcoming actions; None when not known.
        lost: no frame comes in this period; its action counts all the same.
        tick_offset: added to the frame's tick, e.g. -5 for a time stamp that goes backwards.
        age_periods: how old the frame already is when it is delivered.
        state: `[s]` of the robot; None when not known.
    """

    image_hwc_u8: NDArray | None = None
    action: NDArray | None = None
    plan: NDArray | None = None
    lost: bool = False
    tick_offset: int = 0
    age_periods: float = 0.0
    state: NDArray | None = None


def shots(count: int, **facts: Any) -> list[Shot]:
    """`count` equal good frames, by default of a robot that rests and means to go on resting."""
    rest = {"action": np.zeros(2, np.float32), "plan": np.zeros((1, 2), np.float32)}
    return [Shot(**{**rest, **facts})] * count


def lost(count: int, **facts: Any) -> list[Shot]:
    """`count` periods without a frame; the robot's actions are unknown unless `facts` give them."""
    return [Shot(lost=True, **facts)] * count


class ScriptedCamera:
    """A camera that follows a script on a fake clock; frame i is due i periods after the start.

    Like a real one it delivers only the newest frame: periods that pass while the session is busy
    are dropped, and a frame the model cannot take is rejected.

    Args:
        spec: of the model; gives the period and the size of grey frames.
        script: one `Shot` per period.
        clock: the session's clock.
        frozen: value of the property `frozen`.
    """

    def __init__(
        self, spec: StreamSpec, script: Sequence[Shot], clock: FakeClock, *, frozen: bool = False
    ) -> None:
        self._script, self._clock, self._period_ns = script, clock, spec.period_ns
        self._request = StreamRequest.of(spec)
        self._position = 0
        self._executed: list[NDArray] = []  # actions since the last frame that was delivered
        self._start_ns: int | None = None
        self.frozen = frozen
        self.rejecting = False
        self.rejected = 0
        self.stamps = "driver"
        self.closed = False

    @property
    def source_hz(self) -> float:
        """Rate of the script: that of the model."""
        return 1e9 / self._period_ns

    @property
    def period_ns(self) -> int:
        """One tick of the model."""
        return self._period_ns

    @property
    def ended(self) -> bool:
        """The script is over."""
        return self._position >= len(self._script)

    def start(self, request: StreamRequest, rate_hz: float | None = None) -> SourceInfo:
        """Begin with the first shot."""
        self._start_ns = self._clock.now_ns()
        hz = self.source_hz
        return SourceInfo("scripted", request.height_px, request.width_px, hz, physical=True)

    def next(self, timeout_ns: int) -> Frame | None:
        """Return the newest frame due within `timeout_ns`, and move the clock to it."""
        deadline_ns = self._clock.now_ns() + timeout_ns
        while not self.ended and self._due_ns(self._position) <= deadline_ns:
            wait_ns = self._due_ns(self._position) - self._clock.now_ns()
            self._clock.advance(wait_ns)
            frame = self._advance()
            while not self.ended and self._due_ns(self._position) <= self._clock.now_ns():
                frame = self._advance() or frame  # a busy loop finds only the newest frame
            if frame is not None:
                self._executed = []
                return frame
        # Waiting for nothing takes the whole time-out, as with a real camera.
        self._clock.advance(deadline_ns - self._clock.now_ns())
        return None

    def raise_for_error(self) -> None:
        """Raise nothing: a script ends well."""

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _due_ns(self, index: int) -> int:
        return (self._start_ns or 0) + index * self._period_ns

    def _advance(self) -> Frame | None:
        """Let one period pass; the frame it brings, if the model can take it."""
        index, self._position = self._position, self._position + 1
        shot = self._script[index]
        # An unknown action cuts the log: what came before it is not next to the frame.
        self._executed = [] if shot.action is None else [*self._executed, shot.action]
        if shot.lost:
            return None
        image = self._grey(index) if shot.image_hwc_u8 is None else shot.image_hwc_u8
        self.rejecting = defect(image, self._request) is not None
        self.rejected += self.rejecting
        if self.rejecting:
            return None
        return Frame(
            image,
            index=index,
            tick=index + shot.tick_offset,
            captured_ns=self._due_ns(index) - round(shot.age_periods * self._period_ns),
            action_since=np.stack(self._executed) if self._executed else None,
            plan=shot.plan,
            state=shot.state,
        )

    def _grey(self, index: int) -> NDArray:
        shape = self._request.frame_shape
        # Two shades, or the camera would count as frozen; no zeros, which count as black.
        return np.full(shape, 100 + index % 2, np.uint8)
