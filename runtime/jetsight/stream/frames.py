"""Input and output of the loop: `Frame`, `Forecast`, and the reasons why one is not valid.

Shapes: D latent size, H horizon, n steps, a size of one robot action, s state size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from jetsight.engine import NDArray


class Reason(str, Enum):
    """Reason why a forecast may not be used; `OK` is the only one of a valid forecast."""

    OK = "ok"
    NOT_COMPUTED = "not_computed"
    WARMING_UP = "warming_up"  # fewer frames since the start or the last cut than the model needs
    HISTORY_GAP = "history_gap"  # a frame of the evenly spaced history never arrived
    ACTIONS_UNKNOWN = "actions_unknown"  # executed actions not reported; neutral ones were assumed
    PLAN_UNKNOWN = "plan_unknown"  # planned actions not reported; neutral ones were assumed
    ACTION_UNTRAINED = "action_untrained"  # along a dimension that never varied in training
    STATE_UNKNOWN = "state_unknown"  # the model reads a state that was not reported, or is NaN
    LATENT_NOT_FINITE = "latent_not_finite"
    FORECAST_NOT_FINITE = "forecast_not_finite"
    ENGINE_FAILED = "engine_failed"
    FRAME_STALE = "frame_stale"  # computed, but from a frame too old to act on
    CAMERA_LOST = "camera_lost"  # no frame at all
    FRAMES_REJECTED = "frames_rejected"  # frames arrive, but none that the model can take
    FROZEN = "frozen"  # fresh stamps on the same pixels; degrades, does not invalidate
    OVERLOADED = "overloaded"  # too many frames lost because the loop is slower than the camera
    RECOVERING = "recovering"  # good again, but not for long enough to be trusted

    def __str__(self) -> str:
        return self.value


class Mode(IntEnum):
    """Degree of trust in the stream; larger is worse."""

    OK = 0
    DEGRADED = 1  # usable, but something is wrong
    HOLD = 2  # not usable now; keep the last validated action
    FAULT = 3  # not usable for long enough to give up holding

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Frame:
    """One camera frame, with the actions before and after it.

    Image and state belong to the camera and are overwritten by the second-next frame.

    Args:
        image_hwc_u8: `uint8 [h, w, 3]`, RGB; `[C, h, w, 3]` for a model of several cameras, in the
            order of its manifest.
        index: number the camera gave the frame; a jump means frames were lost.
        tick: position on the model's time grid (one tick = one period of the model's camera rate).
        captured_ns: when it was captured, on the session's clock.
        action_since: `float32 [n, a]` actions executed at ticks `tick - n .. tick - 1`, in the
            robot's units; None when they are not known.
        plan: `float32 [n, a]` actions the robot is going to execute from `tick` on; None when
            they are not known. A plan shorter than the horizon is continued with its last action.
        state: `float32 [s]` of the robot when the image was taken, in its units, for a model that
            reads one; None when it is not known.
    """

    image_hwc_u8: NDArray
    index: int = 0
    tick: int = 0
    captured_ns: int = 0
    action_since: NDArray | None = None
    plan: NDArray | None = None
    state: NDArray | None = None


@dataclass(slots=True)
class Forecast:
    """Latents that the model expects, with the evidence whether they may be used.

    A forecast is invalid until proven otherwise. `z` and `z_future` are None when there is nothing
    finite to publish; else they are read-only views of the session's buffers, valid until the next
    forecast: keep one with `copy()`.

    Args:
        frame_index: `Frame.index` of the newest frame.
        tick: `Frame.tick` of the newest frame.
        captured_ns: when that frame was captured, on the session's clock.
        age_ms: how old that frame is now that the forecast is published.
        encode_ms: time the encoder engine took.
        forecast_ms: time the forecast engine took, all calls of this frame together.
        overhead_ms: everything else between taking the frame and publishing.
        z: `float32 [D]` latent of the frame.
        z_future: `float32 [H, D]` latents expected 1..H action blocks ahead under the plan.
        surprise: distance between `z` and what was expected one block ago given what was really
            done; 1.0 is typical for held-out data. None when it cannot be known.
        surprising: `surprise` is above the 99.9 % quantile of held-out data.
        valid: the forecast may be used.
        reason: why not, or `Reason.OK`.
        mode: state of the stream, see `Mode`.
        drops: frames lost since the stream began.
        source_hz: rate of the source; above the model's, the frame is the one nearest to its tick,
            and recorded actions are resampled by the model's rule. None if it is not known.
        assumed: `"neutral"` if the source reports no actions, and the forecast holds for a robot
            that executes the neutral one; None where actions are known, or nothing was assumed.
    """

    frame_index: int = -1
    tick: int = -1
    captured_ns: int = 0
    age_ms: float = 0.0
    encode_ms: float = 0.0
    forecast_ms: float = 0.0
    overhead_ms: float = 0.0
    z: NDArray | None = None
    z_future: NDArray | None = None
    surprise: float | None = None
    surprising: bool = False
    valid: bool = False
    reason: Reason = Reason.NOT_COMPUTED
    mode: Mode = Mode.OK
    drops: int = 0
    source_hz: float | None = None
    assumed: str | None = None

    def copy(self) -> Forecast:
        """Copy the forecast with arrays of its own, to keep beyond the next one."""
        return replace(
            self,
            z=None if self.z is None else self.z.copy(),
            z_future=None if self.z_future is None else self.z_future.copy(),
        )
